"""How much rescue may cost: retries as a share of requests, hedges as a share of requests and of money.

Without such bounds a slow upstream is sent more requests just when it can take fewer, and retries of clients, gateway
and engines multiply. Both budgets allow a burst, so that the first minute of trouble is not refused its rescue.
"""

import math
from dataclasses import dataclass

BURST = 20.0
HALF_LIFE_S = 600.0


@dataclass(frozen=True, slots=True)
class RescueRules:
    """What the operator allows; 0 switches a rescue off.

    Attributes:
        retry_ratio: retries per request, of the same deployment.
        hedge_ratio: hedges per request.
        hedge_cost_ratio: what hedges may cost, as a share of what everything costs.
        max_retries: retries of one request.
    """

    retry_ratio: float = 0.1
    hedge_ratio: float = 0.05
    hedge_cost_ratio: float = 0.05
    max_retries: int = 2


NO_RESCUE = RescueRules(retry_ratio=0.0, hedge_ratio=0.0)


class ShareBudget:
    """A token bucket that each request fills by `ratio` and each use empties by 1; it begins full."""

    def __init__(self, ratio: float, burst: float = BURST) -> None:
        self._ratio = ratio
        self._burst = burst if ratio > 0 else 0.0
        self._tokens = self._burst

    def request(self) -> None:
        """Count one request."""
        if self._tokens < self._burst:
            self._tokens = min(self._burst, self._tokens + self._ratio)

    @property
    def has_room(self) -> bool:
        """Tell whether one more use is allowed."""
        return self._tokens >= 1.0

    def use(self) -> bool:
        """Take one use, or return False."""
        if not self.has_room:
            return False
        self._tokens -= 1.0
        return True


class MoneyBudget:
    """Holds what hedges cost to a share of what all attempts cost lately, beyond a burst of `BURST` usual requests."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._at_s = 0.0
        self._requests = 0.0
        self._total_nano_usd = 0.0
        self._hedges_nano_usd = 0.0

    def spent(self, nano_usd: int, now_s: float, *, by_hedge: bool) -> None:
        """Count what an attempt cost; of an attempt and its hedge, the one that lost is what the hedge cost."""
        keep = math.pow(0.5, min(1_000.0, (now_s - self._at_s) / HALF_LIFE_S))
        self._at_s = now_s
        self._requests = self._requests * keep + (not by_hedge)
        self._total_nano_usd = self._total_nano_usd * keep + nano_usd
        self._hedges_nano_usd = self._hedges_nano_usd * keep + (nano_usd if by_hedge else 0)

    def allows(self, nano_usd: float) -> bool:
        """Tell whether a hedge of about this cost stays within the share."""
        own_nano_usd = self._total_nano_usd - self._hedges_nano_usd
        usual_nano_usd = own_nano_usd / self._requests if self._requests else 0.0
        room = self._ratio * self._total_nano_usd + BURST * max(usual_nano_usd, nano_usd)
        return self._hedges_nano_usd + nano_usd <= room
