"""How many requests a deployment takes at a time: what the operator says, or what its refusals teach.

Without `max_concurrency` there is no limit until the deployment says that it has too much (429, 503,
529). Then the limit is 70 % of what was under way, grows by one per limit's worth of successes while it is used up
(additive increase, multiplicative decrease; Jacobson 1988), and is forgotten after two quiet minutes.
"""

import math
from dataclasses import dataclass

DECREASE = 0.7
SIGNAL_EVERY_S = 1.0
FORGET_S = 120.0
LEAST_HOLD_S = 0.001
SPARE_SHARE = 0.1
RATE_MEMORY = 0.1


@dataclass(slots=True)
class Gate:
    """The slots of one deployment."""

    max_concurrency: int | None = None
    taken: int = 0
    usual_hold_s: float | None = None
    _freed_s: float = math.inf
    _learned: float | None = None
    _signal_s: float = -math.inf

    def limit(self, now_s: float) -> int | None:
        """Return how many slots there are, None for any number."""
        if self._learned is not None and now_s - self._signal_s > FORGET_S:
            self._learned = None
        if self._learned is None:
            return self.max_concurrency
        learned = max(1, int(self._learned))
        return learned if self.max_concurrency is None else min(self.max_concurrency, learned)

    def has_room(self, now_s: float, *, is_batch: bool) -> bool:
        """Tell whether a slot is free; a tenth of them is kept from batch."""
        limit = self.limit(now_s)
        if limit is None:
            return True
        return self.taken < (limit - int(limit * SPARE_SHARE) if is_batch else limit)

    def take(self) -> None:
        """Take a slot, whether or not one is free."""
        self.taken += 1

    def give_back(self, held_s: float, now_s: float) -> None:
        """Give a slot back that was held for so long."""
        self.taken -= 1
        self._freed_s = now_s
        held_s = max(LEAST_HOLD_S, held_s)
        known = self.usual_hold_s
        self.usual_hold_s = held_s if known is None else known + RATE_MEMORY * (held_s - known)

    def per_s(self, now_s: float) -> float:
        """Return how many slots come free in a second when all are used; infinite without a limit.

        When none has come free for longer than is usual, all are held for at least as long.
        """
        limit = self.limit(now_s)
        if limit is None or self.usual_hold_s is None:
            return math.inf
        return limit / max(self.usual_hold_s, now_s - self._freed_s)

    def too_much(self, now_s: float) -> None:
        """Note that the deployment was asked for more than it can do."""
        if now_s - self._signal_s >= SIGNAL_EVERY_S:
            self._learned = max(1.0, DECREASE * max(1, self.taken))
        self._signal_s = now_s

    def succeeded(self) -> None:
        """Note a success; while all learned slots are used, there may be more."""
        if self._learned is not None and self.taken + 1 >= int(self._learned):
            self._learned += 1.0 / self._learned
