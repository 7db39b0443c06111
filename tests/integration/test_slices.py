"""Replicas that lease slices of one budget: few round trips, nothing blocked falsely, nothing lost by a crash."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from core.clock import ManualClock, SystemClock
from core.errors import BudgetExhausted, Unavailable
from core.identity import Caller
from core.rules import TenantPolicy
from policies.ledger import Balance, Cost, Hold
from policies.ledger_redis import RedisLedger
from policies.redis_wire import Wire
from policies.slices import SLICE_LEASE_S, SlicedLedger
from tests.policy_samples import CALLER, OTHER_KEY, tenant_policy
from tests.redis_server import BINARY, WHY_NOT, RedisServer, running_redis

pytestmark = [pytest.mark.redis, pytest.mark.skipif(BINARY is None, reason=WHY_NOT)]

MILLION = tenant_policy('budgets: [{window: month, limit_usd: "0.001"}]')  # 1,000,000 nano-USD


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@asynccontextmanager
async def replica(server: RedisServer, clock: ManualClock | SystemClock) -> AsyncIterator[SlicedLedger]:
    async with Wire(server.url, timeout_s=5.0) as wire:
        is_simulated = isinstance(clock, ManualClock)
        inner = RedisLedger(wire, clock, timeout_s=5.0, server_time=not is_simulated)
        async with SlicedLedger(inner, server.url, clock, patience_s=5.0).running() as ledger:
            await until(lambda: ledger.hears)
            yield ledger


@pytest.fixture
async def pair(server: RedisServer, clock: ManualClock) -> AsyncIterator[tuple[SlicedLedger, SlicedLedger]]:
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(replica(server, clock)) for _ in range(2)]
        yield first, second


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_true():  # noqa: ASYNC110  what happens in the background sets no event
            await asyncio.sleep(0.005)


async def use(ledger: SlicedLedger, ids: list[str], amount: int = 100, policy: TenantPolicy = MILLION) -> None:
    for id_ in ids:
        hold = Hold(id_, CALLER, policy, amount)
        await ledger.reserve(hold)
        await ledger.settle(hold, Cost(amount - 1))


async def warm(ledger: SlicedLedger, name: str) -> None:
    """Make the ledger lease a slice."""
    await use(ledger, [f"{name} {number}" for number in range(3)])
    await until(lambda: ledger.unused_nano_usd > 0)


async def only(ledger: SlicedLedger, policy: TenantPolicy = MILLION) -> Balance:
    (balance,) = await ledger.balances(policy)
    return balance


async def test_a_busy_replica_rarely_asks_the_store(server: RedisServer, clock: ManualClock) -> None:
    async with replica(server, clock) as ledger, Wire(server.url, timeout_s=5.0) as wire:
        await warm(ledger, "warm")
        await wire.execute_command("CONFIG", "RESETSTAT")
        for number in range(2000):
            await use(ledger, [f"r{number}"])
            await asyncio.sleep(0)
        calls = await wire.execute_command("INFO", "commandstats")
        scripts = int(calls.decode().split("cmdstat_evalsha:calls=")[1].split(",")[0])
        assert scripts < 100
        assert (await only(ledger)).spent_nano_usd == 2003 * 99


async def test_what_a_replica_holds_unused_is_free_for_another(
    pair: tuple[SlicedLedger, SlicedLedger], clock: ManualClock
) -> None:
    first, second = pair
    await warm(first, "warm")
    assert first.unused_nano_usd > 0
    standing = await second.standing(CALLER, MILLION)
    assert standing.free_nano_usd is not None
    assert standing.free_nano_usd >= 1_000_000 - 300
    await second.reserve(Hold("all", CALLER, MILLION, 1_000_000 - 3 * 99))
    assert first.unused_nano_usd == 0
    assert (await only(second)).free_nano_usd == 0
    with pytest.raises(BudgetExhausted):
        await first.reserve(Hold("one more", CALLER, MILLION, 1))


async def test_what_it_holds_for_another_purse_is_free_for_the_replica_itself(
    server: RedisServer, clock: ManualClock
) -> None:
    per_key = tenant_policy(
        'budgets: [{window: day, limit_usd: "0.001"}, {window: day, limit_usd: "0.0009", per: key}]'
    )
    async with replica(server, clock) as ledger:
        await use(ledger, ["r1", "r2", "r3"], policy=per_key)
        await until(lambda: ledger.unused_nano_usd > 0)
        spent = 3 * 99
        await ledger.reserve(Hold("other", OTHER_KEY, per_key, 900_000))
        await ledger.reserve(Hold("rest", CALLER, per_key, 100_000 - spent))
        assert (await ledger.balances(per_key))[0].free_nano_usd == 0


async def test_a_request_in_flight_stays_held_when_its_slice_is_recalled(
    pair: tuple[SlicedLedger, SlicedLedger],
) -> None:
    first, second = pair
    await warm(first, "warm")
    flying = Hold("flying", CALLER, MILLION, 500)
    await first.reserve(flying)
    with pytest.raises(BudgetExhausted):
        await second.reserve(Hold("too much", CALLER, MILLION, 1_000_000 - 3 * 99 - 499))
    await second.reserve(Hold("all", CALLER, MILLION, 1_000_000 - 3 * 99 - 500))
    await first.settle(flying, Cost(120))
    balance = await only(first)
    assert (balance.free_nano_usd, balance.spent_nano_usd) == (380, 3 * 99 + 120)
    await second.reserve(Hold("rest", CALLER, MILLION, 380))


async def test_near_the_limit_no_slice_is_leased_and_every_nano_can_be_spent(
    pair: tuple[SlicedLedger, SlicedLedger],
) -> None:
    small = tenant_policy('budgets: [{window: month, limit_usd: "0.000003"}]')  # 30 requests of 100
    grants = 0
    for number in range(40):
        try:
            await pair[number % 2].reserve(Hold(f"r{number}", CALLER, small, 100))
            grants += 1
        except BudgetExhausted:
            assert number >= 30
    assert grants == 30
    assert [one.slices for one in pair] == [0, 0]


async def test_idle_slices_come_back(server: RedisServer, clock: ManualClock) -> None:
    async with replica(server, clock) as ledger:
        await warm(ledger, "warm")
        clock.advance(5.0)
        await until(lambda: ledger.slices == 0)
        balance = await only(ledger)
        assert (balance.reserved_nano_usd, balance.leased_nano_usd, balance.spent_nano_usd) == (0, 0, 297)


async def test_the_slices_of_a_dead_replica_are_charged_when_their_lease_ends(
    server: RedisServer, clock: ManualClock
) -> None:
    async with replica(server, clock) as survivor, Wire(server.url, timeout_s=5.0) as wire:
        inner = RedisLedger(wire, clock, timeout_s=5.0, server_time=False)
        victim = SlicedLedger(inner, server.url, clock)
        running = victim.running()
        await running.__aenter__()
        await until(lambda: victim.hears)
        await warm(victim, "warm")
        await victim.reserve(Hold("flying", CALLER, MILLION, 500))
        left = victim.unused_nano_usd + 500
        await wire.aclose()  # from here on nothing that it says arrives
        clock.advance(SLICE_LEASE_S)
        assert await survivor.reap() == 1
        balance = await only(survivor)
        assert (balance.reserved_nano_usd, balance.leased_nano_usd) == (0, 0)
        assert balance.unconfirmed_nano_usd == left
        assert balance.spent_nano_usd == 3 * 99 + left
        await running.__aexit__(None, None, None)


async def test_a_replica_that_was_cut_off_corrects_what_was_charged_for_its_slices(
    server: RedisServer, clock: ManualClock
) -> None:
    late = ManualClock()
    late.advance(SLICE_LEASE_S)
    async with replica(server, clock) as ledger, Wire(server.url, timeout_s=5.0) as wire:
        await warm(ledger, "warm")
        flying = Hold("flying", CALLER, MILLION, 500)
        await ledger.reserve(flying)
        left = ledger.unused_nano_usd + 500
        reaper = RedisLedger(wire, late, timeout_s=5.0, server_time=False)
        assert await reaper.reap() == 1
        (charged,) = await reaper.balances(MILLION)
        assert charged.unconfirmed_nano_usd == left
        await ledger.settle(flying, Cost(450))
        await ledger.give_back()
        balance = await only(ledger)
        assert (balance.reserved_nano_usd, balance.leased_nano_usd) == (0, 0)
        assert (balance.spent_nano_usd, balance.unconfirmed_nano_usd) == (3 * 99 + 450, 0)


async def test_a_replica_that_cannot_hear_recalls_uses_no_slices(server: RedisServer, clock: ManualClock) -> None:
    async with replica(server, clock) as ledger, Wire(server.url, timeout_s=5.0) as wire:
        await warm(ledger, "warm")
        await wire.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: ledger.unused_nano_usd == 0)
        await use(ledger, ["r1"])
        assert (await only(ledger)).spent_nano_usd == 4 * 99


async def test_while_the_store_is_away_a_slice_serves_until_its_lease_ends(
    server: RedisServer, clock: ManualClock
) -> None:
    async with Wire(server.url, timeout_s=0.3) as wire:
        inner = RedisLedger(wire, clock, server_time=False)
        async with SlicedLedger(inner, server.url, clock, timeout_s=60.0).running() as ledger:
            await until(lambda: ledger.hears)
            await warm(ledger, "warm")
            server.pause()
            await use(ledger, ["r1"])
            clock.advance(SLICE_LEASE_S)
            with pytest.raises(Unavailable):
                await ledger.reserve(Hold("r2", CALLER, MILLION, 100))
            assert ledger.state == "away"
            server.resume()
            await until(lambda: not wire.is_shut and not ledger.waiting_settlements)
            balance = await only(ledger)
            assert balance.spent_nano_usd - balance.unconfirmed_nano_usd == 4 * 99


async def test_of_many_at_once_on_two_replicas_exactly_those_that_fit_are_granted(
    pair: tuple[SlicedLedger, SlicedLedger],
) -> None:
    limit, amount = 1_000_000, 997

    async def is_granted(number: int) -> bool:
        hold = Hold(f"r{number}", Caller("acme", f"k{number % 3}"), MILLION, amount)
        try:
            await pair[number % 2].reserve(hold)
        except BudgetExhausted:
            return False
        return True

    grants = []
    for start in range(0, 1200, 50):
        grants += await asyncio.gather(*(is_granted(number) for number in range(start, start + 50)))
    assert sum(grants) == limit // amount
    balance = await only(pair[0])
    assert balance.free_nano_usd == limit % amount


async def test_a_hold_that_is_never_settled_is_charged_in_full_by_its_own_replica(
    server: RedisServer, clock: ManualClock
) -> None:
    async with replica(server, clock) as ledger:
        await warm(ledger, "warm")
        hold = Hold("stuck", CALLER, MILLION, 500, lease_s=2.0)
        await ledger.reserve(hold)
        clock.advance(2.0)
        assert await ledger.reap() == 1
        balance = await only(ledger)
        assert (balance.spent_nano_usd, balance.unconfirmed_nano_usd) == (3 * 99 + 500, 500)
        await ledger.settle(hold, Cost(20))
        balance = await only(ledger)
        assert (balance.spent_nano_usd, balance.unconfirmed_nano_usd) == (3 * 99 + 20, 0)
