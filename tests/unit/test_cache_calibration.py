"""Bounds, thresholds and the shipped score."""

import math

import pytest

from cache.calibration import NEVER, Step, calibrate, lower_bound, read_score, shipped_score, threshold_for, upper_bound
from cache.evidence import NAMES


@pytest.mark.parametrize(
    ("events", "trials", "bound"),
    [(0, 100, 0.029513), (0, 1000, 0.0029912), (5, 100, 0.102253), (10, 5000, 0.0033899)],
)
def test_the_upper_bound_is_that_of_clopper_and_pearson(events: int, trials: int, bound: float) -> None:
    assert upper_bound(events, trials, confidence=0.95) == pytest.approx(bound, rel=1e-3)


def test_thresholds_are_chosen_with_half_of_the_allowed_chance_of_error() -> None:
    assert upper_bound(0, 2_000) == pytest.approx(1 - 0.025 ** (1 / 2_000), rel=1e-4)
    assert upper_bound(3, 2_000) == upper_bound(3, 2_000, confidence=0.975) > upper_bound(3, 2_000, confidence=0.95)
    (step,) = calibrate([0.9] * 2, 2_000, (0.5,))
    assert threshold_for([step], 0.0032) == NEVER, "at 95 % two of 2,000 would have passed"


def test_bounds_at_the_edges() -> None:
    assert upper_bound(0, 0) == 1.0
    assert upper_bound(7, 7) == 1.0
    assert lower_bound(0, 0) == 0.0
    assert lower_bound(0, 10) == 0.0
    assert 0.0 < lower_bound(5, 10) < 0.5 < upper_bound(5, 10)


def test_the_threshold_is_the_last_before_the_first_step_that_fails() -> None:
    steps = [Step(0.9, 0, 1000, 0.001), Step(0.8, 4, 1000, 0.006), Step(0.7, 4, 1000, 0.004)]
    assert threshold_for(steps, 0.005) == 0.9
    assert threshold_for(steps, 0.006) == 0.7
    assert threshold_for(steps, 0.0005) == NEVER
    assert threshold_for([], 0.5) == NEVER


def test_calibration_counts_false_hits_at_or_above_each_threshold() -> None:
    steps = calibrate([0.9, 0.5, 0.5], 1000, (0.5, 0.95, 0.9))
    assert [(one.threshold, one.false_hits) for one in steps] == [(0.95, 0), (0.9, 1), (0.5, 3)]
    assert all(one.bound == upper_bound(one.false_hits, 1000) for one in steps)


def test_the_shipped_score_works_from_the_first_request_and_a_lower_rate_tightens() -> None:
    table = shipped_score()
    assert 0.4 <= table.default_threshold < 0.9
    assert table.threshold(0.001) > table.default_threshold > table.threshold(0.02) - 0.001
    assert table.threshold(0.0) == NEVER
    bounds = [step.bound for step in table.steps]
    assert bounds == sorted(bounds)
    assert all(step.bound == pytest.approx(upper_bound(step.false_hits, step.requests)) for step in table.steps)


def test_a_probability_is_one_over_one_plus_the_odds() -> None:
    table = shipped_score()
    nothing = [0.0] * len(NAMES)
    assert table.probability(nothing) == pytest.approx(1 / (1 + math.exp(-table.intercept)))
    assert table.with_margin(table.logit(nothing), 1.0) > table.probability(nothing)


def test_a_table_of_another_version_is_refused(tmp_path: object) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "score.json"
    text = '{"schema":1,"encoder":"e","trained_on":"t","coefficients":{"similarity":1.0},"intercept":0.0,"steps":[]}'
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"score\.json: made for another version"):
        read_score(file)
