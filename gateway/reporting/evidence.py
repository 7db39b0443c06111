"""Intervals that hold at every look: how much is saved and what quality costs, by the randomised holdout.

Money has no bound, so its interval is asymptotic: the confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and
Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences" (Annals of Statistics 2024), theorem
2.2, on the difference of both paths' means, with the influence variance s1^2 / p + s0^2 / (1 - p) of a randomised
experiment. Where the ratio changed, requests of one ratio are compared with each other and weighed by their number.

Scores lie in [0, 1], so theirs needs no limit: the predictable plug-in empirical-Bernstein confidence sequence of
Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS B 2024), theorem 2, one for
each path at half the error.

Both are valid at all times at once: looking every day, and stopping when the answer pleases, is allowed. That holds
from a fixed beginning (here the month's), not for a window that slides along.
"""

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

from gateway.telemetry.savings import Trials

ALPHA = 0.05
LEAST_HELD_OUT = 50
"""An asymptotic interval is told from so many held-out requests on."""
TUNED_FOR = 10_000
"""Requests at which the interval is tightest; it holds at any number."""
LEAST_RATED = 10


class Difference(Struct, frozen=True):
    """A difference between the policy's path and the baseline path with its interval.

    Without bounds there is not enough evidence yet; `routed` and `held_out` are how many each path has.
    """

    value: float | None
    low: float | None
    high: float | None
    routed: int
    held_out: int

    @property
    def is_enough(self) -> bool:
        """Whether there is an interval."""
        return self.low is not None


def saved_per_request(trials: Mapping[tuple[int, bool], Trials]) -> Difference:
    """Return what an eligible request costs less than on the baseline path, in nano-USD."""
    routed = sum(one.requests for (_, held), one in trials.items() if not held)
    held_out = sum(one.requests for (_, held), one in trials.items() if held)
    strata = []
    for ratio in {ratio for ratio, _ in trials}:
        here, there = trials.get((ratio, False)), trials.get((ratio, True))
        if here is not None and there is not None and here.requests > 1 and there.requests > 1:
            strata.append((here, there))
    if not strata:
        return Difference(None, None, None, routed, held_out)
    total = sum(here.requests + there.requests for here, there in strata)
    value = variance = 0.0
    for here, there in strata:
        count = here.requests + there.requests
        value += count / total * (_mean(there) - _mean(here))
        share = there.requests / count
        variance += count / total * (_variance(there) / share + _variance(here) / (1 - share))
    if held_out < LEAST_HELD_OUT:
        return Difference(value, None, None, routed, held_out)
    half = math.sqrt(variance) * _boundary(total)
    return Difference(value, value - half, value + half, routed, held_out)


def quality_difference(routed: Sequence[float], held_out: Sequence[float]) -> Difference:
    """Return the mean score of routed answers less that of held-out ones; scores in [0, 1] in their order."""
    counts = (len(routed), len(held_out))
    if min(counts) < LEAST_RATED:
        return Difference(None, None, None, *counts)
    (mean, low, high), (base, base_low, base_high) = (bounded_mean(one, ALPHA / 2) for one in (routed, held_out))
    return Difference(mean - base, max(-1.0, low - base_high), min(1.0, high - base_low), *counts)


def bounded_mean(values: Sequence[float], alpha: float) -> tuple[float, float, float]:
    """Return the mean of values in [0, 1] as they came, and bounds that hold at all times with 1 - `alpha`."""
    log_term = math.log(2 / alpha)
    mean, spread, bets, weighed, slack, total = 0.5, 0.25, 0.0, 0.0, 0.0, 0.0
    squares = 0.25
    for t, value in enumerate(values, 1):
        bet = min(0.5, math.sqrt(2 * log_term / (spread * t * math.log(1 + t))))
        slack += 4 * (value - mean) ** 2 * (-math.log(1 - bet) - bet) / 4
        bets += bet
        weighed += bet * value
        total += value
        mean = (0.5 + total) / (t + 1)
        squares += (value - mean) ** 2
        spread = squares / (t + 1)
    centre, half = weighed / bets, (log_term + slack) / bets
    return total / len(values), max(0.0, centre - half), min(1.0, centre + half)


def _boundary(requests: int) -> float:
    """Return by how many standard deviations of one request the mean of so many may be off at any time."""
    rho = (-2 * math.log(ALPHA) + math.log(1 - 2 * math.log(ALPHA))) / TUNED_FOR
    grown = requests * rho + 1
    return math.sqrt(2 * grown / (requests**2 * rho) * math.log(math.sqrt(grown) / ALPHA))


def _mean(path: Trials) -> float:
    return path.cost_nano_usd / path.requests


def _variance(path: Trials) -> float:
    return max(0.0, path.cost_squared / path.requests - _mean(path) ** 2) * path.requests / (path.requests - 1)
