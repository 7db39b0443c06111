"""The chaos run in seconds instead of minutes, and the tenant with ten cents that the field's gateways block."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import pytest

from benchmarks.chaos_judge import RETURN_S, verdict
from benchmarks.chaos_ledger import chaos
from core.clock import SystemClock
from core.errors import BudgetExhausted
from core.identity import Caller
from policies.ledger import BudgetLedger
from policies.ledger_memory import MemoryLedger
from policies.ledger_redis import RedisLedger
from policies.ledger_sqlite import SqliteLedger
from policies.redis_wire import Wire
from policies.reservation import drain, hold
from policies.slices import SlicedLedger
from tests.policy_samples import budget_policy
from tests.redis_server import BINARY, WHY_NOT, RedisServer

needs_redis = pytest.mark.skipif(BINARY is None, reason=WHY_NOT)

TEN_CENTS = budget_policy("0.10")
LIMIT = 100_000_000
# A model of 0.60 USD per million output tokens. The request names no `max_tokens`, so its hold is what the model mostly
# needs, not what it could need, and some answers cost more.
ESTIMATE = 600_000
REQUESTS = 200


@pytest.mark.redis
@needs_redis
def test_the_books_survive_kills_hangs_and_wrong_clocks() -> None:
    findings = chaos(40_000)
    assert verdict(findings) == []
    assert findings["requests"] >= 40_000
    assert findings["conservation"]["audits"] > 0
    assert findings["gateway_kills"] > 0
    assert findings["redis_kills"] + findings["redis_hangs"] > 0


@asynccontextmanager
async def memory_ledgers(folder: Path) -> AsyncIterator[list[BudgetLedger]]:
    yield [MemoryLedger(SystemClock())]


@asynccontextmanager
async def sqlite_ledgers(folder: Path) -> AsyncIterator[list[BudgetLedger]]:
    ledger = SqliteLedger(folder / "ledger.db", SystemClock())
    yield [ledger]
    ledger.close()


@asynccontextmanager
async def redis_ledgers(folder: Path, *, with_slices: bool = False) -> AsyncIterator[list[BudgetLedger]]:
    if BINARY is None:
        pytest.skip(WHY_NOT)
    server = RedisServer()
    server.start()
    try:
        async with AsyncExitStack() as stack:
            ledgers: list[BudgetLedger] = []
            for _ in range(3):
                wire = await stack.enter_async_context(Wire(server.url, timeout_s=5.0))
                inner = RedisLedger(wire, SystemClock())
                if with_slices:
                    sliced = SlicedLedger(inner, server.url, SystemClock(), patience_s=5.0)
                    ledgers.append(await stack.enter_async_context(sliced.running()))
                else:
                    ledgers.append(inner)
            yield ledgers
    finally:
        server.close()


@asynccontextmanager
async def sliced_ledgers(folder: Path) -> AsyncIterator[list[BudgetLedger]]:
    async with redis_ledgers(folder, with_slices=True) as ledgers:
        yield ledgers


@pytest.mark.parametrize(
    "make", [memory_ledgers, sqlite_ledgers, redis_ledgers, sliced_ledgers], ids=lambda make: make.__name__
)
async def test_ten_cents_and_200_concurrent_requests_without_max_tokens(make: object, tmp_path: Path) -> None:
    chance = random.Random(11)
    costs = [chance.randrange(1000, ESTIMATE + 60_000) for _ in range(REQUESTS)]
    granted: list[Granted] = []
    refused: list[tuple[float, float]] = []

    async def request(ledger: BudgetLedger, number: int) -> None:
        asked_s = monotonic()
        try:
            async with hold(ledger, f"r{number}", Caller("acme", f"k{number % 5}"), TEN_CENTS, ESTIMATE) as reservation:
                for _ in range(chance.randrange(20)):
                    await asyncio.sleep(0)
                reservation.charge(costs[number])
            granted.append(Granted(asked_s, monotonic(), costs[number]))
        except BudgetExhausted:
            refused.append((asked_s, monotonic()))

    async with make(tmp_path) as ledgers:  # type: ignore[operator]
        await asyncio.gather(*(request(ledgers[number % len(ledgers)], number) for number in range(REQUESTS)))
        assert await drain(10.0) == 0
        (balance,) = await ledgers[0].balances(TEN_CENTS)
    assert len(granted) >= LIMIT // ESTIMATE  # so many fit at once
    for asked_s, answered_s in refused:
        assert LIMIT - most_used(granted, asked_s, answered_s) < ESTIMATE
    assert balance.spent_nano_usd == sum(one.cost for one in granted)
    assert balance.spent_nano_usd <= LIMIT + sum(max(0, one.cost - ESTIMATE) for one in granted)


class Granted(NamedTuple):
    """A request that was let in: from when to when it may have held its estimate, and what it cost."""

    asked_s: float
    settled_s: float
    cost: int

    def most_used(self, at_s: float) -> int:
        """Return what it may have used at a moment; what it did not need is back within 100 ms."""
        if at_s < self.asked_s:
            return 0
        return max(ESTIMATE, self.cost) if at_s < self.settled_s + RETURN_S else self.cost


def most_used(granted: list[Granted], from_s: float, until_s: float) -> int:
    """Return the most that requests may have used at once in an interval."""
    begins = [from_s, *(one.asked_s for one in granted if from_s < one.asked_s <= until_s)]
    return max(sum(one.most_used(at_s) for one in granted) for at_s in begins)
