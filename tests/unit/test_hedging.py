"""When hedges start, and what they save: one of two equal deployments turns ten times slower, in virtual time."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest

from backends.deployment import Deployment
from backends.dispatch import Dispatcher
from backends.protocol import Iterated, UpstreamCall, UpstreamResponse
from backends.registry import Registry
from backends.rescue_budget import RescueRules
from backends.tries import AttemptLog, Errand
from core.chat import ChatRequest, parse_chat_request
from core.deadline import Deadline
from core.errors import HeadgateError
from core.money import Price
from core.plan import Plan, PlannedStep, Reason
from core.trace import Attempt, AttemptKind, AttemptOutcome
from tests.virtual_time import VirtualClock, run_in_virtual_time

PRICE = Price(1_000_000, 2_000_000)
LIMIT_S = 3.0
SECONDS = 100.0
SLOW_FROM_S, SLOW_UNTIL_S = 20.0, 80.0
PER_S = 6.0
WARM_UP = 20
TOKEN = b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
END = (
    b'data: {"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":12}}\n\ndata: [DONE]\n\n'
)


@dataclass
class Engine:
    """Begins to answer after half a second and writes twelve tokens, `slowness` times as long."""

    slowness: Callable[[], float]
    rng: random.Random

    @asynccontextmanager
    async def open(self, call: UpstreamCall, deadline: Deadline) -> AsyncIterator[UpstreamResponse]:
        """Answer one call."""
        chunks = self._chunks(self.slowness())
        try:
            yield UpstreamResponse("text/event-stream", Iterated(chunks))
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]

    async def _chunks(self, slowness: float) -> AsyncIterator[bytes]:
        await asyncio.sleep(0.5 * slowness * self.rng.lognormvariate(0.0, 0.05))
        for _ in range(12):
            yield TOKEN
            await asyncio.sleep(0.02 * slowness)
        yield END

    async def close(self) -> None:
        """Nothing to close."""


@dataclass
class Run:
    """Requests to a tier of two equal deployments, and what came of them."""

    seed: int
    slow_s: dict[str, tuple[float, float]]
    clock: VirtualClock = field(default_factory=VirtualClock)
    ttfts_s: list[float | None] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        self.arrivals = random.Random(self.seed + 1)
        engines = {name: Engine(lambda name=name: self._slowness(name), rng) for name in ("one", "two")}  # type: ignore[misc]
        deployments = {name: Deployment(name, "m", PRICE, engine) for name, engine in engines.items()}
        self.registry = Registry(deployments, {"small": ("one", "two")}, self.clock, rng)
        self.dispatcher = Dispatcher(self.registry, self.clock, RescueRules(), rng)

    async def drive(self) -> None:
        """Warm up, then send Poisson arrivals for `SECONDS`, counted from then."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WARM_UP):
                await asyncio.sleep(1 / PER_S)
                tasks.create_task(self._ask())
        self.ttfts_s.clear()
        self.attempts.clear()
        self._began_s = self.clock.seconds
        async with asyncio.TaskGroup() as tasks:
            while self.clock.seconds < self._began_s + SECONDS:
                await asyncio.sleep(self.arrivals.expovariate(PER_S))
                tasks.create_task(self._ask())

    async def _ask(self) -> None:
        began_s, log = self.clock.seconds, AttemptLog()
        order = self.registry.snapshot().tiers["small"]
        plan = Plan(tuple(PlannedStep(name, "small", 100, None, 0, 0) for name in order), Reason.SCORE, "small")
        deadline = Deadline.after(began_s, round(LIMIT_S * 1000), None)
        ttft_s = None
        try:
            async with self.dispatcher.open(Errand(plan, REQUEST, deadline, log, began_s, afford=_affordable)) as live:
                ttft_s = self.clock.seconds - began_s
                async for _ in live.chunks():
                    pass
        except HeadgateError:
            pass
        self.ttfts_s.append(ttft_s)
        self.attempts += log.attempts

    _began_s: float = 1e9

    def _slowness(self, name: str) -> float:
        from_s, until_s = self.slow_s.get(name, (0.0, 0.0))
        return 10.0 if from_s <= self.clock.seconds - self._began_s < until_s else 1.0

    @property
    def in_time_ratio(self) -> float:
        return sum(ttft_s is not None and ttft_s <= LIMIT_S for ttft_s in self.ttfts_s) / len(self.ttfts_s)

    @property
    def extra_cost_ratio(self) -> float:
        lost = sum(one.cost_nano_usd for one in self.attempts if one.outcome is AttemptOutcome.OUTRUN)
        return lost / (sum(one.cost_nano_usd for one in self.attempts) - lost)

    @property
    def hedges(self) -> int:
        return sum(one.kind is AttemptKind.HEDGE for one in self.attempts)


def chat() -> ChatRequest:
    messages = [{"role": "user", "content": "hello there"}]
    return parse_chat_request(msgspec.json.encode({"model": "small", "stream": True, "messages": messages}), "req_test")


REQUEST = chat()


async def _affordable(step: PlannedStep) -> bool:
    return True


def driven(seed: int, **slow_s: tuple[float, float]) -> Run:
    run = Run(seed, slow_s)
    run_in_virtual_time(run.drive(), run.clock)
    return run


@pytest.mark.parametrize("seed", range(4))
def test_a_deployment_that_turns_slow_costs_few_hedges_and_no_promise(seed: int) -> None:
    run = driven(seed, two=(SLOW_FROM_S, SLOW_UNTIL_S))
    assert len(run.ttfts_s) > 500
    assert run.in_time_ratio >= 0.995
    assert run.extra_cost_ratio <= 0.02
    assert 1 <= run.hedges <= 15


def test_where_both_are_too_slow_no_hedge_is_paid_for_in_vain() -> None:
    run = driven(1, one=(SLOW_FROM_S, SLOW_UNTIL_S), two=(SLOW_FROM_S, SLOW_UNTIL_S))
    assert run.in_time_ratio < 0.6
    assert run.hedges <= 15
