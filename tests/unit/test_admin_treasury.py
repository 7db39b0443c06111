"""Selectors of the admin API: they mean one account of a tenant, or are refused with what there is."""

import pytest

from core.clock import ManualClock
from core.errors import InvalidRequest
from core.identity import Caller
from gateway.admin.budget_routes import Selector
from gateway.admin.treasury import TreasuryBudgets, chosen_account
from policies.ledger import Cost, Hold
from policies.ledger_memory import MemoryLedger
from policies.loading import PolicySet
from tests.policy_samples import CALLER, tenant_policy

POLICY = tenant_policy("""
budgets:
  - {window: month, limit_usd: "100"}
  - {window: month, limit_usd: "80", when_exhausted: small_only}
  - {window: day, limit_usd: "10"}
  - {window: day, limit_usd: "5", rolling: true}
  - {window: day, limit_usd: "2", per: user}
  - {window: day, limit_usd: "3", per: key, tier: large}
""")


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (Selector(window="month"), ("", "", "", "month")),
        (Selector(window="day", rolling=False), ("", "", "", "day")),
        (Selector(window="day", rolling=True), ("", "", "", "rolling-day")),
        (Selector(user="ada"), ("", "ada", "", "day")),
        (Selector(key_id="k1"), ("k1", "", "large", "day")),
        (Selector(key_id="k1", tier="large", window="day"), ("k1", "", "large", "day")),
    ],
)
def test_a_selector_means_one_account(which: Selector, expected: tuple[str, str, str, str]) -> None:
    account = chosen_account(POLICY, which)
    assert (account.key_id, account.user, account.tier, account.window) == expected


@pytest.mark.parametrize(
    ("which", "says"),
    [
        (Selector(), "Several budgets fit"),
        (Selector(window="day"), "Several budgets fit"),
        (Selector(window="week"), "No budget fits"),
        (Selector(window="month", user="ada"), "No budget fits"),
        (Selector(key_id="k1", tier="small"), "No budget fits"),
    ],
)
def test_a_selector_that_means_none_or_several_is_refused_with_what_there_is(which: Selector, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as refusal:
        chosen_account(POLICY, which)
    for name in ("month", "rolling day", "day per user", "day per key tier large"):
        assert name in refusal.value.message


async def test_a_grant_and_a_reset_show_in_the_balances_in_usd() -> None:
    policy = tenant_policy('budgets: [{window: month, limit_usd: "1"}]')
    ledger = MemoryLedger(ManualClock())
    budgets = TreasuryBudgets(ledger, lambda: PolicySet.of({"acme": policy}))
    hold = Hold("r1", CALLER, policy, 400_000_000)
    await ledger.reserve(hold)
    await ledger.settle(hold, Cost(300_000_001))
    await ledger.reserve(Hold("r2", Caller("acme", "k2"), policy, 200_000_000))
    await budgets.grant("acme", Selector(), 100_000_000, "g1")
    (line,) = await budgets.balances("acme")
    assert (line.limit_usd, line.granted_usd, line.spent_usd) == ("1.1", "0.1", "0.300000001")
    assert (line.reserved_usd, line.free_usd) == ("0.2", "0.599999999")
    await budgets.reset("acme", Selector(), "g2")
    (line,) = await budgets.balances("acme")
    assert (line.free_usd, line.spent_usd) == ("0.8", "0.300000001")


async def test_a_tenant_without_a_policy_has_no_budgets_to_show() -> None:
    budgets = TreasuryBudgets(MemoryLedger(ManualClock()), lambda: PolicySet.of({}))
    with pytest.raises(InvalidRequest, match="no policy"):
        await budgets.balances("acme")
