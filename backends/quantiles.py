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


class DecayingQuantiles:
    """A sketch of non-negative values between 0.01 and 0.01 * 1.1^192 (about 900,000), newest weighing most."""

    __slots__ = ("_cached", "_counts", "_half_life_s", "_origin_s", "_total")

    def __init__(self, half_life_s: float) -> None:
        """Forget half of what was seen in `half_life_s` seconds."""
        self._half_life_s = half_life_s
        self._counts = [0.0] * BUCKETS
        self._total = 0.0
        self._origin_s = 0.0
        self._cached: dict[float, float] = {}

    def add(self, value: float, now_s: float) -> None:
        """Take one value, seen at the monotonic moment `now_s`."""
        exponent = (now_s - self._origin_s) / self._half_life_s
        if exponent > MAX_EXPONENT:
            self._move_origin(now_s, exponent)
            exponent = 0.0
        weight = 2.0**exponent
        at = 0 if value <= SMALLEST else int(math.log(value / SMALLEST) / _LOG_GROWTH)
        self._counts[min(at, BUCKETS - 1)] += weight
        self._total += weight
        self._cached.clear()

    def weight(self, now_s: float) -> float:
        """Return how many values are remembered, an old one counting as the part that is left of it."""
        if self._total == 0.0:
            return 0.0
        age = min(1_000.0, (now_s - self._origin_s) / self._half_life_s)
        return self._total / math.pow(2.0, age)

    def quantile(self, q: float) -> float:
        """Return the value that the share `q` of the weight lies at or below; 0 when nothing was added."""
        known = self._cached.get(q)
        if known is None:
            known = self._cached[q] = self._walk(q)
        return known

    def _walk(self, q: float) -> float:
        wanted, seen = q * self._total, 0.0
        if self._total == 0.0:
            return 0.0
        for at, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted * (1 - 1e-9):
                return float(SMALLEST * GROWTH ** (at + 0.5))
        return float(SMALLEST * GROWTH ** (BUCKETS - 0.5))

    def _move_origin(self, now_s: float, exponent: float) -> None:
        """Express all weights relative to now, before they outgrow a float."""
        scale = 2.0 ** -min(exponent, 1_000.0)
        self._counts = [count * scale for count in self._counts]
        self._total *= scale
        self._origin_s = now_s
