"""Calibrations of single tenants: refitted from their own outcomes, numbered, and taken back on request.

A refit takes effect only when it predicts held-back outcomes better (Brier score) than what is in force. Versions are
never rewritten; going back changes which one is in force. All histories are kept in one JSON file, which is replaced
as a whole, so that a reader sees one state or the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigurationError
from core.plan import Complexity
from router.calibration import MIN_ROWS, Calibration, brier_of, fit_calibration, log_odds, probability
from router.weights import Line, Manifest

NONE_IN_FORCE = 0
KEPT_VERSIONS = 50
IDENTITY = Line(1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Observed:
    """What a request was judged by the weights alone, and whether the small tier's answer was good."""

    p_small: float
    suffices: bool


class Version(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One refit that was put in force; `number` counts from 1 for each tenant."""

    number: int
    fitted_at: datetime
    calibration: Calibration


class History(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant's versions, oldest first, and the number of the one in force (0: none)."""

    in_force: int = NONE_IN_FORCE
    versions: tuple[Version, ...] = ()

    @property
    def current(self) -> Version | None:
        """Return the version in force."""
        return next((one for one in self.versions if one.number == self.in_force), None)


@dataclass(frozen=True, slots=True)
class Refit:
    """What a refit found; `history` is the old one unless it improved."""

    history: History
    rows: int
    brier_before: float
    brier_after: float

    @property
    def improved(self) -> bool:
        """Tell whether held-back outcomes agree better than with what was in force."""
        return self.brier_after < self.brier_before


Histories = Mapping[str, History]


def refit(history: History, manifest: Manifest, observed: Sequence[Observed], now: datetime) -> Refit:
    """Fit to `observed` (at least MIN_ROWS of them) and put it in force when held-back outcomes agree better."""
    p = np.array([one.p_small for one in observed], np.float64)
    suffices = np.array([one.suffices for one in observed], np.bool_)
    line = line_of(history, manifest)
    before = brier_of(line, p, suffices) if len(observed) else float("nan")
    if len(observed) < MIN_ROWS:
        return Refit(history, len(observed), before, before)
    fitted = msgspec.structs.replace(fit_calibration(manifest, p, suffices), brier_before=before)
    found = Refit(history, len(observed), before, fitted.brier_after)
    if not found.improved:
        return found
    number = max((one.number for one in history.versions), default=0) + 1
    versions = (*history.versions, Version(number, now, fitted))[-KEPT_VERSIONS:]
    return replace(found, history=History(number, versions))


def rolled_back(history: History, to: int | None = None) -> History:
    """Return the history with version `to` in force (0: none), or the one before the present.

    Raises:
        ValueError: there is no such version, or none is in force that could be taken back.
    """
    numbers = [NONE_IN_FORCE, *(one.number for one in history.versions)]
    if to is None:
        earlier = [number for number in numbers if number < history.in_force]
        if not earlier:
            raise ValueError("no calibration is in force")
        to = earlier[-1]
    if to not in numbers:
        raise ValueError(f"there is no version {to}; known: {', '.join(map(str, numbers))}")
    return History(to, history.versions)


def line_of(history: History, manifest: Manifest) -> Line:
    """Return the line in force; the identity where there is none or it belongs to other weights."""
    current = history.current
    if current is None or not current.calibration.belongs_to(manifest):
        return IDENTITY
    return Line(current.calibration.slope, current.calibration.offset)


def calibrated(complexity: Complexity, history: History | None, manifest: Manifest) -> Complexity:
    """Return what the tenant's calibration makes of `complexity`; the source names the version."""
    if history is None or history.current is None or not history.current.calibration.belongs_to(manifest):
        return complexity
    p = complexity.p_small_suffices
    shifted = probability(np.array([line_of(history, manifest).at(float(log_odds(np.array([p]))[0]))]))
    return msgspec.structs.replace(
        complexity,
        p_small_suffices=float(shifted[0]),
        source=f"{complexity.source};calibration:{history.in_force}",
    )


def uncalibrated(p: NDArray[np.float64], line: Line) -> NDArray[np.float64]:
    """Return what the weights alone said where `line` made `p` of it; a flat line tells nothing, and p is kept."""
    if line.slope <= 0.0:
        return p
    return probability((log_odds(p) - line.offset) / line.slope)


def read_histories(path: Path) -> dict[str, History]:
    """Read every tenant's history; empty where there is no file yet.

    Raises:
        ConfigurationError: the file cannot be read or is none of ours.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, History])
    except FileNotFoundError:
        return {}
    except OSError as problem:
        mend = "check the path and its rights"
        raise ConfigurationError(str(path), "", problem.strerror or "cannot be read", mend) from problem
    except msgspec.DecodeError as problem:
        mend = "restore it from a backup, or remove it to begin anew"
        raise ConfigurationError(str(path), "", f"holds no calibrations ({problem})", mend) from problem


def histories_text(histories: Histories) -> str:
    """Return the file's content, for people to read and review."""
    return msgspec.json.format(msgspec.json.encode(histories)).decode() + "\n"
