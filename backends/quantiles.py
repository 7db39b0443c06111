"""Quantiles of recent values in bounded memory: counts in logarithmic buckets, of which old ones weigh less.

A bucket spans 10 %, so a quantile is within 5 % of the truth. Weights grow with time instead of being decayed one by
one (forward decay; Cormode, Shkapenyuk, Srivastava, Xu: "Forward Decay", ICDE 2009), so adding costs one addition.
"""

import math

GROWTH = 1.1
SMALLEST = 0.01
BUCKETS = 192
MAX_EXPONENT = 50.0
_LOG_GROWTH = math.log(GROWTH)
_VALUES: tuple[float, ...] = tuple(SMALLEST * GROWTH ** (at + 0.5) for at in range(BUCKETS))
"""What the values of each bucket are taken to be."""


class _Mark:
    """The bucket that a quantile lies in, and the weight of those below it; both follow what is added."""

    __slots__ = ("at", "below")

    def __init__(self) -> None:
        self.at = 0
        self.below = 0.0


class DecayingQuantiles:
    """A sketch of non-negative values between 0.01 and 0.01 * 1.1^192 (about 900,000), newest weighing most."""

    __slots__ = ("_counts", "_half_life_s", "_marks", "_origin_s", "_total")

    def __init__(self, half_life_s: float) -> None:
        """Forget half of what was seen in `half_life_s` seconds."""
        self._half_life_s = half_life_s
        self._counts = [0.0] * BUCKETS
        self._total = 0.0
        self._origin_s = 0.0
        self._marks: dict[float, _Mark] = {}

    def add(self, value: float, now_s: float) -> None:
        """Take one value, seen at the monotonic moment `now_s`."""
        exponent = (now_s - self._origin_s) / self._half_life_s
        if exponent > MAX_EXPONENT:
            self._move_origin(now_s, exponent)
            exponent = 0.0
        weight = 2.0**exponent
        at = 0 if value <= SMALLEST else int(math.log(value / SMALLEST) / _LOG_GROWTH)
        if at >= BUCKETS:
            at = BUCKETS - 1
        self._counts[at] += weight
        self._total += weight
        for mark in self._marks.values():
            if at < mark.at:
                mark.below += weight

    def weight(self, now_s: float) -> float:
        """Return how many values are remembered, an old one counting as the part that is left of it."""
        if self._total == 0.0:
            return 0.0
        age = (now_s - self._origin_s) / self._half_life_s
        return self._total / math.pow(2.0, age if age < 1_000.0 else 1_000.0)

    def quantile(self, q: float) -> float:
        """Return the value that the share `q` in (0, 1] of the weight lies at or below; 0 when nothing was added.

        It is sought from where it was found last: one more value moves it by a bucket or two.
        """
        if self._total == 0.0:
            return 0.0
        mark = self._marks.get(q)
        if mark is None:
            mark = self._marks[q] = _Mark()
        counts, at, below = self._counts, mark.at, mark.below
        wanted = q * self._total * (1 - 1e-9)
        while at and below >= wanted:
            at -= 1
            below -= counts[at]
        while at < BUCKETS - 1 and below + counts[at] < wanted:
            below += counts[at]
            at += 1
        mark.at, mark.below = at, below if at else 0.0
        return _VALUES[at]

    def _move_origin(self, now_s: float, exponent: float) -> None:
        """Express all weights relative to now, before they outgrow a float."""
        scale = 2.0 ** -min(exponent, 1_000.0)
        self._counts = [count * scale for count in self._counts]
        self._total *= scale
        self._origin_s = now_s
        self._marks.clear()
