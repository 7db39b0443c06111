"""The chaos run in seconds instead of minutes, and the tenant with ten cents that the field's gateways block."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from benchmarks.chaos_ledger import chaos, verdict
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
    held = spent = excess = most_excess = 0
    refused: list[tuple[int, int]] = []

    async def request(ledger: BudgetLedger, number: int) -> None:
        nonlocal held, spent, excess, most_excess
        before = LIMIT - held - spent
        try:
            async with hold(ledger, f"r{number}", Caller("acme", f"k{number % 5}"), TEN_CENTS, ESTIMATE) as reservation:
                held += ESTIMATE
                excess += max(0, costs[number] - ESTIMATE)
                most_excess = max(most_excess, excess)
                for _ in range(chance.randrange(20)):
                    await asyncio.sleep(0)
                reservation.charge(costs[number])
                spent += costs[number]
            held -= ESTIMATE
            excess -= max(0, costs[number] - ESTIMATE)
        except BudgetExhausted:
            refused.append((before, LIMIT - held - spent))

    async with make(tmp_path) as ledgers:  # type: ignore[operator]
        await asyncio.gather(*(request(ledgers[number % len(ledgers)], number) for number in range(REQUESTS)))
        assert await drain(10.0) == 0
        (balance,) = await ledgers[0].balances(TEN_CENTS)
    # 166 estimates fit at once. Whoever was refused found less than an estimate free before it asked or after.
    assert all(min(before, after) < ESTIMATE for before, after in refused)
    assert REQUESTS - len(refused) >= LIMIT // ESTIMATE
    assert balance.spent_nano_usd == spent
    assert spent <= LIMIT + most_excess
