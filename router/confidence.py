"""A bound on a mean that holds at all times at once, so that one may look after each outcome and stop at will.

The empirical Bernstein confidence sequence with predictable plug-in of Waudby-Smith and Ramdas, "Estimating means of
bounded random variables by betting" (JRSS B 2024), theorem 2. It needs no model of the outcomes, only their range and
that each one's mean, given those before, is the mean in question.
"""

import math

import msgspec

MOST_STAKE = 0.75
"""Exploring makes the range wide and most outcomes small, for which .5, the paper's example, is slow."""


class Bound(msgspec.Struct):
    """Sums over outcomes in [-reach, reach]; a few numbers, however many outcomes there were."""

    reach: float
    rows: int = 0
    total: float = 0.0
    _stakes: float = 0.0
    _staked: float = 0.0
    _penalty: float = 0.0
    _scaled: float = 0.5
    _spread: float = 0.25

    def note(self, value: float, alpha: float) -> None:
        """Take one outcome in; the same `alpha` in every call.

        Raises:
            ValueError: it lies outside the range.
        """
        if not abs(value) <= self.reach * (1.0 + 1e-9):
            raise ValueError(f"{value} is beyond {self.reach}")
        at = self.rows + 1
        scaled = (value / self.reach + 1.0) / 2.0
        mean, variance = self._scaled / at, self._spread / at
        stake = min(MOST_STAKE, math.sqrt(2.0 * math.log(2.0 / alpha) / (variance * at * math.log(1.0 + at))))
        self._stakes += stake
        self._staked += stake * scaled
        self._penalty += (scaled - mean) ** 2 * (-math.log1p(-stake) - stake)
        self._scaled += scaled
        self._spread += (scaled - self._scaled / (at + 1)) ** 2
        self.rows, self.total = at, self.total + value

    @property
    def mean(self) -> float:
        """Return the mean of the outcomes, 0 before the first."""
        return self.total / self.rows if self.rows else 0.0

    def interval(self, alpha: float) -> tuple[float, float]:
        """Return where the mean lies, with probability 1 - alpha at all times together."""
        if not self.rows:
            return -self.reach, self.reach
        centre = self._staked / self._stakes
        width = (math.log(2.0 / alpha) + self._penalty) / self._stakes
        low, high = max(0.0, centre - width), min(1.0, centre + width)
        return (2.0 * low - 1.0) * self.reach, (2.0 * high - 1.0) * self.reach
