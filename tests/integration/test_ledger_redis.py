"""The ledger on a real Redis that dies, hangs and comes back, and requests that are cancelled while it answers."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from core.clock import ManualClock, SystemClock
from core.errors import BudgetExhausted, Unavailable
from core.identity import Caller
from core.rules import TenantPolicy
from policies.ledger import LEASE_S, BudgetLedger, Cost, Hold
from policies.ledger_redis import RedisLedger
from policies.redis_scripts import PAUSE_S, connect
from policies.redis_store import TENANTS
from policies.redis_wire import Wire
from policies.reservation import drain, hold
from policies.slices import SlicedLedger
from tests.policy_samples import CALLER, tenant_policy
from tests.redis_server import BINARY, WHY_NOT, RedisServer, running_redis

pytestmark = [pytest.mark.redis, pytest.mark.skipif(BINARY is None, reason=WHY_NOT)]


def policy(outage: str = "closed", tenant: str = "acme", usd: str = "0.000001") -> TenantPolicy:
    return tenant_policy(f'budgets: [{{window: month, limit_usd: "{usd}"}}]\non_store_outage: {outage}', tenant)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[Redis]:
    async with connect(server.url, timeout_s=2.0) as client:
        yield client


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 20, 10, 0, tzinfo=UTC))


@pytest.fixture
def ledger(client: Redis, clock: ManualClock) -> RedisLedger:
    return RedisLedger(client, clock, timeout_s=2.0, replicas=4, server_time=False)


async def sums(ledger: RedisLedger) -> tuple[int, int]:
    (balance,) = await ledger.balances(policy())
    return balance.reserved_nano_usd, balance.spent_nano_usd


async def test_the_servers_clock_counts_and_not_the_clients(client: Redis) -> None:
    fast = ManualClock(datetime.now(UTC))
    fast.advance(LEASE_S * 2)
    theirs, ours = RedisLedger(client, fast, timeout_s=2.0), RedisLedger(client, SystemClock(), timeout_s=2.0)
    await ours.reserve(Hold("r1", CALLER, policy(), 100))
    assert await theirs.reap() == 0
    await theirs.reserve(Hold("r2", CALLER, policy(), 100))
    assert await sums(ours) == (200, 0)


async def test_two_replicas_share_one_budget(client: Redis, clock: ManualClock, ledger: RedisLedger) -> None:
    other = RedisLedger(client, clock, timeout_s=2.0, server_time=False)
    await ledger.reserve(Hold("r1", CALLER, policy(), 600))
    with pytest.raises(BudgetExhausted):
        await other.reserve(Hold("r2", CALLER, policy(), 500))
    clock.advance(LEASE_S)
    assert await other.reap() == 1
    assert await sums(ledger) == (0, 600)


async def test_a_killed_and_restarted_server_keeps_holds_and_charges(
    server: RedisServer, ledger: RedisLedger, clock: ManualClock
) -> None:
    await ledger.reserve(Hold("r1", CALLER, policy(), 300))
    await ledger.settle(Hold("r1", CALLER, policy(), 300), Cost(120))
    await ledger.reserve(Hold("r2", CALLER, policy(), 400))
    server.kill()
    server.start()
    assert await sums(ledger) == (400, 120)
    await ledger.settle(Hold("r2", CALLER, policy(), 400), Cost(10))
    assert await sums(ledger) == (0, 130)


async def test_closed_refuses_while_the_store_is_away_and_the_books_balance_after(
    server: RedisServer, ledger: RedisLedger, clock: ManualClock
) -> None:
    await ledger.reserve(Hold("r1", CALLER, policy(), 300))
    seen = await ledger.standing(CALLER, policy())
    server.kill()
    with pytest.raises(Unavailable):
        await ledger.reserve(Hold("r2", CALLER, policy(), 100))
    assert ledger.is_away
    await ledger.settle(Hold("r1", CALLER, policy(), 300), Cost(250))
    assert await ledger.standing(CALLER, policy()) == seen
    assert await ledger.reap() == 0
    assert ledger.waiting_settlements == 2
    server.start()
    clock.advance(PAUSE_S)
    await ledger.reap()
    assert ledger.waiting_settlements == 0
    assert await sums(ledger) == (0, 250)


async def test_open_goes_on_without_holds_and_books_every_cost_after(
    server: RedisServer, ledger: RedisLedger, clock: ManualClock
) -> None:
    server.kill()
    for number in range(3):
        async with hold(ledger, f"r{number}", CALLER, policy("open"), 900) as reservation:
            reservation.charge(800)
    server.start()
    clock.advance(PAUSE_S)
    await ledger.reap()
    assert await sums(ledger) == (0, 2400)


async def test_a_local_share_is_what_was_free_over_the_replicas(
    server: RedisServer, ledger: RedisLedger, clock: ManualClock
) -> None:
    shared = policy("local_share")
    await ledger.reserve(Hold("r0", CALLER, shared, 200))
    await ledger.standing(CALLER, shared)  # 800 free, so 200 for each of four replicas
    server.kill()
    await ledger.reserve(Hold("r1", CALLER, shared, 150))
    with pytest.raises(BudgetExhausted, match="This replica's share"):
        await ledger.reserve(Hold("r2", CALLER, shared, 51))
    await ledger.settle(Hold("r1", CALLER, shared, 150), Cost(20))
    await ledger.reserve(Hold("r3", CALLER, shared, 180))
    with pytest.raises(Unavailable, match="knows no share"):
        await ledger.reserve(Hold("r4", Caller("acme", "never seen"), shared, 1))
    await ledger.settle(Hold("r3", CALLER, shared, 180), Cost(180))
    server.start()
    clock.advance(PAUSE_S)
    await ledger.reap()
    assert await sums(ledger) == (200, 200)


async def test_a_grant_whose_answer_was_lost_is_given_back(
    server: RedisServer, client: Redis, clock: ManualClock
) -> None:
    hasty = RedisLedger(client, clock, timeout_s=0.5, server_time=False)
    await hasty.reap()
    await hasty.reserve(Hold("r1", CALLER, policy(), 100))
    server.pause()
    with pytest.raises(Unavailable):
        await hasty.reserve(Hold("r2", CALLER, policy(), 500))
    server.resume()
    clock.advance(PAUSE_S)
    patient = RedisLedger(client, clock, timeout_s=5.0, server_time=False)
    assert hasty.waiting_settlements == 1
    for _ in range(100):
        await hasty.reap()
        clock.advance(PAUSE_S)
        if not hasty.waiting_settlements:
            break
    assert (await patient.balances(policy()))[0].reserved_nano_usd == 100


async def test_cancelled_calls_never_leave_their_answer_to_another_caller(client: Redis) -> None:
    ledger = RedisLedger(client, SystemClock(), timeout_s=2.0)
    tenants = [policy(tenant=f"t{n}", usd=f"0.00000{n}") for n in range(1, 9)]
    chance = random.Random(7)

    async def ask(rules: TenantPolicy) -> None:
        standing = await ledger.standing(Caller(rules.tenant, "k1"), rules)
        assert standing.free_nano_usd == rules.budgets[0].limit_nano_usd

    for _ in range(60):
        tasks = [asyncio.create_task(ask(chance.choice(tenants))) for _ in range(20)]
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        for task in chance.sample(tasks, 10):
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError)
    assert not ledger.is_away


async def test_idle_state_of_a_tenant_is_dropped_after_its_windows_are_long_over(
    client: Redis, clock: ManualClock, ledger: RedisLedger
) -> None:
    await ledger.reserve(Hold("r1", CALLER, policy(), 300))
    await ledger.settle(Hold("r1", CALLER, policy(), 300), Cost(10))
    await ledger.reserve(Hold("r2", CALLER, policy(), 300))
    for _ in range(3):
        clock.advance(30 * 86_400)
        await ledger.reap()
    keys = [key async for key in client.scan_iter("headgate:*")]
    assert keys == [TENANTS.encode()]


async def run_through_an_outage(
    server: RedisServer, ledger: BudgetLedger, rules: TenantPolicy, back: Callable[[], bool]
) -> tuple[int, int, int]:
    """Load the ledger while its store hangs, dies and comes back; return requests run, refused, and what they cost."""
    ran, refused, cost, numbers = 0, 0, 0, itertools.count()
    is_over = asyncio.Event()

    async def app() -> None:
        nonlocal ran, refused, cost
        while not is_over.is_set():
            number = next(numbers)
            try:
                await ledger.standing(CALLER, rules)
                async with hold(ledger, f"r{number}", CALLER, rules, 50) as reservation:
                    await asyncio.sleep(0)
                    reservation.charge(number % 50)
                    ran, cost = ran + 1, cost + number % 50
            except (Unavailable, BudgetExhausted):
                refused += 1
                await asyncio.sleep(0.001)

    apps = [asyncio.create_task(app()) for _ in range(20)]
    await asyncio.sleep(0.1)
    server.pause()
    await asyncio.sleep(0.3)
    server.resume()
    await until(back)
    await asyncio.sleep(0.1)
    server.kill()
    await asyncio.sleep(0.1)
    server.start()
    await until(back)
    await asyncio.sleep(0.1)
    is_over.set()
    await asyncio.gather(*apps)
    assert await drain(10.0) == 0
    return ran, refused, cost


@pytest.mark.parametrize("outage", ["closed", "open", "local_share"])
@pytest.mark.parametrize("with_slices", [False, True], ids=["plain", "slices"])
async def test_the_books_balance_after_the_store_hung_and_died_under_load(
    server: RedisServer, outage: str, with_slices: bool
) -> None:
    rules = policy(outage, usd="1")
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(Wire(server.url, timeout_s=0.2))
        inner = RedisLedger(wire, SystemClock(), replicas=4)
        ledger: RedisLedger | SlicedLedger = inner
        if with_slices:
            ledger = await stack.enter_async_context(SlicedLedger(inner, server.url, SystemClock()).running())
        ran, refused, cost = await run_through_an_outage(server, ledger, rules, lambda: not ledger.is_away)
        if isinstance(ledger, SlicedLedger):
            await ledger.give_back()
        await ledger.reap()
        assert ledger.waiting_settlements == 0
        (balance,) = await ledger.balances(rules)
        assert (balance.reserved_nano_usd, balance.spent_nano_usd) == (0, cost)
        assert ran > 100
        assert outage != "open" or not refused


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_true():  # noqa: ASYNC110  the connection mends itself without telling
            await asyncio.sleep(0.01)
