"""What every budget ledger promises, one suite over all of them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from core.clock import ManualClock
from core.errors import BudgetExhausted, InvalidRequest
from core.identity import Caller
from core.plan import Standing
from core.rules import TenantPolicy
from policies.budgets import Account
from policies.ledger import LEASE_S, NOTHING, Alert, Balance, BudgetLedger, Cost, Hold, Treasury
from policies.ledger_memory import MemoryLedger
from policies.ledger_redis import RedisLedger
from policies.ledger_sqlite import SqliteLedger
from policies.redis_scripts import connect
from policies.redis_wire import Wire
from policies.slices import SlicedLedger
from tests.policy_samples import CALLER, OTHER_KEY, budget_policy, tenant_policy
from tests.redis_server import BINARY, WHY_NOT, running_redis

THOUSAND = "0.000001"  # USD: 1000 nano-USD
MONTH = budget_policy(THOUSAND)
LARGE = frozenset({"large"})


@asynccontextmanager
async def memory_ledger(clock: ManualClock, folder: Path, **more: Any) -> AsyncIterator[BudgetLedger]:
    yield MemoryLedger(clock, **more)


@asynccontextmanager
async def sqlite_ledger(clock: ManualClock, folder: Path, **more: Any) -> AsyncIterator[BudgetLedger]:
    ledger = SqliteLedger(folder / "ledger.db", clock, **more)
    try:
        yield ledger
    finally:
        ledger.close()


@asynccontextmanager
async def durable_sqlite_ledger(clock: ManualClock, folder: Path, **more: Any) -> AsyncIterator[BudgetLedger]:
    ledger = SqliteLedger(folder / "ledger.db", clock, durable_holds=True, **more)
    try:
        yield ledger
    finally:
        ledger.close()


@asynccontextmanager
async def redis_ledger(clock: ManualClock, folder: Path, **more: Any) -> AsyncIterator[BudgetLedger]:
    if BINARY is None:
        pytest.skip(WHY_NOT)
    with running_redis() as server:
        async with connect(server.url, timeout_s=10.0) as client:
            yield RedisLedger(client, clock, timeout_s=10.0, server_time=False, **more)


@asynccontextmanager
async def wired_redis_ledger(clock: ManualClock, folder: Path, **more: Any) -> AsyncIterator[BudgetLedger]:
    if BINARY is None:
        pytest.skip(WHY_NOT)
    with running_redis() as server:
        async with Wire(server.url, timeout_s=10.0) as wire:
            yield RedisLedger(wire, clock, timeout_s=10.0, server_time=False, **more)


@asynccontextmanager
async def sliced_ledger(clock: ManualClock, folder: Path, **more: Any) -> AsyncIterator[BudgetLedger]:
    if BINARY is None:
        pytest.skip(WHY_NOT)
    with running_redis() as server:
        async with Wire(server.url, timeout_s=10.0) as wire:
            inner = RedisLedger(wire, clock, timeout_s=10.0, server_time=False, **more)
            async with SlicedLedger(inner, server.url, clock).running() as ledger:
                yield ledger


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 20, 10, 0, tzinfo=UTC))


@pytest.fixture(
    params=[memory_ledger, sqlite_ledger, durable_sqlite_ledger, redis_ledger, wired_redis_ledger, sliced_ledger],
    ids=lambda make: make.__name__,
)
async def ledger(
    request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path, alerts: list[Alert]
) -> AsyncIterator[BudgetLedger]:
    async with request.param(clock, tmp_path, on_alert=alerts.append, max_users=3) as made:
        yield made


@pytest.fixture
def treasury(ledger: BudgetLedger) -> Treasury:
    return cast(Treasury, ledger)


@pytest.fixture
def alerts() -> list[Alert]:
    return []


def held(
    id_: str,
    amount: int,
    policy: TenantPolicy = MONTH,
    caller: Caller = CALLER,
    tiers: frozenset[str] = frozenset(),
) -> Hold:
    return Hold(id_, caller, policy, amount, tiers)


async def only(ledger: BudgetLedger, policy: TenantPolicy = MONTH) -> Balance:
    (balance,) = await ledger.balances(policy)
    return balance


async def sums(ledger: BudgetLedger, policy: TenantPolicy = MONTH) -> tuple[int, int, int]:
    """Return free, reserved and spent of the only budget, having checked that they make up its limit."""
    balance = await only(ledger, policy)
    reserved, spent = balance.reserved_nano_usd, balance.spent_nano_usd
    assert balance.free_nano_usd + reserved + spent == balance.budget.limit_nano_usd
    return balance.free_nano_usd, reserved, spent


async def test_money_moves_from_free_to_reserved_to_spent_and_none_is_lost(ledger: BudgetLedger) -> None:
    assert await sums(ledger) == (1000, 0, 0)
    await ledger.reserve(held("r1", 600))
    assert await sums(ledger) == (400, 600, 0)
    await ledger.settle(held("r1", 600), Cost(250))
    assert await sums(ledger) == (750, 0, 250)


async def test_reserving_twice_holds_once(ledger: BudgetLedger) -> None:
    await ledger.reserve(held("r1", 600))
    await ledger.reserve(held("r1", 600))
    assert await sums(ledger) == (400, 600, 0)


async def test_settling_twice_charges_once(ledger: BudgetLedger) -> None:
    await ledger.reserve(held("r1", 600))
    for cost in (Cost(250), Cost(250), NOTHING, Cost(999)):
        await ledger.settle(held("r1", 600), cost)
    assert await sums(ledger) == (750, 0, 250)


async def test_a_release_is_final_and_a_settled_id_is_not_held_again(ledger: BudgetLedger) -> None:
    await ledger.reserve(held("r1", 600))
    await ledger.settle(held("r1", 600), NOTHING)
    await ledger.settle(held("r1", 600), Cost(600))
    await ledger.reserve(held("r1", 600))
    assert await sums(ledger) == (1000, 0, 0)


async def test_all_that_is_free_can_be_held_and_not_one_nano_more(ledger: BudgetLedger) -> None:
    await ledger.reserve(held("r1", 999))
    with pytest.raises(BudgetExhausted) as refusal:
        await ledger.reserve(held("r2", 2))
    await ledger.reserve(held("r3", 1))
    assert await sums(ledger) == (0, 1000, 0)
    assert refusal.value.headers() == {
        "x-should-retry": "false",
        "x-headgate-budget-reset": "2026-12-01T00:00:00+00:00",
    }
    assert "has 0.000000001 USD left" in refusal.value.message


async def test_a_refused_id_may_be_asked_again(ledger: BudgetLedger) -> None:
    await ledger.reserve(held("r1", 900))
    with pytest.raises(BudgetExhausted):
        await ledger.reserve(held("r2", 200))
    await ledger.settle(held("r1", 900), NOTHING)
    await ledger.reserve(held("r2", 200))
    assert await sums(ledger) == (800, 200, 0)


async def test_a_cost_above_the_hold_is_charged_in_full_and_stops_the_next(ledger: BudgetLedger) -> None:
    await ledger.reserve(held("r1", 600))
    await ledger.settle(held("r1", 600), Cost(1700))
    assert await sums(ledger) == (-700, 0, 1700)
    with pytest.raises(BudgetExhausted, match="has 0 USD left"):
        await ledger.reserve(held("r2", 1))


async def test_what_costs_nothing_is_never_refused(ledger: BudgetLedger) -> None:
    await ledger.settle(held("r1", 0), Cost(1700))
    await ledger.reserve(held("r2", 0))
    await ledger.settle(held("r2", 0), NOTHING)
    assert await sums(ledger) == (-700, 0, 1700)


async def test_a_hold_takes_from_all_windows_or_from_none(ledger: BudgetLedger) -> None:
    policy = tenant_policy('budgets: [{window: day, limit_usd: "0.0000005"}, {window: month, limit_usd: "0.000001"}]')
    await ledger.reserve(held("r1", 400, policy))
    with pytest.raises(BudgetExhausted) as refusal:
        await ledger.reserve(held("r2", 200, policy))
    assert refusal.value.resets_at == datetime(2026, 11, 21, tzinfo=UTC)
    assert [b.reserved_nano_usd for b in await ledger.balances(policy)] == [400, 400]
    await ledger.settle(held("r1", 400, policy), Cost(300))
    assert [b.spent_nano_usd for b in await ledger.balances(policy)] == [300, 300]


async def test_the_refusal_names_the_window_that_ends_last(ledger: BudgetLedger) -> None:
    policy = tenant_policy('budgets: [{window: day, limit_usd: "0.0000005"}, {window: month, limit_usd: "0.0000006"}]')
    with pytest.raises(BudgetExhausted, match="The month budget") as refusal:
        await ledger.reserve(held("r1", 700, policy))
    assert refusal.value.resets_at == datetime(2026, 12, 1, tzinfo=UTC)


async def test_two_limits_on_one_window_count_the_same_money_once(ledger: BudgetLedger) -> None:
    policy = tenant_policy(
        'budgets: [{window: day, limit_usd: "0.0000005", when_exhausted: small_only}, '
        '{window: day, limit_usd: "0.000001"}]'
    )
    await ledger.reserve(held("r1", 500, policy))
    await ledger.settle(held("r1", 500, policy), Cost(500))
    assert [b.free_nano_usd for b in await ledger.balances(policy)] == [0, 500]
    assert (await ledger.standing(CALLER, policy)).when_exhausted == "small_only"


async def test_each_key_has_its_own_budget_and_the_tenant_one_for_all(ledger: BudgetLedger) -> None:
    policy = tenant_policy(
        'budgets: [{window: day, limit_usd: "0.0000003", per: key}, {window: day, limit_usd: "0.0000005"}]'
    )
    await ledger.reserve(held("r1", 300, policy))
    with pytest.raises(BudgetExhausted):
        await ledger.reserve(held("r2", 1, policy))
    with pytest.raises(BudgetExhausted):
        await ledger.reserve(held("r3", 201, policy, OTHER_KEY))
    await ledger.reserve(held("r4", 200, policy, OTHER_KEY))
    balances = {(b.account.key_id, b.free_nano_usd) for b in await ledger.balances(policy)}
    assert balances == {("k1", 0), ("k2", 100), ("", 0)}
    assert (await ledger.standing(OTHER_KEY, policy)).free_nano_usd == 0


async def test_a_budget_of_a_tier_counts_that_tier_alone(ledger: BudgetLedger) -> None:
    policy = budget_policy("0.0000003", "day", ", tier: large")
    await ledger.reserve(held("r1", 1000, policy, tiers=frozenset({"small"})))
    with pytest.raises(BudgetExhausted):
        await ledger.reserve(held("r2", 301, policy, tiers=LARGE))
    both = held("r3", 300, policy, tiers=frozenset({"small", "large"}))
    await ledger.reserve(both)
    await ledger.settle(both, Cost(250, {"small": 50, "large": 200}))
    await ledger.settle(held("r1", 1000, policy, tiers=frozenset({"small"})), Cost(1000))
    assert await sums(ledger, policy) == (100, 0, 200)
    assert await ledger.standing(CALLER, policy) == Standing(free_by_tier={"large": 100})


async def test_a_lease_that_runs_out_is_charged_in_full_and_flagged(ledger: BudgetLedger, clock: ManualClock) -> None:
    await ledger.reserve(held("r1", 600))
    clock.advance(LEASE_S - 1)
    assert await ledger.reap() == 0
    clock.advance(1)
    assert await ledger.reap() == 1
    assert await ledger.reap() == 0
    assert await sums(ledger) == (400, 0, 600)
    assert (await only(ledger)).unconfirmed_nano_usd == 600


async def test_a_settlement_after_the_lease_replaces_the_charge(ledger: BudgetLedger, clock: ManualClock) -> None:
    await ledger.reserve(held("r1", 600))
    clock.advance(LEASE_S)
    await ledger.reap()
    await ledger.settle(held("r1", 600), Cost(50))
    await ledger.settle(held("r1", 600), Cost(50))
    assert await sums(ledger) == (950, 0, 50)
    assert (await only(ledger)).unconfirmed_nano_usd == 0


async def test_a_settlement_that_the_store_knows_nothing_of_is_booked_once(ledger: BudgetLedger) -> None:
    await ledger.settle(held("lost", 600), Cost(450))
    await ledger.settle(held("lost", 600), Cost(450))
    assert await sums(ledger) == (550, 0, 450)


async def test_a_hold_belongs_to_the_window_in_which_it_was_made(ledger: BudgetLedger, clock: ManualClock) -> None:
    policy = budget_policy(THOUSAND, "minute")
    clock.advance(59)
    await ledger.reserve(held("r1", 1000, policy))
    clock.advance(1)
    assert await sums(ledger, policy) == (1000, 0, 0)
    await ledger.reserve(held("r2", 1000, policy))
    await ledger.settle(held("r1", 1000, policy), Cost(900))
    assert await sums(ledger, policy) == (0, 1000, 0)


async def test_a_day_of_25_hours_has_one_budget(ledger: BudgetLedger, clock: ManualClock) -> None:
    policy = budget_policy(THOUSAND, "day", ", zone: America/New_York")
    clock.advance((datetime(2027, 11, 7, 4, 0, tzinfo=UTC) - clock.now()).total_seconds())
    await ledger.reserve(held("r1", 1000, policy))
    clock.advance(25 * 3600 - 1)
    with pytest.raises(BudgetExhausted) as refusal:
        await ledger.reserve(held("r2", 1, policy))
    assert refusal.value.resets_at == datetime(2027, 11, 8, 5, 0, tzinfo=UTC)
    clock.advance(1)
    await ledger.reserve(held("r2", 1000, policy))


async def test_standing_tells_the_tightest_budget_and_its_end(ledger: BudgetLedger) -> None:
    policy = tenant_policy(
        'budgets: [{window: day, limit_usd: "0.0000005", when_exhausted: cache_only}, '
        '{window: month, limit_usd: "0.000001", when_exhausted: small_only}]'
    )
    ends_at = datetime(2026, 11, 21, tzinfo=UTC)
    before = await ledger.standing(CALLER, policy)
    assert (before.free_nano_usd, before.when_exhausted, before.resets_at) == (500, "cache_only", ends_at)
    await ledger.settle(held("r1", 0, policy), Cost(1200))
    after = await ledger.standing(CALLER, policy)
    assert (after.free_nano_usd, after.when_exhausted, after.resets_at) == (-700, "cache_only", ends_at)


async def test_standing_tells_the_spending_of_each_hard_budget_of_all_tiers(ledger: BudgetLedger) -> None:
    policy = tenant_policy(
        'budgets: [{window: day, limit_usd: "0.000001"}, {window: day, limit_usd: "0.000002", soft: true}, '
        '{window: day, limit_usd: "0.000003", tier: large}, {window: hour, rolling: true, limit_usd: "0.000004"}]'
    )
    await ledger.settle(held("r1", 0, policy), Cost(700))
    day, rolling = (await ledger.standing(CALLER, policy)).spending
    assert (day.limit_nano_usd, day.spent_nano_usd, day.rolling) == (1_000, 700, False)
    assert (day.starts_at, day.ends_at) == (datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC))
    assert (rolling.limit_nano_usd, rolling.spent_nano_usd, rolling.rolling) == (4_000, 700, True)
    assert rolling.account != day.account


async def test_a_new_limit_counts_at_once_with_what_was_spent_before(ledger: BudgetLedger) -> None:
    await ledger.reserve(held("r1", 1000))
    await ledger.settle(held("r1", 1000), Cost(1000))
    raised = budget_policy("0.000003")
    await ledger.reserve(held("r2", 2000, raised))
    assert await sums(ledger, raised) == (0, 2000, 1000)


async def test_tenants_do_not_share_budgets(ledger: BudgetLedger) -> None:
    other = tenant_policy(f"budgets: [{{window: month, limit_usd: '{THOUSAND}'}}]", "globex")
    await ledger.reserve(held("r1", 1000))
    await ledger.reserve(held("r2", 1000, other, Caller("globex", "k1")))
    assert await sums(ledger, other) == (0, 1000, 0)


async def test_without_budgets_nothing_is_counted_or_refused(ledger: BudgetLedger) -> None:
    policy = tenant_policy()
    await ledger.reserve(held("r1", 10**15, policy))
    await ledger.settle(held("r1", 10**15, policy), Cost(10**15))
    assert await ledger.balances(policy) == ()
    assert await ledger.standing(CALLER, policy) == Standing()


async def test_of_many_at_once_exactly_those_that_fit_are_granted(ledger: BudgetLedger) -> None:
    async def is_granted(reserve: Coroutine[object, object, None]) -> bool:
        try:
            await reserve
        except BudgetExhausted:
            return False
        return True

    grants = await asyncio.gather(*(is_granted(ledger.reserve(held(f"r{n}", 7))) for n in range(200)))
    assert sum(grants) == 1000 // 7
    await asyncio.gather(*(ledger.settle(held(f"r{n}", 7), Cost(5)) for n in range(200) if grants[n]))
    assert await sums(ledger) == (1000 - 142 * 5, 0, 142 * 5)


def user(name: str | None) -> Caller:
    return Caller("acme", "k1", user=name)


async def test_each_end_user_has_its_own_budget_and_those_without_a_name_share_one(ledger: BudgetLedger) -> None:
    policy = budget_policy("0.0000003", "day", ", per: user")
    for name in ("ada", "bob", None):
        await ledger.reserve(held(f"r {name}", 300, policy, user(name)))
    for name in ("ada", None, ""):
        with pytest.raises(BudgetExhausted):
            await ledger.reserve(held(f"more {name}", 1, policy, user(name)))
    await ledger.settle(held("r ada", 300, policy, user("ada")), Cost(120))
    assert (await ledger.standing(user("ada"), policy)).free_nano_usd == 180
    assert (await ledger.standing(user("bob"), policy)).free_nano_usd == 0
    assert [(b.account.user, b.free_nano_usd) for b in await ledger.balances(policy)] == [
        ("#none", 0), ("ada", 180), ("bob", 0),
    ]  # fmt: skip


async def test_no_name_of_a_user_leads_to_the_account_of_another(ledger: BudgetLedger) -> None:
    policy = budget_policy("0.0000003", "day", ", per: user")
    await ledger.reserve(held("r1", 300, policy, user(None)))
    for number, name in enumerate(("#none", "a\x1fb\nc")):
        await ledger.reserve(held(f"posing {number}", 300, policy, user(name)))
        assert (await ledger.standing(user(name), policy)).free_nano_usd == 0


async def test_users_beyond_the_bound_share_one_account(ledger: BudgetLedger) -> None:
    policy = budget_policy("0.0000003", "day", ", per: user")
    for number in range(3):  # the bound of these ledgers
        await ledger.reserve(held(f"r{number}", 200, policy, user(f"user {number}")))
    await ledger.reserve(held("r3", 200, policy, user("user 3")))
    with pytest.raises(BudgetExhausted):
        await ledger.reserve(held("r4", 200, policy, user("user 4")))
    await ledger.reserve(held("r5", 100, policy, user("user 1")))
    await ledger.settle(held("r3", 200, policy, user("user 3")), NOTHING)
    await ledger.reserve(held("r4", 200, policy, user("user 4")))
    assert {b.account.user for b in await ledger.balances(policy)} == {"user 0", "user 1", "user 2", "#others"}


async def test_a_rolling_window_forgets_part_by_part(ledger: BudgetLedger, clock: ManualClock) -> None:
    policy = budget_policy(THOUSAND, "hour", ", rolling: true")
    for number, amount in enumerate((500, 300, 200)):
        await ledger.reserve(held(f"r{number}", amount, policy))
        await ledger.settle(held(f"r{number}", amount, policy), Cost(amount))
        clock.advance(600)
    with pytest.raises(BudgetExhausted) as refusal:
        await ledger.reserve(held("r3", 1, policy))
    assert refusal.value.resets_at == datetime(2026, 11, 20, 11, 31, tzinfo=UTC)
    clock.advance(1800)  # what was spent first is as old as the window and still counts, in part or in full
    assert await sums(ledger, policy) == (0, 0, 1000)
    clock.advance(60)
    assert await sums(ledger, policy) == (500, 0, 500)
    clock.advance(600)
    assert await sums(ledger, policy) == (800, 0, 200)
    clock.advance(600)
    assert await sums(ledger, policy) == (1000, 0, 0)


async def test_a_hold_in_a_rolling_window_counts_from_when_it_was_made(
    ledger: BudgetLedger, clock: ManualClock
) -> None:
    policy = budget_policy(THOUSAND, "minute", ", rolling: true")
    await ledger.reserve(held("r1", 600, policy))
    clock.advance(30)
    assert await sums(ledger, policy) == (400, 600, 0)
    await ledger.settle(held("r1", 600, policy), Cost(100))
    assert await sums(ledger, policy) == (900, 0, 100)
    await ledger.reserve(held("r2", 900, policy))
    clock.advance(31)
    assert await sums(ledger, policy) == (100, 900, 0)
    clock.advance(30)
    await ledger.settle(held("r2", 900, policy), Cost(700))
    assert await sums(ledger, policy) == (1000, 0, 0)


async def test_a_soft_budget_counts_and_never_refuses(ledger: BudgetLedger) -> None:
    policy = tenant_policy(
        'budgets: [{window: day, limit_usd: "0.0000001", soft: true}, {window: month, limit_usd: "0.000001"}]'
    )
    await ledger.reserve(held("r1", 900, policy))
    await ledger.settle(held("r1", 900, policy), Cost(800))
    assert [b.spent_nano_usd for b in await ledger.balances(policy)] == [800, 800]
    assert (await ledger.standing(CALLER, policy)).free_nano_usd == 200
    only_soft = budget_policy("0.0000001", "day", ", soft: true")
    await ledger.reserve(held("r2", 10**6, only_soft))
    assert (await ledger.standing(CALLER, only_soft)).free_nano_usd is None


async def test_an_alert_is_raised_once_a_window_for_each_percentage(
    ledger: BudgetLedger, clock: ManualClock, alerts: list[Alert]
) -> None:
    policy = budget_policy(THOUSAND, "day", ", alerts: ['0.5', '0.8', '1']")

    async def spend(id_: str, cost: int) -> list[int]:
        alerts.clear()
        await ledger.reserve(held(id_, 1, policy))
        await ledger.settle(held(id_, 1, policy), Cost(cost))
        await ledger.balances(policy)  # what was spent from a slice is told late, unless somebody asks
        return [alert.percent for alert in alerts]

    assert await spend("r1", 499) == []
    assert await spend("r2", 1) == [50]
    assert (alerts[0].spent_nano_usd, alerts[0].limit_nano_usd, alerts[0].window_id) == (500, 1000, "2026-11-20")
    assert await spend("r3", 499) == [80]
    assert await spend("r4", 1) == [100]
    clock.advance(86_400)
    assert await spend("r5", 900) == [50, 80]


async def test_a_rolling_budget_alerts_again_only_after_its_length(
    ledger: BudgetLedger, clock: ManualClock, alerts: list[Alert]
) -> None:
    policy = budget_policy(THOUSAND, "minute", ", rolling: true, alerts: ['0.5']")
    for number, (pause_s, expected) in enumerate([(0, 1), (30, 1), (31, 2), (10, 2)]):
        clock.advance(pause_s)
        await ledger.settle(held(f"r{number}", 0, policy), Cost(600))
        assert len(alerts) == expected


async def test_a_grant_raises_the_limit_of_one_account_in_one_window(
    ledger: BudgetLedger, treasury: Treasury, clock: ManualClock
) -> None:
    account = (await only(ledger)).account
    await ledger.reserve(held("r1", 1000))
    for _ in range(2):
        await treasury.grant(MONTH, account, 250, "grant 1")
    balance = await only(ledger)
    assert (balance.limit_nano_usd, balance.granted_nano_usd, balance.free_nano_usd) == (1250, 250, 250)
    await ledger.reserve(held("r2", 250))
    with pytest.raises(BudgetExhausted, match=r"of 0\.00000125 USD has 0 USD left"):
        await ledger.reserve(held("r3", 1))
    await treasury.grant(MONTH, account, -250, "grant 2")
    assert (await only(ledger)).free_nano_usd == -250
    with pytest.raises(InvalidRequest):
        await treasury.grant(MONTH, account, -1, "grant 3")
    clock.advance(30 * 86_400)
    assert (await only(ledger)).limit_nano_usd == 1000


async def test_a_reset_frees_what_was_spent_and_erases_nothing(ledger: BudgetLedger, treasury: Treasury) -> None:
    await ledger.reserve(held("r1", 600))
    await ledger.settle(held("r1", 600), Cost(550))
    await ledger.reserve(held("r2", 100))
    for _ in range(2):
        await treasury.reset(MONTH, (await only(ledger)).account, "reset 1")
    balance = await only(ledger)
    assert (balance.free_nano_usd, balance.reserved_nano_usd, balance.spent_nano_usd) == (900, 100, 550)
    await ledger.settle(held("r2", 100), Cost(30))
    assert (await only(ledger)).free_nano_usd == 970


async def test_a_grant_to_one_user_leaves_the_others_alone(ledger: BudgetLedger, treasury: Treasury) -> None:
    policy = budget_policy("0.0000003", "day", ", per: user")
    account = Account("acme", "", "ada", "", "day", "UTC")
    await treasury.grant(policy, account, 100, "grant 1")
    assert (await ledger.standing(user("ada"), policy)).free_nano_usd == 400
    assert (await ledger.standing(user("bob"), policy)).free_nano_usd == 300


@pytest.mark.parametrize("wrong", [{"window": "day"}, {"key_id": "k1"}, {"tier": "large"}, {"tenant": "globex"}])
async def test_an_account_that_no_budget_counts_in_cannot_be_granted_to(
    ledger: BudgetLedger, treasury: Treasury, wrong: dict[str, str]
) -> None:
    account = (await only(ledger)).account._replace(**wrong)
    with pytest.raises(InvalidRequest, match="No budget of the tenant"):
        await treasury.grant(MONTH, account, 1, "grant 1")
    with pytest.raises(InvalidRequest, match="No budget of the tenant"):
        await treasury.reset(MONTH, account, "reset 1")


@pytest.mark.parametrize("wrong", [lambda: held("r1", -1), lambda: Cost(-1), lambda: Cost(1, {"small": -1})])
def test_negative_money_cannot_be_written(wrong: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        wrong()
