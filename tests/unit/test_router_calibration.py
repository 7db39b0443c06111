"""Refitting probabilities to outcomes."""

from pathlib import Path

import numpy as np
import pytest

from core.errors import ConfigurationError
from router.calibration import (
    Calibration,
    fit_calibration,
    fit_line,
    log_odds,
    probability,
    read_calibration,
    write_calibration,
)
from tests.weights import manifest

RNG = np.random.default_rng(3)


def probabilities(n: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return RNG.uniform(0.05, 0.95, n)


def test_a_shifted_base_rate_is_learnt_from_two_hundred_outcomes() -> None:
    p = probabilities(200)
    suffices = RNG.random(200) < p * 0.4
    fitted = fit_calibration(manifest(), p, suffices)
    assert fitted.offset < -0.5
    assert fitted.brier_after < fitted.brier_before


def test_good_probabilities_are_hardly_changed() -> None:
    changes = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        p = rng.uniform(0.05, 0.95, 200)
        fitted = fit_calibration(manifest(), p, rng.random(200) < p)
        changes.append(abs(probability(fitted.slope * log_odds(p) + fitted.offset) - p).mean())
        assert fitted.improves == (fitted.brier_after < fitted.brier_before)
    assert np.mean(changes) < 0.04


def test_a_handful_of_outcomes_changes_nothing() -> None:
    fitted = fit_calibration(manifest(), np.full(10, 0.9), np.zeros(10, np.bool_))
    assert (fitted.slope, fitted.offset, fitted.rows) == (1.0, 0.0, 10)


def test_one_outcome_changes_little() -> None:
    line = fit_line(np.array([0.0]), np.array([True]))
    assert abs(line.offset) < 0.5


def test_a_router_worse_than_random_is_flattened_not_reversed() -> None:
    x = np.linspace(-3, 3, 400)
    line = fit_line(x, x < 0)
    assert line.slope == 0.0


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    kept = Calibration("general", "ab", 0.9, -0.1, 200, 0.2, 0.19)
    write_calibration(kept, path)
    assert read_calibration(path) == kept


def test_a_calibration_of_other_weights_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="does not belong"):
        Calibration("general", "other", 1.0, 0.0, 1, 0.1, 0.1).check(manifest())


@pytest.mark.parametrize("content", [b"", b"{}", b'{"pair": 3}', b'{"unknown": 1}'])
def test_a_broken_calibration_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"c\.json"):
        read_calibration(path)
