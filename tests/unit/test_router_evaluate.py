"""The measures of a router, against values worked out by hand."""

import math

import numpy as np
import pytest

from router.evaluate import (
    Outcomes,
    apgr,
    auc,
    bootstrap,
    brier,
    call_share,
    expected_calibration_error,
    measure,
    quality_curve,
)


def outcomes(p: list[float], small: list[float], large: list[float]) -> Outcomes:
    return Outcomes(np.array(p), np.array(small), np.array(large))


SMALL, LARGE = [0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]


def test_an_oracle_recovers_the_gap_with_the_first_call() -> None:
    oracle = outcomes([0.1, 0.9, 0.8, 0.7], SMALL, LARGE)
    assert apgr(oracle) == pytest.approx(1 - 0.25 / 2)
    assert call_share(oracle, 0.5) == pytest.approx(0.125)


def test_a_router_that_is_always_wrong_recovers_it_with_the_last() -> None:
    assert apgr(outcomes([0.9, 0.1, 0.2, 0.3], SMALL, LARGE)) == pytest.approx(0.125)


def test_equal_scores_are_worth_a_random_router() -> None:
    same = outcomes([0.5] * 4, SMALL, LARGE)
    assert apgr(same) == pytest.approx(0.5)
    assert call_share(same, 0.8) == pytest.approx(0.8)
    assert auc(same.p_small, same.small_suffices) == pytest.approx(0.5)


def test_without_a_gap_there_is_nothing_to_recover() -> None:
    assert math.isnan(apgr(outcomes([0.1, 0.9], [1.0, 0.0], [0.0, 1.0])))


def test_the_curve_runs_from_the_small_to_the_large_mean() -> None:
    share, quality = quality_curve(outcomes([0.3, 0.1, 0.3, 0.2], [0, 0, 1, 1], [1, 1, 0, 1]))
    assert share.tolist() == [0.0, 0.25, 0.5, 1.0]
    assert quality.tolist() == [0.5, 0.75, 0.75, 0.75]


def test_both_wrong_counts_as_small_suffices() -> None:
    assert outcomes([0.5], [0.0], [0.0]).small_suffices.tolist() == [True]


def test_auc_counts_ties_half() -> None:
    assert auc(np.array([0.1, 0.5, 0.5, 0.9]), np.array([False, False, True, True])) == pytest.approx(0.875)


def test_calibration_error_is_the_weighted_gap_of_the_bins() -> None:
    p = np.array([0.05, 0.05, 0.95, 0.95])
    assert expected_calibration_error(p, np.array([False, False, True, True])) == pytest.approx(0.05)
    assert expected_calibration_error(p, np.array([False, True, True, True])) == pytest.approx(0.25)
    assert expected_calibration_error(np.array([1.0]), np.array([True])) == 0.0


def test_brier_is_the_mean_squared_error() -> None:
    assert brier(np.array([1.0, 0.5]), np.array([True, True])) == pytest.approx(0.125)


def test_95_percent_of_large_may_need_no_call_when_small_is_close() -> None:
    close = outcomes([0.5] * 100, [1.0] * 96 + [0.0] * 4, [1.0] * 100)
    assert measure(close).large_share_at_95 == 0.0


def test_the_bootstrap_interval_holds_the_estimate_and_repeats() -> None:
    rng = np.random.default_rng(1)
    suffices = rng.random(400) < 0.7
    noisy = Outcomes(np.clip(suffices * 0.3 + rng.random(400) * 0.6, 0, 1), suffices.astype(float), np.ones(400))
    first, second = bootstrap(noisy, apgr, rounds=50), bootstrap(noisy, apgr, rounds=50)
    assert first == second
    assert first.low < apgr(noisy) < first.high
