"""What the gateway asks behind the client's back: billed, traced, bounded, ended at shutdown."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from backends.deployment import Deployment
from backends.dispatch import Dispatcher
from backends.registry import Registry
from backends.remote import RemoteBackend
from backends.transport import http_transport
from core.clock import SystemClock
from core.identity import Caller
from core.money import Price
from core.rules import Budget, EffectivePolicy
from core.trace import RequestTrace
from gateway.learning.asking import LEAST_QUEUE_MS, Asking
from policies.ledger_memory import MemoryLedger
from tests.planning import chat, policy
from tests.upstream.process import RunningUpstream

CALLER = Caller("acme", "key_1")
CLOCK = SystemClock()
USD = 1_000_000_000


class Bench:
    """An `Asking` over two tiers of the scripted upstream and a ledger in memory."""

    def __init__(self, upstream: RunningUpstream) -> None:
        transport = http_transport()
        self.deployments = {
            name: Deployment(
                name, f"scripted-{name}", Price(1_000_000, 2_000_000),
                RemoteBackend(lambda: upstream.base_url, transport, CLOCK, None),
            )
            for name in ("s", "l")
        }  # fmt: skip
        self.registry = Registry(self.deployments, {"small": ("s",), "large": ("l",)}, CLOCK)
        self.ledger = MemoryLedger(CLOCK)
        self.traces: list[RequestTrace] = []
        self.is_away = False
        self.asking = Asking(
            self.ledger, Dispatcher(self.registry, CLOCK), self, CLOCK, lambda: self.is_away, most_at_once=2
        )

    def record(self, trace: RequestTrace) -> None:
        self.traces.append(trace)

    async def spent_nano_usd(self, rules: EffectivePolicy) -> tuple[int, int]:
        (balance,) = await self.ledger.balances(rules.tenant_policy)
        return balance.spent_nano_usd, balance.reserved_nano_usd


@pytest.fixture
async def bench(upstream: RunningUpstream) -> AsyncIterator[Bench]:
    made = Bench(upstream)
    yield made
    await made.asking.close()
    await made.registry.close()


def funded(limit_nano_usd: int = USD) -> EffectivePolicy:
    granted = policy()
    budget = Budget("month", ZoneInfo("UTC"), limit_nano_usd, "reject")
    return replace(granted, tenant_policy=replace(granted.tenant_policy, budgets=(budget,)))


async def test_what_is_asked_is_billed_and_traced_to_the_last_nano_usd(bench: Bench, upstream: RunningUpstream) -> None:
    rules, streamed = funded(), chat("two words", stream=True, stream_options={"include_usage": True})
    asked = await bench.asking.ask(CALLER, streamed, rules, purpose="cache", tier="large")
    assert asked is not None
    assert (asked.content, asked.finish_reason, asked.tier) == ("answer to: two words", "stop", "large")
    (trace,) = bench.traces
    assert trace.is_shadow
    assert (trace.path, trace.tenant, trace.stream) == ("shadow:cache", "acme", False)
    assert trace.request_id != streamed.request_id
    assert trace.cost_nano_usd == asked.cost_nano_usd > 0
    assert await bench.spent_nano_usd(rules) == (trace.cost_nano_usd, 0)
    (seen,) = await asyncio.to_thread(upstream.seen)
    assert "stream" not in seen["body"]


@pytest.mark.parametrize("limit_nano_usd", [0, 1_000])
async def test_nothing_is_asked_when_the_budget_does_not_hold_it(bench: Bench, limit_nano_usd: int) -> None:
    rules = funded(limit_nano_usd)
    assert await bench.asking.ask(CALLER, chat(), rules, purpose="cache", tier="small") is None
    assert await bench.spent_nano_usd(rules) == (0, 0)
    assert bench.traces == []


async def test_nothing_is_asked_while_the_store_is_away_or_of_a_tier_that_does_not_exist(bench: Bench) -> None:
    assert await bench.asking.ask(CALLER, chat(), funded(), purpose="cache", tier="gone") is None
    bench.is_away = True
    assert await bench.asking.ask(CALLER, chat(), funded(), purpose="cache", tier="small") is None
    assert bench.traces == []


def answered_late(deployment: Deployment, last_ms: float) -> None:
    """Let the deployment have answered streams in 50 ms each, and the last one so many milliseconds later."""
    tracker, now_s = deployment.latency, CLOCK.monotonic_s()
    for late_ms in (*[0.0] * 10, last_ms):
        flight = tracker.begin(100, streamed=True, now_s=now_s - (50.0 + late_ms) / 1000)
        tracker.first_byte(flight, now_s)
        tracker.end(flight)


async def test_nothing_is_asked_where_requests_wait_and_what_is_left_of_an_old_wait_is_none(bench: Bench) -> None:
    answered_late(bench.deployments["l"], 5_000.0)
    assert await bench.asking.ask(CALLER, chat(), funded(), purpose="cache", tier="large") is None
    answered_late(bench.deployments["s"], 2.0)
    forecast = bench.registry.snapshot().deployments["s"].forecast
    assert forecast is not None
    assert 0 < forecast.queue_ms < LEAST_QUEUE_MS
    assert await bench.asking.ask(CALLER, chat(), funded(), purpose="cache", tier="small") is not None


async def test_a_failure_of_the_upstream_is_no_answer_and_has_a_trace(bench: Bench, upstream: RunningUpstream) -> None:
    await asyncio.to_thread(upstream.obey, "status=500")
    assert await bench.asking.ask(CALLER, chat(), funded(), purpose="cache", tier="small") is None
    (trace,) = bench.traces
    assert (trace.status, len(trace.attempts)) == (502, 1)


async def test_what_is_too_much_at_once_is_not_asked_and_a_shutdown_ends_and_settles_the_rest(
    bench: Bench, upstream: RunningUpstream
) -> None:
    await asyncio.to_thread(upstream.obey, "stall=headers")
    rules = funded()
    running = [
        asyncio.create_task(bench.asking.ask(CALLER, chat(), rules, purpose="cache", tier="small")) for _ in range(2)
    ]
    while len(await asyncio.to_thread(upstream.seen, 0.0)) < 2:
        pass
    assert await bench.asking.ask(CALLER, chat(), rules, purpose="cache", tier="small") is None
    await bench.asking.close()
    assert all(task.cancelled() for task in running)
    assert len(bench.traces) == 2
    spent, reserved = await bench.spent_nano_usd(rules)
    assert (spent, reserved) == (sum(trace.cost_nano_usd for trace in bench.traces), 0)
    assert await bench.asking.ask(CALLER, chat(), rules, purpose="cache", tier="small") is None
