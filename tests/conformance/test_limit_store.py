"""What every store of rate and concurrency limits promises: truthful waits, exact counts, all limits or none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from core.clock import ManualClock
from core.errors import RateLimited
from core.identity import Caller
from core.rules import Limits, TenantPolicy
from policies.ledger_memory import MemoryLedger
from policies.ledger_redis import RedisLedger
from policies.rates import Entered, Entry, LimitStore, Scope, limit_headers
from policies.rates_memory import MemoryRates
from policies.rates_redis import RedisRates
from policies.redis_wire import Wire
from tests.policy_samples import CALLER, OTHER_KEY, tenant_policy
from tests.redis_server import BINARY, WHY_NOT, running_redis


@asynccontextmanager
async def memory_rates(clock: ManualClock) -> AsyncIterator[LimitStore]:
    yield MemoryRates(MemoryLedger(clock), clock)


@asynccontextmanager
async def redis_rates(clock: ManualClock) -> AsyncIterator[LimitStore]:
    if BINARY is None:
        pytest.skip(WHY_NOT)
    with running_redis() as server:
        async with Wire(server.url, timeout_s=10.0) as wire:
            ledger = RedisLedger(wire, clock, timeout_s=10.0, server_time=False)
            async with RedisRates(ledger, clock).running() as rates:
                yield rates


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 20, 10, 0, tzinfo=UTC))


@pytest.fixture(params=[memory_rates, redis_rates], ids=lambda make: make.__name__)
async def store(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[LimitStore]:
    async with request.param(clock) as made:
        yield made


def entry(
    limits: Limits, tokens: int = 1, caller: Caller = CALLER, key_limits: Limits | None = None, tenant: str = "acme"
) -> Entry:
    scopes = (Scope("", limits),) if key_limits is None else (Scope("", limits), Scope(caller.key_id, key_limits))
    return Entry(caller, tenant_policy("", tenant), tokens, scopes)


async def pass_through(store: LimitStore, wanted: Entry, used_tokens: int | None = None) -> Entered:
    entered = await store.enter(wanted)
    await leave(store, wanted, used_tokens)
    return entered


async def leave(store: LimitStore, wanted: Entry, used_tokens: int | None = None) -> None:
    store.leave(wanted, used_tokens)
    if isinstance(store, RedisRates):
        await store.drain()


async def test_a_minutes_allowance_passes_at_once_and_not_one_more(store: LimitStore) -> None:
    limits = Limits(requests_per_minute=60)
    for _ in range(60):
        await pass_through(store, entry(limits))
    with pytest.raises(RateLimited) as refusal:
        await store.enter(entry(limits))
    assert refusal.value.retry_after_s == pytest.approx(1.0)
    headers = refusal.value.headers()
    assert headers["retry-after"] == "1"
    assert headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"] == "1m0s"


async def test_waiting_as_told_is_enough_and_a_little_less_is_not(store: LimitStore, clock: ManualClock) -> None:
    limits = Limits(tokens_per_minute=700)
    await pass_through(store, entry(limits, 650))
    with pytest.raises(RateLimited) as refusal:
        await store.enter(entry(limits, 100))
    clock.advance(refusal.value.retry_after_s - 0.002)
    with pytest.raises(RateLimited):
        await store.enter(entry(limits, 100))
    clock.advance(0.003)  # a shared store counts whole milliseconds
    await pass_through(store, entry(limits, 100))


async def test_a_refusal_by_one_limit_takes_nothing_from_the_others(store: LimitStore) -> None:
    limits = Limits(requests_per_minute=10, tokens_per_minute=100, concurrency=2)
    await pass_through(store, entry(limits, 100))
    for _ in range(3):
        with pytest.raises(RateLimited, match="100 tokens per minute"):
            await store.enter(entry(limits, 1))
    entered = await pass_through(store, entry(Limits(requests_per_minute=10), 1))
    assert limit_headers(entered.levels)["x-ratelimit-remaining-requests"] == "8"


async def test_a_request_larger_than_the_allowance_passes_when_it_is_whole_and_leaves_a_debt(
    store: LimitStore, clock: ManualClock
) -> None:
    limits = Limits(tokens_per_minute=100)
    await pass_through(store, entry(limits, 300))
    with pytest.raises(RateLimited) as refusal:
        await store.enter(entry(limits, 1))
    assert refusal.value.retry_after_s == pytest.approx(120.6)
    clock.advance(180)
    await pass_through(store, entry(limits, 300))


@pytest.mark.parametrize(("used", "fits"), [(100, 900), (800, 200), (1500, 0), (None, 400), (0, 1000)])
async def test_tokens_are_corrected_to_what_was_used(store: LimitStore, used: int | None, fits: int) -> None:
    limits = Limits(tokens_per_minute=1000)
    await pass_through(store, entry(limits, 600), used)
    if fits:
        await pass_through(store, entry(limits, fits))
    with pytest.raises(RateLimited):
        await store.enter(entry(limits, 10))


async def test_slots_are_counted_per_tenant_and_per_key(store: LimitStore) -> None:
    tenant, key = Limits(concurrency=3), Limits(concurrency=2)
    first, second, third = (entry(tenant, caller=caller, key_limits=key) for caller in (CALLER, CALLER, OTHER_KEY))
    await store.enter(first)
    await store.enter(second)
    with pytest.raises(RateLimited, match="All 2 concurrent requests of this key"):
        await store.enter(entry(tenant, caller=CALLER, key_limits=key))
    await store.enter(third)
    with pytest.raises(RateLimited, match="All 3 concurrent requests of this tenant"):
        await store.enter(entry(tenant, caller=OTHER_KEY, key_limits=key))
    await leave(store, first)
    await store.enter(entry(tenant, caller=OTHER_KEY, key_limits=key))


async def test_of_many_at_once_as_many_enter_as_there_are_slots(store: LimitStore) -> None:
    limits = Limits(concurrency=7)
    outcomes = await asyncio.gather(*(store.enter(entry(limits)) for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(outcome, Entered) for outcome in outcomes) == 7


async def test_tenants_do_not_share_limits(store: LimitStore) -> None:
    limits = Limits(requests_per_minute=1)
    for tenant in ("acme", "globex"):
        await pass_through(store, entry(limits, caller=Caller(tenant, "k1"), tenant=tenant))
    with pytest.raises(RateLimited):
        await store.enter(entry(limits))


async def test_the_standing_comes_along(store: LimitStore, clock: ManualClock) -> None:
    policy: TenantPolicy = tenant_policy('budgets: [{window: day, limit_usd: "0.000001"}]')
    for scopes in ((), (Scope("", Limits(concurrency=5, requests_per_minute=100)),)):
        wanted = Entry(CALLER, policy, 1, scopes)
        entered = await store.enter(wanted)
        assert entered.standing.free_nano_usd == 1000
        assert entered.standing.resets_at == datetime(2026, 11, 21, tzinfo=UTC)
