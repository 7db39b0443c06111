"""Intervals hold at every look, and say nothing where nothing is known."""

import random

import pytest

from gateway.reporting.evidence import Difference, bounded_mean, quality_difference, saved_per_request
from gateway.telemetry.savings import Trials

ROUNDS = 60
LOOKS = 20


def trials(costs: list[tuple[bool, int]], per_10k: int = 1_000) -> dict[tuple[int, bool], Trials]:
    made = {(per_10k, held): Trials() for held in (False, True)}
    for held, cost in costs:
        one = made[per_10k, held]
        one.requests += 1
        one.cost_nano_usd += cost
        one.cost_squared += float(cost) ** 2
    return made


def drawn(draw: random.Random, requests: int, saved: float = 0.6) -> list[tuple[bool, int]]:
    """Log-normal costs of mean 1,000,000 on the baseline path, of which routing saves a share; one in ten held out."""
    costs = []
    for _ in range(requests):
        held = draw.random() < 0.1
        cost = draw.lognormvariate(0, 1) / 1.6487 * 1e6
        costs.append((held, int(cost if held else cost * (1 - saved))))
    return costs


def test_the_interval_holds_the_truth_at_every_look() -> None:
    missed = 0
    for seed in range(ROUNDS):
        costs = drawn(random.Random(seed), 4_000)
        looks = (saved_per_request(trials(costs[: len(costs) * n // LOOKS])) for n in range(1, LOOKS + 1))
        missed += any(one.low is not None and not one.low <= 600_000 <= (one.high or 0) for one in looks)
    assert missed <= ROUNDS * 0.05 + 3


def test_it_narrows_until_it_shows_the_saving() -> None:
    costs = drawn(random.Random(1), 40_000)
    early, late = (saved_per_request(trials(costs[:count])) for count in (2_000, 40_000))
    assert early.low is not None
    assert early.high is not None
    assert late.low is not None
    assert late.high is not None
    assert late.high - late.low < early.high - early.low
    assert late.low > 0


def test_few_held_out_requests_are_not_enough_evidence() -> None:
    assert not saved_per_request(trials(drawn(random.Random(1), 200))).is_enough
    assert saved_per_request({}) == Difference(None, None, None, 0, 0)
    assert saved_per_request(trials([(False, 5)] * 10)).value is None


def test_requests_of_different_ratios_are_not_mixed() -> None:
    """Prices doubled when the ratio was raised: a mixed difference of means would be far off."""
    draw = random.Random(2)
    early, late = Trials(), Trials()
    both: dict[tuple[int, bool], Trials] = {(100, False): early, (100, True): Trials()}
    both |= {(5_000, False): late, (5_000, True): Trials()}
    for (ratio, held), one in both.items():
        share = ratio / 10_000 if held else 1 - ratio / 10_000
        for _ in range(int(20_000 * share)):
            cost = (2_000 if ratio == 5_000 else 1_000) - (0 if held else 500) + draw.randrange(-50, 50)
            one.requests, one.cost_nano_usd = one.requests + 1, one.cost_nano_usd + cost
            one.cost_squared += float(cost) ** 2
    found = saved_per_request(both)
    assert found.value == pytest.approx(500, abs=5)


def test_bounds_of_a_mean_hold_at_all_times_and_narrow() -> None:
    missed = 0
    for seed in range(ROUNDS):
        draw = random.Random(seed)
        scores = [float(draw.random() < 0.8) for _ in range(800)]
        bounds = [bounded_mean(scores[:count], 0.05) for count in range(20, 801, 20)]
        missed += any(not low <= 0.8 <= high for _, low, high in bounds)
        assert bounds[-1][2] - bounds[-1][1] < 0.2
    assert missed <= ROUNDS * 0.05 + 3


def test_a_difference_of_quality_needs_scores_of_both_paths() -> None:
    assert not quality_difference([1.0] * 500, [1.0] * 9).is_enough
    found = quality_difference([0.0] * 500, [1.0] * 500)
    assert found.high is not None
    assert found.high < 0
