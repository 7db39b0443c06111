"""A tenant's own calibration: refitted when it helps, numbered, taken back."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from core.errors import ConfigurationError
from core.plan import Complexity
from router.calibration import log_odds, probability
from router.tenant_calibration import (
    IDENTITY,
    History,
    Observed,
    calibrated,
    histories_text,
    line_of,
    read_histories,
    refit,
    rolled_back,
    uncalibrated,
)
from router.weights import Line
from tests.weights import manifest

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def observed(n: int, factor: float, seed: int = 1) -> list[Observed]:
    """The small tier suffices `factor` times as often as the weights say."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.05, 0.95, n)
    return [Observed(float(one), bool(rng.random() < one * factor)) for one in p]


def test_outcomes_that_disagree_put_a_version_in_force() -> None:
    found = refit(History(), manifest(), observed(300, 0.4), NOW)
    assert found.improved
    assert (found.history.in_force, found.rows) == (1, 300)
    judged = calibrated(Complexity(0.8, "model:general@01234567"), found.history, manifest())
    assert judged.p_small_suffices < 0.6
    assert judged.source == "model:general@01234567;calibration:1"


def test_a_refit_to_the_same_outcomes_again_changes_nothing() -> None:
    first = refit(History(), manifest(), observed(300, 0.4), NOW)
    second = refit(first.history, manifest(), observed(300, 0.4), NOW)
    assert not second.improved
    assert second.history == first.history


def test_a_handful_of_outcomes_changes_nothing() -> None:
    found = refit(History(), manifest(), observed(10, 0.1), NOW)
    assert (found.history, found.improved) == (History(), False)
    assert refit(History(), manifest(), [], NOW).history == History()


def test_a_rollback_goes_to_the_version_before_and_then_to_none() -> None:
    first = refit(History(), manifest(), observed(300, 0.4), NOW).history
    second = refit(first, manifest(), observed(300, 0.9, seed=2), NOW).history
    assert second.in_force == 2
    back = rolled_back(second)
    assert (back.in_force, len(back.versions)) == (1, 2)
    assert line_of(back, manifest()) == line_of(first, manifest())
    assert rolled_back(back).in_force == 0
    assert calibrated(Complexity(0.8, "m"), rolled_back(back), manifest()) == Complexity(0.8, "m")
    assert rolled_back(rolled_back(back), to=2).in_force == 2


def test_a_version_after_a_rollback_gets_a_number_of_its_own() -> None:
    first = refit(History(), manifest(), observed(300, 0.4), NOW).history
    assert refit(rolled_back(first), manifest(), observed(300, 0.4), NOW).history.in_force == 2


@pytest.mark.parametrize(("to", "problem"), [(7, "no version 7; known: 0"), (None, "no calibration is in force")])
def test_what_cannot_be_rolled_back_to_is_said(to: int | None, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        rolled_back(History(), to)


def test_a_calibration_of_other_weights_is_not_applied() -> None:
    history = refit(History(), manifest(), observed(300, 0.4), NOW).history
    other = msgspec.structs.replace(manifest(), weights_sha256="fedcba9876543210")
    assert line_of(history, other) == IDENTITY
    assert calibrated(Complexity(0.8, "m"), history, other) == Complexity(0.8, "m")


def test_what_the_weights_said_is_found_again_behind_a_calibration() -> None:
    p, line = np.array([0.1, 0.5, 0.9]), Line(0.5, -0.3)
    shifted = probability(line.slope * log_odds(p) + line.offset)
    np.testing.assert_allclose(uncalibrated(shifted, line), p)
    np.testing.assert_array_equal(uncalibrated(p, Line(0.0, 1.0)), p)


def test_histories_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    assert read_histories(path) == {}
    kept = {"acme": refit(History(), manifest(), observed(300, 0.4), NOW).history}
    path.write_text(histories_text(kept))
    assert read_histories(path) == kept


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"acme": 3}')
    with pytest.raises(ConfigurationError, match=r"c\.json: holds no calibrations"):
        read_histories(path)
