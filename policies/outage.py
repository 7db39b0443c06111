"""What a replica keeps while the shared store is away: costs still to be booked, and its share of what was free."""

import logging
from collections import OrderedDict
from itertools import islice

from core.errors import BudgetExhausted, Unavailable
from core.identity import Caller
from core.plan import Standing
from policies.ledger import Cost, Hold

KEPT_SETTLEMENTS = 100_000
KEPT_STANDINGS = 10_000

_logger = logging.getLogger(__name__)


class Backlog:
    """Settlements that could not be delivered, in order; when full, the oldest is given up to its lease."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, tuple[Hold, Cost]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def keep(self, hold: Hold, cost: Cost) -> None:
        """Keep a settlement; a hold that is kept already keeps its first cost."""
        self._waiting.setdefault(hold.reservation_id, (hold, cost))
        if len(self._waiting) > KEPT_SETTLEMENTS:
            lost, _ = self._waiting.popitem(last=False)
            _logger.error("too many settlements wait for the budget store", extra={"reservation": lost})

    def first(self, count: int) -> list[tuple[Hold, Cost]]:
        """Return the settlements that wait longest."""
        return list(islice(self._waiting.values(), count))

    def done(self, hold: Hold) -> None:
        """Forget a settlement that was delivered."""
        self._waiting.pop(hold.reservation_id, None)


SeenAs = tuple[str, str, str | None]
"""Tenant, key and end user."""


def seen_as(caller: Caller) -> SeenAs:
    """Return under which name a caller's standing is remembered."""
    return caller.tenant, caller.key_id, caller.user


class Shares:
    """What this replica may still grant by itself: for each caller, what was last seen free, over the replicas."""

    def __init__(self, replicas: int) -> None:
        self._replicas = replicas
        self._seen: OrderedDict[SeenAs, Standing] = OrderedDict()
        self._free: dict[tuple[str, str], int] = {}
        self._held: dict[str, tuple[int, tuple[str, ...]]] = {}

    def saw(self, who: SeenAs, standing: Standing) -> None:
        """Note what the store said; it is back, so shares begin anew at the next outage."""
        self._seen[who] = standing
        self._seen.move_to_end(who)
        if len(self._seen) > KEPT_STANDINGS:
            self._seen.popitem(last=False)
        self._free.clear()
        self._held.clear()

    def last_seen(self, who: SeenAs) -> Standing:
        """Return the last standing, or an unlimited one, which the reservation will judge."""
        return self._seen.get(who, Standing())

    def grant(self, hold: Hold) -> None:
        """Grant the hold from the tenant's share, and from those of the tiers that it draws on.

        Raises:
            BudgetExhausted: a share is used up.
            Unavailable: nothing was ever seen of this caller's budget.
        """
        standing = self._seen.get(seen_as(hold.caller))
        if standing is None:
            raise Unavailable("The budget store is away and this replica knows no share.", retry_after_s=1.0)
        seen = {tier: free for tier, free in standing.free_by_tier.items() if tier in hold.tiers}
        if standing.free_nano_usd is not None:
            seen[""] = standing.free_nano_usd
        left = {}
        for tier, free in seen.items():
            share = max(0, free) // self._replicas
            left[tier] = min(self._free.get((hold.policy.tenant, tier), share), share) - hold.amount_nano_usd
            if left[tier] < 0 and hold.amount_nano_usd:
                raise BudgetExhausted("This replica's share of the budget is used up while the store is away.")
        self._free.update({(hold.policy.tenant, tier): free for tier, free in left.items()})
        self._held[hold.reservation_id] = (hold.amount_nano_usd, tuple(left))

    def settle(self, hold: Hold, cost: Cost) -> None:
        """Give back to the shares what the hold did not cost."""
        amount, tiers = self._held.pop(hold.reservation_id, (0, ()))
        for tier in tiers:
            self._free[hold.policy.tenant, tier] += amount - cost.in_tier(tier)
