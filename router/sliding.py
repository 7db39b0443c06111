"""Keep a mean at its target by a sliding quantile of a tenant's recent scores: no threshold carries over, this moves.

What is kept is the mean use of a resource per request: 1 for a request to a tier above the cheapest (a share), or
nano-USD (a mean cost). Every request has a base, which it uses in any case, and an extra, which it uses when it is
sent up. Of the last `WINDOW` requests, those that control may decide are ranked by score, and the floor is the score
below which just so many lie that base and extra together meet the target:

    share sent up = (target * requests - sum of bases) / sum of extras + GAIN * debt
    floor         = that quantile of the scores

`debt` is what was used less than the target since the start, in extras, clipped to 1 / GAIN: it makes up for ties in
the scores, for requests that others decided, and for a mix that has just shifted.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from typing import NamedTuple

WINDOW = 500
"""Requests; a mix that shifts has left the window after as many (benchmarks/results/router_control.json)."""
GAIN = 0.02
"""Of the share, per request of debt: the debt settles within some 50 requests and moves the rank by 5 points."""
FIRST_GAIN = 4.0
"""GAIN times requests while few were seen: their quantile says little yet, so the debt leads."""
MAX_DEBT = 1.0 / GAIN


class Seen(NamedTuple):
    """One past request: P(small suffices), None where control had no say, and what it uses."""

    score: float | None
    base: int
    extra: int


class Slider:
    """One tenant's window; deterministic, a few microseconds a request."""

    def __init__(self) -> None:
        self._window: deque[Seen] = deque()
        self._ranked: list[float] = []
        self._base = 0
        self._extra = 0
        self.debt = 0.0

    @property
    def window(self) -> tuple[Seen, ...]:
        """Return the requests in view, oldest first."""
        return tuple(self._window)

    def floor(self, target: int | float) -> float | None:
        """Return the least score that stays at the cheapest tier; None before anything was seen."""
        if not self._ranked:
            return None
        share = max(GAIN, FIRST_GAIN / len(self._window)) * self.debt
        if self._extra:
            share += (target * len(self._window) - self._base) / self._extra
        at = math.floor(share * len(self._ranked))
        if at <= 0:
            return 0.0
        if at >= len(self._ranked):
            highest = self._ranked[-1]
            return max(math.nextafter(highest, math.inf), highest + (1.0 - highest) * min(1.0, share - 1.0))
        return self._ranked[at]

    def note(self, seen: Seen, used: int, target: int | float, *, may_owe: bool = True) -> None:
        """Take a request into the window and its use into account.

        Args:
            seen: the request.
            used: what it is expected to use.
            target: what it should use on average.
            may_owe: whether using less is made up for later; not where money or health kept it down.
        """
        self.put(seen)
        if used > target or may_owe:
            self.correct(target - used)

    def put(self, seen: Seen) -> None:
        """Take a request into the window alone, and drop the oldest."""
        self._window.append(seen)
        self._count(seen, 1)
        if seen.score is not None:
            insort(self._ranked, seen.score)
        if len(self._window) > WINDOW:
            old = self._window.popleft()
            self._count(old, -1)
            if old.score is not None:
                del self._ranked[bisect_left(self._ranked, old.score)]

    def correct(self, unused: int | float) -> None:
        """Take into account that a request used that much less than was assumed."""
        if self._extra:
            owed = self.debt + unused * len(self._ranked) / self._extra
            self.debt = min(MAX_DEBT, max(-MAX_DEBT, owed))

    def _count(self, seen: Seen, sign: int) -> None:
        self._base += sign * seen.base
        self._extra += sign * seen.extra
