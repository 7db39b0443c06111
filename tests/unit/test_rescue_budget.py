"""The bounds of rescue: a share of requests, and a share of money."""

import pytest

from backends.rescue_budget import BURST, MoneyBudget, ShareBudget


def used(budget: ShareBudget) -> int:
    count = 0
    while budget.use():
        count += 1
    return count


def test_a_share_allows_its_burst_and_then_its_part_of_the_requests() -> None:
    budget = ShareBudget(0.1)
    assert used(budget) == BURST
    for _ in range(50):
        budget.request()
    assert used(budget) == pytest.approx(5, abs=1)


def test_silence_saves_up_no_more_than_the_burst() -> None:
    budget = ShareBudget(0.5)
    for _ in range(1_000):
        budget.request()
    assert used(budget) == BURST


def test_a_share_of_nothing_allows_nothing() -> None:
    budget = ShareBudget(0.0)
    budget.request()
    assert (budget.has_room, budget.use()) == (False, False)


def test_hedges_cost_their_share_beyond_a_burst() -> None:
    budget, hedges = MoneyBudget(0.05), 0
    for _ in range(1_000):
        budget.spent(100, now_s=0.0, by_hedge=False)
    while budget.allows(100):
        budget.spent(100, now_s=0.0, by_hedge=True)
        hedges += 1
    assert hedges == pytest.approx(0.05 * 1_000 + BURST, rel=0.1)


def test_dear_hedges_are_refused_sooner_than_cheap_ones() -> None:
    budget = MoneyBudget(0.05)
    for _ in range(1_000):
        budget.spent(10, now_s=0.0, by_hedge=False)
    for _ in range(20):
        budget.spent(1_000, now_s=0.0, by_hedge=True)
    assert not budget.allows(10)


def test_old_hedges_are_forgotten() -> None:
    budget = MoneyBudget(0.05)
    budget.spent(100, now_s=0.0, by_hedge=False)
    for _ in range(100):
        budget.spent(100, now_s=0.0, by_hedge=True)
    assert not budget.allows(100)
    budget.spent(100, now_s=20_000.0, by_hedge=False)
    assert budget.allows(100)
