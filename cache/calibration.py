"""The guard's probability as a small table of numbers, and thresholds on it that follow an upper confidence bound.

A threshold is safe for a rate when the upper end of the one-sided 97.5 % Clopper-Pearson interval of false hits /
requests, as counted on labelled requests with every score at or above it served, is at most the rate (Clopper and
Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 26, 1934).
Thresholds are tried from the strictest on and the first that fails ends the search, so trying several needs no
correction. The rate is promised with 95 %: half of the remaining 5 % is for the counted requests, the other half for
the requests to come, whose false hits bunch too (at 95 % and a rate of 0.3 %, 7 % of halves exceeded it; at 97.5 %,
3 %; benchmarks/results/cache_bound.json).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

from cache.evidence import NAMES, bounded_margin

SCHEMA = 1
SHIPPED = Path(__file__).with_name("guard_data") / "score.json"
DEFAULT_RATE = 0.005
CONFIDENCE = 0.95
CHOOSING_CONFIDENCE = 0.975
"""At which thresholds are chosen; `CONFIDENCE` is that of a proof that one is too low."""
NEVER = math.inf
_MARGIN = NAMES.index("margin")


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One threshold, with what was counted when every score at or above it was served, and the bound on the rate."""

    threshold: float
    false_hits: int
    requests: int
    bound: float


class ScoreFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The shipped manifest: coefficients by name of the evidence, and the calibration they came with."""

    schema: int
    encoder: str
    trained_on: str
    coefficients: dict[str, float]
    intercept: float
    steps: list[Step]


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """A logistic score over the evidence; `steps` go from the strictest threshold to the loosest."""

    coefficients: tuple[float, ...]
    intercept: float
    steps: tuple[Step, ...]
    encoder: str = ""

    def probability(self, evidence: Sequence[float]) -> float:
        """Return P(the answer may be served) in (0, 1)."""
        return _logistic(self.logit(evidence))

    def logit(self, evidence: Sequence[float]) -> float:
        """Return the log-odds of `probability`."""
        terms = (weight * value for weight, value in zip(self.coefficients, evidence, strict=True) if value)
        return self.intercept + sum(terms)

    def with_margin(self, logit: float, margin: float) -> float:
        """Return the probability for evidence of `logit` at margin 0, now with this margin."""
        return _logistic(logit + self.coefficients[_MARGIN] * bounded_margin(margin))

    def threshold(self, max_false_hit_rate: float) -> float:
        """Return the lowest threshold that is safe for the rate, `NEVER` when none is."""
        return threshold_for(self.steps, max_false_hit_rate)

    @property
    def default_threshold(self) -> float:
        """Return the threshold of the default rate."""
        return self.threshold(DEFAULT_RATE)


def _logistic(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-40.0, min(40.0, logit))))


@cache
def shipped_score() -> ScoreTable:
    """Return the table that comes with the product.

    Raises:
        ValueError: the file is of another schema or does not name this version's evidence.
    """
    return read_score(SHIPPED)


def read_score(path: Path) -> ScoreTable:
    """Read a manifest.

    Raises:
        ValueError: of another schema, or its names are not this version's evidence (names the file and the mend).
    """
    written = msgspec.json.decode(path.read_bytes(), type=ScoreFile)
    if written.schema != SCHEMA or set(written.coefficients) != set(NAMES):
        raise ValueError(f"{path.name}: made for another version of the guard; run benchmarks/train_guard.py")
    coefficients = tuple(written.coefficients[name] for name in NAMES)
    return ScoreTable(coefficients, written.intercept, tuple(written.steps), written.encoder)


def threshold_for(steps: Sequence[Step], max_false_hit_rate: float) -> float:
    """Return the last threshold before the first step whose bound passes the rate, `NEVER` when the first does."""
    found = NEVER
    for step in steps:
        if step.bound > max_false_hit_rate:
            break
        found = step.threshold
    return found


def calibrate(scores_of_false_hits: Iterable[float], requests: int, thresholds: Sequence[float]) -> tuple[Step, ...]:
    """Count false hits at or above each threshold and bound their rate; strictest first.

    Args:
        scores_of_false_hits: the scores of wrong candidates among `requests` labelled requests.
        requests: how many requests were labelled, hits or not.
        thresholds: candidates in any order, chosen without a look at these labels.
    """
    scores = sorted(scores_of_false_hits)
    steps = []
    for threshold in sorted(set(thresholds), reverse=True):
        false_hits = sum(score >= threshold for score in scores)
        steps.append(Step(threshold, false_hits, requests, upper_bound(false_hits, requests)))
    return tuple(steps)


def upper_bound(events: int, trials: int, confidence: float = CHOOSING_CONFIDENCE) -> float:
    """Return the upper end of the one-sided Clopper-Pearson interval of a rate, by bisection; 1 without trials."""
    if events >= trials:
        return 1.0
    low, high = events / trials, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        if _at_most(events, trials, middle) > 1.0 - confidence:
            low = middle
        else:
            high = middle
    return high


def lower_bound(events: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """Return the lower end of the one-sided Clopper-Pearson interval of a rate; 0 without trials."""
    return 0.0 if trials == 0 else 1.0 - upper_bound(trials - events, trials, confidence)


def _at_most(events: int, trials: int, rate: float) -> float:
    """Return P(at most `events`) of the binomial distribution, from logarithms so that nothing under- or overflows."""
    log_rate, log_rest = math.log(rate), math.log1p(-rate)
    whole = math.lgamma(trials + 1)
    return sum(
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * log_rate + (trials - k) * log_rest)
        for k in range(events + 1)
    )


def as_file(
    coefficients: Mapping[str, float], intercept: float, steps: Sequence[Step], encoder: str, trained_on: str
) -> bytes:
    """Encode a manifest, one value a line."""
    written = ScoreFile(SCHEMA, encoder, trained_on, dict(coefficients), intercept, list(steps))
    return msgspec.json.format(msgspec.json.encode(written), indent=1) + b"\n"
