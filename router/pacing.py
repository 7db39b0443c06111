"""Pace a budget through its window by a shadow price on money: dual ascent, bounded, on what each request costs.

    allowed = what may still be spent / requests still to come
    price  += STEP * (cost - allowed) / extra,  kept within [0, MAX_PRICE]

`extra` is what sending a request up costs on average, so the price is the gain in predicted quality that such a step
must bring. A request counts at its expected cost when it is planned, and is put right when it is settled. The requests
still to come are those of the last as long: with an hour left, of the last hour (exponential means over lengths of
4 s to 49 days). Some of the limit, `LEAST_ROOM` to `MOST_ROOM`, is left as room for the worst cases of what is in
flight, which are held until they settle: without it the last requests of a window would be refused.

Each of several replicas paces an equal part of what is left by its own requests.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass, field

import msgspec

from core.money import NANO_PER_USD
from core.plan import Spending

STEP = 0.02
MAX_PRICE = 4.0
MAX_EXCESS = 10.0
"""In extras; one request of enormous cost does not throw the price to its bound."""
LEAST_ROOM, MOST_ROOM = 0.004, 0.007
LEAST_SEEN = 20
LEAST_KNOWN_RATIO = 0.1
"""Of a length of time; a burst of a newcomer is spread over as much of the window, not taken for its normal traffic."""
EXTRA_RATE = 0.01
ROLLING_GAIN = 4.0
HORIZONS_S = tuple(4.0**power for power in range(1, 12))
TICK_S = 0.01
"""Requests of one tick count as simultaneous, which is 0.25 % of the shortest length of time."""
_DECAYS_PER_S = tuple(-1.0 / horizon_s for horizon_s in HORIZONS_S)


class Planned(msgspec.Struct, frozen=True, gc=False):
    """What is assumed of a request: its cost, what it holds, and what sending it up would add to the cheapest."""

    expected_nano_usd: int
    worst_case_nano_usd: int
    extra_nano_usd: int


@dataclass(slots=True)
class Arrivals:
    """How many requests came per second, over several lengths of time at once; times are seconds since the epoch.

    `counts` are as of `last_s`; `fresh` came since then, less than a tick ago, and count in full.
    """

    since_s: float = 0.0
    last_s: float = 0.0
    seen: int = 0
    counts: list[float] = field(default_factory=lambda: [0.0] * len(HORIZONS_S))
    fresh: int = 0

    def note(self, now_s: float) -> None:
        """Count one request."""
        if not self.seen:
            self.since_s = self.last_s = now_s
        passed_s = now_s - self.last_s
        if passed_s >= TICK_S:
            exp, fresh = math.exp, self.fresh
            self.counts = [
                (count + fresh) * exp(passed_s * rate) for count, rate in zip(self.counts, _DECAYS_PER_S, strict=True)
            ]
            self.last_s, self.fresh = now_s, 0
        self.fresh += 1
        self.seen += 1

    def expected(self, ahead_s: float) -> float:
        """Return how many requests the next `ahead_s` seconds will bring, at least 1."""
        at = min(bisect_left(HORIZONS_S, ahead_s / 2), len(HORIZONS_S) - 1)
        horizon_s = HORIZONS_S[at]
        known_ratio = max(LEAST_KNOWN_RATIO, -math.expm1(-(self.last_s - self.since_s) / horizon_s))
        return max(1.0, ahead_s * (self.counts[at] + self.fresh) / (horizon_s * known_ratio))


@dataclass(slots=True)
class Pace:
    """One budget's shadow price, as the gain in quality that a step up must bring, and what it is made from."""

    price: float = 0.0
    extra_nano_usd: float = 0.0
    in_flight_nano_usd: int = 0
    held_nano_usd: int = 0
    arrivals: Arrivals = field(default_factory=Arrivals)

    @property
    def price_per_usd(self) -> float:
        """Return the gain in predicted quality that one more USD must bring."""
        return self.price * NANO_PER_USD / self.extra_nano_usd if self.price and self.extra_nano_usd else 0.0

    def note(self, spending: Spending, planned: Planned, now_s: float, replicas: int) -> None:
        """Take a planned request into account."""
        self.arrivals.note(now_s)
        if planned.extra_nano_usd:
            rate = EXTRA_RATE if self.extra_nano_usd else 1.0
            self.extra_nano_usd += rate * (planned.extra_nano_usd - self.extra_nano_usd)
        self.held_nano_usd += planned.worst_case_nano_usd
        if self.extra_nano_usd and self.arrivals.seen > LEAST_SEEN:
            self._ascend(planned.expected_nano_usd - self.allowed_nano_usd(spending, now_s, replicas))
        self.in_flight_nano_usd += planned.expected_nano_usd

    def settle(self, planned: Planned, cost_nano_usd: int) -> None:
        """Put what was expected right."""
        self.in_flight_nano_usd = max(0, self.in_flight_nano_usd - planned.expected_nano_usd)
        self.held_nano_usd = max(0, self.held_nano_usd - planned.worst_case_nano_usd)
        if self.extra_nano_usd and self.arrivals.seen > LEAST_SEEN:
            self._ascend(cost_nano_usd - planned.expected_nano_usd)

    def allowed_nano_usd(self, spending: Spending, now_s: float, replicas: int) -> float:
        """Return what a request may cost on average from now on, so that the window ends at its limit.

        A rolling window has no end: there it is the limit over its length, more while less than that is spent.
        """
        limit = spending.limit_nano_usd
        in_flight = self.in_flight_nano_usd * replicas
        held = self.held_nano_usd * replicas
        usable = limit - min(MOST_ROOM * limit, max(LEAST_ROOM * limit, held - in_flight))
        left = usable - spending.spent_nano_usd - in_flight
        if spending.rolling:
            left = usable + ROLLING_GAIN * left
        left_s = max(0.001, spending.ends_at.timestamp() - now_s)
        return max(0.0, left) / (self.arrivals.expected(left_s) * replicas)

    def _ascend(self, over_nano_usd: float) -> None:
        """Move the price; while no request could have been sent up, there is none to move."""
        excess = min(MAX_EXCESS, max(-MAX_EXCESS, over_nano_usd / self.extra_nano_usd))
        self.price = min(MAX_PRICE, max(0.0, self.price + STEP * excess))
