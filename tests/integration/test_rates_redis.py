"""Limits that replicas share: counted once, freed when a replica dies, and counted locally while the store is away."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from core.clock import ManualClock
from core.errors import RateLimited
from core.rules import Limits
from policies.ledger_redis import RedisLedger
from policies.rates import Entered, Entry, Scope
from policies.rates_redis import SLOT_LEASE_S, RedisRates
from policies.redis_wire import Wire
from tests.policy_samples import CALLER, tenant_policy
from tests.redis_server import BINARY, WHY_NOT, RedisServer, running_redis

pytestmark = [pytest.mark.redis, pytest.mark.skipif(BINARY is None, reason=WHY_NOT)]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 20, 10, 0, tzinfo=UTC))


@asynccontextmanager
async def replica(server: RedisServer, clock: ManualClock, timeout_s: float = 5.0) -> AsyncIterator[RedisRates]:
    async with Wire(server.url, timeout_s=timeout_s) as wire:
        ledger = RedisLedger(wire, clock, timeout_s=timeout_s, server_time=False)
        async with RedisRates(ledger, clock, replicas=2).running() as rates:
            yield rates


def entry(limits: Limits, outage: str = "closed") -> Entry:
    return Entry(CALLER, tenant_policy(f"on_store_outage: {outage}"), 1, (Scope("", limits),))


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_true():  # noqa: ASYNC110  the connection mends itself without telling
            await asyncio.sleep(0.01)


async def test_replicas_share_one_allowance_and_one_set_of_slots(server: RedisServer, clock: ManualClock) -> None:
    limits = Limits(requests_per_minute=20, concurrency=6)
    async with replica(server, clock) as first, replica(server, clock) as second:
        wanted = [(rates, entry(limits)) for _ in range(10) for rates in (first, second)]
        outcomes = await asyncio.gather(*(rates.enter(one) for rates, one in wanted), return_exceptions=True)
        assert sum(isinstance(outcome, Entered) for outcome in outcomes) == 6
        for (rates, one), outcome in zip(wanted, outcomes, strict=True):
            if isinstance(outcome, Entered):
                rates.leave(one, None)
        await first.drain()
        await second.drain()
        for number in range(14):
            one = entry(limits)
            rates = (first, second)[number % 2]
            await rates.enter(one)
            rates.leave(one, None)
            await rates.drain()
        with pytest.raises(RateLimited, match="20 requests per minute"):
            await first.enter(entry(limits))


async def test_slots_of_a_dead_replica_are_free_after_their_lease_and_those_of_a_living_one_are_not(
    server: RedisServer, clock: ManualClock
) -> None:
    limits = Limits(concurrency=3)
    async with replica(server, clock) as living:
        await living.enter(entry(limits))
        async with replica(server, clock) as dead:
            await dead.enter(entry(limits))
            await dead.enter(entry(limits))
        with pytest.raises(RateLimited):
            await living.enter(entry(limits))
        clock.advance(SLOT_LEASE_S - 1)
        await living.beat()
        with pytest.raises(RateLimited):
            await living.enter(entry(limits))
        clock.advance(1)
        await living.enter(entry(limits))
        await living.enter(entry(limits))
        with pytest.raises(RateLimited):
            await living.enter(entry(limits))


async def test_a_cancelled_request_leaves_no_slot_behind(server: RedisServer, clock: ManualClock) -> None:
    limits = Limits(concurrency=1)
    async with replica(server, clock) as rates:
        for turns in range(6):
            task = asyncio.create_task(rates.enter(entry(limits)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            assert isinstance(outcome, asyncio.CancelledError)
            await rates.drain()
        await rates.enter(entry(limits))


@pytest.mark.parametrize(("outage", "let_in"), [("closed", 5), ("local_share", 5), ("open", 20)])
async def test_while_the_store_is_away_each_replica_counts_against_its_share(
    server: RedisServer, clock: ManualClock, outage: str, let_in: int
) -> None:
    limits = Limits(requests_per_minute=10)
    async with replica(server, clock, timeout_s=0.3) as rates:
        await rates.enter(entry(limits))
        server.kill()
        outcomes = [
            (await asyncio.gather(rates.enter(entry(limits, outage)), return_exceptions=True))[0] for _ in range(20)
        ]
        assert sum(isinstance(outcome, Entered) for outcome in outcomes) == let_in
        assert all(isinstance(outcome, Entered | RateLimited) for outcome in outcomes)
        server.start()


async def test_a_lost_message_about_a_slot_is_mended_by_the_heartbeat(server: RedisServer, clock: ManualClock) -> None:
    limits = Limits(concurrency=1)
    async with Wire(server.url, timeout_s=0.3) as wire:
        rates = RedisRates(RedisLedger(wire, clock, server_time=False), clock)
        one = entry(limits)
        await rates.enter(one)
        server.pause()
        rates.leave(one, None)
        await rates.drain()
        server.resume()
        await until(lambda: not wire.is_shut)
        await rates.beat()
        await rates.enter(entry(limits))
