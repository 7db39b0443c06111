"""The shadow price that paces a budget."""

from datetime import UTC, datetime, timedelta

import pytest

from core.plan import Spending
from router.pacing import LEAST_SEEN, MAX_PRICE, TICK_S, Arrivals, Pace, Planned

START = datetime(2026, 6, 1, tzinfo=UTC)
SMALL, LARGE = Planned(10, 10, 100), Planned(110, 110, 100)


def spending(limit: int, spent: int = 0, *, rolling: bool = False) -> Spending:
    return Spending("acme", START, START + timedelta(hours=1), limit, spent, rolling)


def at(seconds: float) -> float:
    return START.timestamp() + seconds


def test_arrivals_of_an_even_stream_are_foreseen() -> None:
    arrivals = Arrivals()
    for second in range(0, 1_800, 2):
        arrivals.note(at(second))
    assert arrivals.expected(1_000) == pytest.approx(500, rel=0.02)
    assert arrivals.expected(10) == pytest.approx(5, rel=0.3)


def test_arrivals_to_come_soon_are_judged_by_those_of_late() -> None:
    arrivals = Arrivals()
    for second in range(0, 3_000, 10):
        arrivals.note(at(second))
    for second in range(3_000, 3_100):
        arrivals.note(at(second))
    assert arrivals.expected(20) == pytest.approx(20, rel=0.1)
    assert arrivals.expected(10_000) < 2_000


def test_requests_of_one_tick_count_in_full_and_decay_together() -> None:
    together, spread = Arrivals(), Arrivals()
    for second in range(600):
        for n in range(10):
            together.note(at(second + n * TICK_S / 20))
            spread.note(at(second + n / 10))
    assert together.seen == spread.seen == 6_000
    assert together.expected(100) == pytest.approx(1_000, rel=0.02)
    assert together.expected(100) == pytest.approx(spread.expected(100), rel=0.02)


def test_ahead_of_the_pace_the_price_rises_and_behind_it_falls_to_nothing() -> None:
    pace, budget = Pace(), spending(3_600 * 50)
    for second in range(300):
        pace.note(budget, LARGE, at(second), 1)
        pace.settle(LARGE, 110)
    risen = pace.price
    assert risen > 0.3
    for second in range(300, 900):
        pace.note(budget, SMALL, at(second), 1)
        pace.settle(SMALL, 10)
    assert pace.price == 0.0
    assert pace.price_per_usd == 0.0


def test_the_price_is_bounded() -> None:
    pace = Pace()
    for second in range(5_000):
        pace.note(spending(1), LARGE, at(second / 10), 1)
        pace.settle(LARGE, 110)
    assert pace.price == MAX_PRICE


def test_a_tighter_budget_never_has_a_lower_price() -> None:
    prices = []
    for limit in (400_000, 300_000, 200_000, 100_000):
        pace = Pace()
        for second in range(600):
            pace.note(spending(limit), LARGE, at(second), 1)
            pace.settle(LARGE, 110)
        prices.append(pace.price)
    assert prices == sorted(prices)
    assert prices[0] < prices[-1]


def test_a_few_requests_say_nothing_of_the_pace() -> None:
    pace = Pace()
    for second in range(LEAST_SEEN):
        pace.note(spending(1), LARGE, at(second), 1)
    assert pace.price == 0.0


def test_what_is_in_flight_counts_as_spent() -> None:
    idle, busy = Pace(), Pace()
    for second in range(100):
        idle.note(spending(100_000), LARGE, at(second), 1)
        idle.settle(LARGE, 110)
        busy.note(spending(100_000), LARGE, at(second), 1)
    assert busy.allowed_nano_usd(spending(100_000), at(100), 1) < idle.allowed_nano_usd(spending(100_000), at(100), 1)


def test_replicas_pace_an_equal_part_each() -> None:
    pace = Pace()
    for second in range(100):
        pace.note(spending(100_000), SMALL, at(second), 1)
        pace.settle(SMALL, 10)
    alone, shared = (pace.allowed_nano_usd(spending(100_000), at(100), replicas) for replicas in (1, 4))
    assert shared == pytest.approx(alone / 4)


def test_a_rolling_window_that_is_full_allows_its_mean() -> None:
    pace = Pace()
    for second in range(3_600):
        pace.note(spending(360_000, rolling=True), SMALL, at(second), 1)
        pace.settle(SMALL, 10)
    now = Spending("acme", START, START + timedelta(hours=2), 360_000, 358_500, rolling=True)
    assert pace.allowed_nano_usd(now, at(3_600), 1) == pytest.approx(100, rel=0.05)


def test_a_cost_that_was_expected_wrongly_is_put_right() -> None:
    right, wrong = Pace(), Pace()
    for second in range(100):
        right.note(spending(20_000), LARGE, at(second), 1)
        right.settle(LARGE, 110)
        wrong.note(spending(20_000), SMALL, at(second), 1)
        wrong.settle(SMALL, 110)
    assert wrong.price == pytest.approx(right.price, abs=0.05)


def test_a_newcomers_burst_is_not_taken_for_a_month_of_traffic() -> None:
    pace = Pace()
    month = Spending("acme", START, START + timedelta(days=30), 1_000_000, 0)
    for second in range(100):
        pace.note(month, LARGE, at(second), 1)
        pace.settle(LARGE, 110)
    assert pace.price == 0.0
