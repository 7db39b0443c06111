"""Budgets, breakers, SLA limits and lost rows in `/metrics`."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from backends.deployment import Deployment
from backends.health import FAILURES_TO_OPEN, OPEN_S
from backends.registry import Registry
from core.clock import ManualClock
from core.errors import Unavailable
from core.money import Price
from core.rules import Budget, Sla, TenantPolicy
from gateway.telemetry.budget_metrics import BudgetMetrics, burn_ratio
from gateway.telemetry.state_metrics import StateMetrics
from policies.budgets import Account
from policies.ledger import Balance
from policies.loading import PolicySet
from tests.planning import policy
from tests.unit.test_registry import ClosedBackend

STARTS = datetime(2026, 1, 1, tzinfo=UTC)
MONTH = Budget("month", ZoneInfo("UTC"), 100_000_000_000, "small_only")


def balance(budget: Budget = MONTH, *, spent: int = 0, reserved: int = 0, leased: int = 0, key: str = "") -> Balance:
    account = Account("acme", key, "", budget.tier or "", "month", "UTC")
    return Balance(
        account, budget, "w", STARTS, STARTS + timedelta(days=30), reserved, spent, 0, leased_nano_usd=leased
    )


def rules(tenant: str = "acme") -> TenantPolicy:
    found = policy().tenant_policy
    return replace(found, tenant=tenant, sla={"small": Sla(ttft_ms=300, total_ms=None)})


class Books:
    """A treasury of given balances, which can be away."""

    def __init__(self, *balances: Balance) -> None:
        self.given = balances
        self.is_away = False

    async def balances(self, policy: TenantPolicy) -> tuple[Balance, ...]:
        if self.is_away:
            raise Unavailable("away", 1.0)
        return self.given

    async def grant(self, policy: TenantPolicy, account: Account, nano_usd: int, grant_id: str) -> None:
        raise AssertionError("metrics grant nothing")

    async def reset(self, policy: TenantPolicy, account: Account, grant_id: str) -> None:
        raise AssertionError("metrics reset nothing")


def value(collector: Collector, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry.get_sample_value(name, labels)


async def budgets(books: Books, clock: ManualClock | None = None) -> BudgetMetrics:
    metrics = BudgetMetrics(books, lambda: PolicySet.of({"acme": rules()}), clock or ManualClock(STARTS))
    await metrics.refresh()
    return metrics


async def test_a_budget_shows_its_limit_and_what_became_of_it() -> None:
    shown = await budgets(Books(balance(spent=30_000_000_000, reserved=10_000_000_000, leased=8_000_000_000)))
    labels = {"tenant": "acme", "budget": "month", "consequence": "small_only"}
    assert value(shown, "headgate_budget_limit_usd", **labels) == 100
    assert value(shown, "headgate_budget_spent_usd", **labels) == 30
    assert value(shown, "headgate_budget_reserved_usd", **labels) == 2
    assert value(shown, "headgate_budget_remaining_usd", **labels) == 68


async def test_budgets_of_one_window_are_told_apart_and_those_of_keys_left_out() -> None:
    soft = replace(MONTH, soft=True, tier="large", limit_nano_usd=7_000_000_000)
    own = replace(MONTH, per="key", limit_nano_usd=9_000_000_000)
    shown = await budgets(Books(balance(), balance(soft), balance(own, key="key_1")))
    assert value(shown, "headgate_budget_limit_usd", tenant="acme", budget="month large", consequence="none") == 7
    (family,) = [family for family in shown.collect() if family.name == "headgate_budget_limit_usd"]
    assert len(family.samples) == 2


async def test_while_the_store_is_away_the_figures_stay() -> None:
    books = Books(balance(spent=30_000_000_000))
    shown = await budgets(books)
    books.is_away = True
    await shown.refresh()
    labels = {"tenant": "acme", "budget": "month", "consequence": "small_only"}
    assert value(shown, "headgate_budget_spent_usd", **labels) == 30


@pytest.mark.parametrize(
    ("spent", "days", "burn"),
    [(50_000_000_000, 15, 1.0), (50_000_000_000, 7.5, 2.0), (0, 15, 0.0), (100_000_000_000, 60, 1.0)],
)
def test_burn_is_the_spent_share_over_the_elapsed_share(spent: int, days: float, burn: float) -> None:
    assert burn_ratio(balance(spent=spent), STARTS + timedelta(days=days)) == pytest.approx(burn)


def test_a_rolling_budget_has_no_pace() -> None:
    rolling = balance(replace(MONTH, rolling=True), spent=25_000_000_000)
    assert burn_ratio(rolling, STARTS + timedelta(days=1)) == 0.25


def test_a_breaker_is_in_one_state_at_a_time() -> None:
    clock = ManualClock()
    one = Deployment("a", "m", Price(1, 1), ClosedBackend())
    shown = StateMetrics(Registry({"a": one}, {"small": ("a",)}, clock), lambda: PolicySet.of({}), clock, {}, "1")

    def states() -> list[str]:
        (family,) = [family for family in shown.collect() if family.name == "headgate_breaker_state"]
        return [sample.labels["state"] for sample in family.samples if sample.value]

    assert states() == ["closed"]
    for _ in range(FAILURES_TO_OPEN):
        one.health.fail(clock.monotonic_s(), may_eject=True)
    assert states() == ["open"]
    clock.advance(OPEN_S)
    assert states() == ["trial"]
    one.health.succeed(clock.monotonic_s())
    one.health.cool(5.0, clock.monotonic_s())
    assert states() == ["cooling"]


def test_limits_lost_rows_and_the_version_are_shown() -> None:
    policies = PolicySet.of({"acme": rules()})
    clock = ManualClock()
    shown = StateMetrics(Registry({}, {}, clock), lambda: policies, clock, {"requests": lambda: 7}, "0.1.0")
    assert value(shown, "headgate_sla_limit_seconds", tenant="acme", tier="small", kind="ttft") == 0.3
    assert value(shown, "headgate_sla_limit_seconds", tenant="acme", tier="small", kind="total") is None
    assert value(shown, "headgate_dropped_total", log="requests") == 7
    assert value(shown, "headgate_build_info", version="0.1.0") == 1
