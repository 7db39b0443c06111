"""Refit the probabilities of a pair to the outcomes of one's own traffic, and say whether held-back outcomes agree.

Two numbers are fitted (Platt scaling of the log-odds), drawn towards "no change" by a prior worth PRIOR_ROWS outcomes,
so that a few hundred outcomes suffice and a handful changes little. The cross-validated Brier score tells whether it
helps; on 200 outcomes that comparison is itself uncertain, and fitting always came out with the lower calibration
error on sets never seen (.035 against .040 when it had to pass; benchmarks/results/router_calibration.json).
"""

import math
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigurationError
from router.weights import Line, Manifest

PRIOR_ROWS = 4.0
MIN_ROWS = 30
FOLDS = 5

Doubles = NDArray[np.float64]


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line on the log-odds of one weight set, with the Brier score without it and, on held-back outcomes, with it."""

    pair: str
    weights_sha256: str
    slope: float
    offset: float
    rows: int
    brier_before: float
    brier_after: float

    @property
    def improves(self) -> bool:
        """Tell whether held-back outcomes agree better with it than without."""
        return self.brier_after < self.brier_before

    def belongs_to(self, manifest: Manifest) -> bool:
        """Tell whether it was fitted to the scores of these weights."""
        return (self.pair, self.weights_sha256) == (manifest.pair, manifest.weights_sha256)

    def check(self, manifest: Manifest) -> None:
        """Refuse weights other than those this was fitted to.

        Raises:
            ConfigurationError: pair or digest differ.
        """
        if not self.belongs_to(manifest):
            raise ConfigurationError(
                f"calibration of {self.pair}@{self.weights_sha256[:8]}",
                "weights_sha256",
                f"does not belong to {manifest.pair}@{manifest.weights_sha256[:8]}",
                "run `headgate route calibrate` again",
            )


def read_calibration(path: Path) -> Calibration:
    """Read a calibration file.

    Raises:
        ConfigurationError: the file is missing or not a calibration.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Calibration)
    except OSError as problem:
        raise ConfigurationError(str(path), "", "cannot be read", "name an existing calibration file") from problem
    except msgspec.DecodeError as problem:
        mend = "make it with `headgate route calibrate`"
        raise ConfigurationError(str(path), "", f"not a calibration ({problem})", mend) from problem


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration file that people can read and review."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(calibration)) + b"\n")


def fit_calibration(manifest: Manifest, p_small: Doubles, suffices: NDArray[np.bool_]) -> Calibration:
    """Fit a line to outcomes; the identity below MIN_ROWS.

    Args:
        manifest: of the weights that made `p_small`.
        p_small: (n,) uncalibrated P(small suffices).
        suffices: (n,) whether the small model was at least as good.
    """
    x = log_odds(p_small)
    line, before = Line(1.0, 0.0), float(np.mean((p_small - suffices) ** 2))
    after = before
    if len(x) >= MIN_ROWS:
        line, after = fit_line(x, suffices), float(np.mean((_held_back(x, suffices) - suffices) ** 2))
    return Calibration(
        pair=manifest.pair,
        weights_sha256=manifest.weights_sha256,
        slope=line.slope,
        offset=line.offset,
        rows=len(x),
        brier_before=before,
        brier_after=after,
    )


def brier_of(line: Line, p_small: Doubles, suffices: NDArray[np.bool_]) -> float:
    """Return the mean squared error of what `line` makes of (n,) probabilities."""
    p = probability(line.slope * log_odds(p_small) + line.offset)
    return float(np.mean((p - suffices) ** 2))


def _held_back(x: Doubles, suffices: NDArray[np.bool_]) -> Doubles:
    """Return each row's probability by a line that was fitted to the other folds."""
    p = np.empty_like(x)
    fold = np.random.default_rng(0).permutation(len(x)) % FOLDS
    for k in range(FOLDS):
        line = fit_line(x[fold != k], suffices[fold != k])
        p[fold == k] = probability(line.slope * x[fold == k] + line.offset)
    return p


def fit_line(
    x: Doubles,
    positive: NDArray[np.bool_] | Doubles,
    *,
    prior_rows: float = PRIOR_ROWS,
    weights: Doubles | None = None,
    beside: Doubles | None = None,
) -> Line:
    """Fit log-odds = slope * x + offset + beside by Newton steps, with a prior around (1, 0) worth `prior_rows` rows.

    The slope never goes below 0: a router that is worse than random is flattened, not turned round.
    """
    w = np.ones_like(x) if weights is None else weights
    given = np.zeros_like(x) if beside is None else beside
    design = np.column_stack([x, np.ones_like(x)])
    prior = np.array([1.0, 0.0])
    precision = np.diag([max(float(np.var(x)), 0.1), 1.0]) * prior_rows / 4.0 + 1e-6 * np.eye(2)

    def loss(beta: Doubles) -> float:
        z = design @ beta + given
        return float(
            (w * (np.logaddexp(0.0, z) - positive * z)).sum() + (beta - prior) @ precision @ (beta - prior) / 2
        )

    beta = prior.copy()
    for _ in range(100):
        p = probability(design @ beta + given)
        gradient = design.T @ (w * (p - positive)) + precision @ (beta - prior)
        curvature = (design * (w * p * (1.0 - p))[:, None]).T @ design + precision
        step = np.linalg.solve(curvature, gradient)
        while loss(beta - step) > loss(beta) and float(np.abs(step).max()) > 1e-12:
            step = step / 2.0
        beta = beta - step
        if float(np.abs(step).max()) < 1e-9:
            break
    if beta[0] >= 0.0:
        return Line(float(beta[0]), float(beta[1]))
    share = min(max(float(np.average(positive, weights=w)), 1e-3), 1.0 - 1e-3)
    return Line(0.0, math.log(share / (1.0 - share)))


def log_odds(p: Doubles) -> Doubles:
    """Return log(p / (1 - p)) of probabilities strictly between 0 and 1."""
    return np.log(p) - np.log1p(-p)


def probability(x: Doubles) -> Doubles:
    """Return 1 / (1 + exp(-x)), safe for large x."""
    return 1.0 / (1.0 + np.exp(-np.clip(x, -30.0, 30.0)))
