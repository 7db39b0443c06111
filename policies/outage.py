"""What a replica keeps while the shared store is away: costs still to be booked, and its share of what was free."""

import logging
from collections import OrderedDict

from core.errors import BudgetExhausted, Unavailable
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

    def first(self) -> tuple[Hold, Cost] | None:
        """Return the settlement that waits longest."""
        return next(iter(self._waiting.values()), None)

    def done(self, hold: Hold) -> None:
        """Forget a settlement that was delivered."""
        self._waiting.pop(hold.reservation_id, None)


class Shares:
    """What this replica may still grant by itself: for each key, what was last seen free, divided by the replicas."""

    def __init__(self, replicas: int) -> None:
        self._replicas = replicas
        self._seen: OrderedDict[tuple[str, str], Standing] = OrderedDict()
        self._free: dict[str, int] = {}
        self._held: dict[str, int] = {}

    def saw(self, key: tuple[str, str], standing: Standing) -> None:
        """Note what the store said; it is back, so shares begin anew at the next outage."""
        self._seen[key] = standing
        self._seen.move_to_end(key)
        if len(self._seen) > KEPT_STANDINGS:
            self._seen.popitem(last=False)
        self._free.clear()
        self._held.clear()

    def last_seen(self, key: tuple[str, str]) -> Standing:
        """Return the last standing, or an unlimited one, which the reservation will judge."""
        return self._seen.get(key, Standing())

    def grant(self, hold: Hold) -> None:
        """Grant the hold from the tenant's share.

        Raises:
            BudgetExhausted: the share is used up.
            Unavailable: nothing was ever seen of this key's budget.
        """
        standing = self._seen.get((hold.policy.tenant, hold.caller.key_id))
        if standing is None or standing.free_nano_usd is None:
            raise Unavailable("The budget store is away and this replica knows no share.", retry_after_s=1.0)
        share = max(0, standing.free_nano_usd) // self._replicas
        free = min(self._free.get(hold.policy.tenant, share), share)
        if hold.amount_nano_usd > free:
            raise BudgetExhausted("This replica's share of the budget is used up while the store is away.")
        self._free[hold.policy.tenant] = free - hold.amount_nano_usd
        self._held[hold.reservation_id] = hold.amount_nano_usd

    def settle(self, hold: Hold, cost: Cost) -> None:
        """Give back to the share what the hold did not cost."""
        held = self._held.pop(hold.reservation_id, None)
        if held is not None:
            self._free[hold.policy.tenant] += held - cost.total_nano_usd
