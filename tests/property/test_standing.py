"""A standing is told by the budget that binds, in whatever order the budgets are read."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from core.plan import Standing
from core.rules import Budget
from policies.budgets import account_of
from policies.ledger import Balance, standing_of

START = datetime(2026, 11, 1, tzinfo=UTC)
STRICTNESS = ("small_only", "cache_only", "reject")


@st.composite
def balances(draw: st.DrawFn) -> Balance:
    budget = Budget(
        "day", ZoneInfo("UTC"), draw(st.integers(0, 5)), draw(st.sampled_from(STRICTNESS)),
        tier=draw(st.sampled_from([None, None, "small", "large"])), soft=draw(st.booleans()),
    )  # fmt: skip
    ends_at = START + timedelta(days=draw(st.integers(1, 3)))
    reserved, spent, granted = (draw(st.integers(0, 3)) for _ in range(3))
    leased = draw(st.integers(0, reserved))
    account = account_of(budget, "acme", "k1")
    return Balance(account, budget, "w", START, ends_at, reserved, spent, 0, granted, leased)


@given(st.lists(balances(), max_size=5), st.booleans())
def test_the_strictest_that_is_used_up_binds_else_the_one_with_least_left(
    read: list[Balance], count_leased: bool
) -> None:
    hard = [(one.free_nano_usd + one.leased_nano_usd * count_leased, one) for one in read if not one.budget.soft]
    everywhere = [entry for entry in hard if not entry[1].account.tier]
    used_up = [entry for entry in everywhere if entry[0] <= 0]
    tiers = {one.account.tier for _, one in hard if one.account.tier}
    expected = Standing()
    if everywhere:
        free, one = min(everywhere, key=lambda entry: entry[0])
        if used_up:
            free, one = max(used_up, key=lambda e: (STRICTNESS.index(e[1].budget.when_exhausted), e[1].ends_at))
        expected = Standing(free, one.budget.when_exhausted, one.ends_at)
    told = standing_of(read, count_leased=count_leased)
    assert (told.free_nano_usd, told.when_exhausted, told.resets_at) == (
        expected.free_nano_usd, expected.when_exhausted, expected.resets_at,
    )  # fmt: skip
    assert told.free_by_tier == {tier: min(free for free, one in hard if one.account.tier == tier) for tier in tiers}
    assert [one.limit_nano_usd for one in told.spending] == [one.limit_nano_usd for _, one in everywhere]
