"""A slice of budget that this process may grant from, and the purse that it was leased for: counting only, no I/O."""

from dataclasses import dataclass, field

from core.identity import Caller
from core.rules import TenantPolicy
from policies.ledger import Cost

BUSY_S = 1.0
"""A purse that misses twice within this time is worth a slice."""
LASTS_S = 0.5
"""How long a slice is meant to last."""
FIRST_REQUESTS, MOST_REQUESTS = 16, 16_384


@dataclass(slots=True, eq=False)
class Slice:
    """What this process may grant from, in nano-USD; all but `total` change as requests come and go.

    `version` counts changes and `told` is the newest one that Redis knows of.
    """

    slice_id: str
    purse: "Purse"
    lines: tuple[str, ...]
    total: int
    window_until_s: float
    lease_until_s: float
    is_active: bool = True
    held: int = 0
    spent: int = 0
    unconfirmed: int = 0
    by_tier: dict[str, int] = field(default_factory=dict)
    open: int = 0
    updates: int = 0
    version: int = 0
    told: int = 0
    told_at_s: float = 0.0

    @property
    def unused(self) -> int:
        """Return what can still be granted."""
        return self.total - self.held - self.spent

    def take(self, amount: int, now_s: float) -> bool:
        """Grant `amount` if it fits and the slice may still be used."""
        if not self.is_active or amount > self.total - self.held - self.spent:
            return False
        if now_s >= self.window_until_s or now_s >= self.lease_until_s:
            self.retire()
            return False
        self.held += amount
        self.open += 1
        self.version += 1
        return True

    def charge(self, amount: int, cost: Cost) -> None:
        """Book what a request has cost in place of what it held."""
        self.held -= amount
        self.spent += cost.total_nano_usd
        if self.purse.has_tiers:
            for tier in self.purse.tiers:
                self.by_tier[tier] = self.by_tier.get(tier, 0) + cost.in_tier(tier)
        self.version += 1

    def retire(self) -> None:
        """Grant nothing more; what is unused goes back with the next update."""
        if self.is_active:
            self.is_active = False
            self.version += 1

    @property
    def is_over(self) -> bool:
        """Tell whether nothing can happen to it any more."""
        return not self.is_active and not self.open


@dataclass(slots=True, eq=False)
class Purse:
    """One set of budgets and the slices leased for it."""

    policy: TenantPolicy
    caller: Caller
    tiers: frozenset[str]
    has_tiers: bool
    slices: list[Slice] = field(default_factory=list)
    requests: int = FIRST_REQUESTS
    missed_at_s: float = float("-inf")
    used_at_s: float = float("-inf")
    leased_at_s: float = float("-inf")
    denied_until_s: float = float("-inf")
    is_leasing: bool = False

    @property
    def runs_low(self) -> bool:
        """Tell whether all slices together have less left than a quarter of the newest."""
        return sum(one.unused for one in self.slices if one.is_active) < self.slices[-1].total >> 2

    def misses_often(self, now_s: float) -> bool:
        """Note a miss and tell whether the one before was a moment ago."""
        is_busy = now_s - self.missed_at_s < BUSY_S
        self.missed_at_s = now_s
        return is_busy

    def next_requests(self, now_s: float) -> int:
        """Return for how many requests to lease, adapted to how long the last slice lasted."""
        lasted_s = now_s - self.leased_at_s
        if lasted_s < LASTS_S:
            self.requests = min(MOST_REQUESTS, 2 * self.requests)
        elif lasted_s > 4 * LASTS_S:
            self.requests = max(FIRST_REQUESTS, self.requests // 2)
        self.leased_at_s = now_s
        return self.requests
