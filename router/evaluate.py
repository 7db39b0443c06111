"""Measure a router against known outcomes: what quality it keeps for how many large calls, and whether p is honest.

Definitions follow RouteLLM (arXiv 2406.18665, section 3.3). With s and l the mean scores of the small and the large
model and Q(c) the mean score when the share c of the prompts (those with the least P(small suffices)) goes to large:

    PGR(c) = (Q(c) - s) / (l - s)      APGR = integral of PGR over c in [0, 1]      CPT(x) = least c with PGR(c) >= x

The curve is exact (one point per distinct score, ties broken at random in expectation); RouteLLM takes ten bins.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Known results of both models on n prompts.

    Attributes:
        p_small: (n,) P(small suffices) as the router says, in [0, 1].
        small: (n,) scores of the small model.
        large: (n,) scores of the large model.
    """

    p_small: Doubles
    small: Doubles
    large: Doubles

    @property
    def small_suffices(self) -> NDArray[np.bool_]:
        """Return where the small model was at least as good ("both wrong" counts: escalating would buy nothing)."""
        return self.small >= self.large

    def take(self, rows: NDArray[np.intp]) -> "Outcomes":
        """Return the given rows, in the given order."""
        return Outcomes(self.p_small[rows], self.small[rows], self.large[rows])


@dataclass(frozen=True, slots=True)
class Figures:
    """The measures of one router on one set; shares and probabilities in [0, 1], NaN where undefined."""

    apgr: float
    cpt50: float
    cpt80: float
    auc: float
    ece: float
    brier: float
    large_share_at_95: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A bootstrap interval of one measure."""

    low: float
    high: float


def measure(outcomes: Outcomes) -> Figures:
    """Compute all measures of one set of outcomes in O(n log n)."""
    share, quality = quality_curve(outcomes)
    return Figures(
        apgr=apgr(outcomes),
        cpt50=call_share(outcomes, 0.5),
        cpt80=call_share(outcomes, 0.8),
        auc=auc(outcomes.p_small, outcomes.small_suffices),
        ece=expected_calibration_error(outcomes.p_small, outcomes.small_suffices),
        brier=brier(outcomes.p_small, outcomes.small_suffices),
        large_share_at_95=_first_crossing(share, quality, 0.95 * float(outcomes.large.mean())),
    )


def quality_curve(outcomes: Outcomes) -> tuple[Doubles, Doubles]:
    """Return (share of large calls, mean score) from share 0 to 1; rows of equal score form one straight piece."""
    order = np.argsort(outcomes.p_small, kind="stable")
    gain = np.cumsum((outcomes.large - outcomes.small)[order])
    ranked = outcomes.p_small[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    n = len(ranked)
    share = np.concatenate(([0.0], (ends + 1) / n))
    return share, outcomes.small.mean() + np.concatenate(([0.0], gain[ends] / n))


def apgr(outcomes: Outcomes) -> float:
    """Return the mean performance gap recovered: .5 for a random router; NaN when the large model is not better."""
    gap = float(outcomes.large.mean() - outcomes.small.mean())
    if gap <= 0.0:
        return float("nan")
    share, quality = quality_curve(outcomes)
    return float(np.trapezoid((quality - outcomes.small.mean()) / gap, share))


def call_share(outcomes: Outcomes, recovered: float) -> float:
    """Return CPT(`recovered`), the least share of large calls that recovers this share of the gap."""
    small, large = float(outcomes.small.mean()), float(outcomes.large.mean())
    share, quality = quality_curve(outcomes)
    return _first_crossing(share, quality, small + recovered * (large - small))


def _first_crossing(share: Doubles, quality: Doubles, wanted: float) -> float:
    """Return the first share, interpolated, at which `quality` reaches `wanted`; 1 when it never does."""
    reached = np.flatnonzero(quality >= wanted - 1e-12)
    if not reached.size:
        return 1.0
    at = int(reached[0])
    if at == 0:
        return 0.0
    rise = quality[at] - quality[at - 1]
    return float(share[at - 1] + (share[at] - share[at - 1]) * (wanted - quality[at - 1]) / rise)


def auc(p: Doubles, positive: NDArray[np.bool_]) -> float:
    """Return the probability that a positive row scores above a negative one, ties half; NaN with one class only."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(mean_rank[inverse][positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def expected_calibration_error(p: Doubles, positive: NDArray[np.bool_], bins: int = 10) -> float:
    """Return the mean gap between p and the observed share over `bins` equally wide bins, weighted by their rows."""
    index = np.minimum((p * bins).astype(np.intp), bins - 1)
    gaps = np.abs(np.bincount(index, p - positive, bins))
    return float(gaps.sum() / len(p))


def brier(p: Doubles, positive: NDArray[np.bool_]) -> float:
    """Return the mean squared error of p."""
    return float(np.mean((p - positive) ** 2))


def bootstrap(
    outcomes: Outcomes, statistic: Callable[[Outcomes], float], *, rounds: int = 500, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return the percentile interval of `statistic` over rows drawn with replacement; NaN rounds are left out."""
    rng = np.random.default_rng(seed)
    n = len(outcomes.p_small)
    values = np.array([statistic(outcomes.take(rng.integers(0, n, n))) for _ in range(rounds)])
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
