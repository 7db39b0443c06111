"""A hold as a context manager: granted before the first attempt, settled after the last, whatever happens in between.

Settlement runs in a task of its own, unless the ledger settles without waiting. The request waits for that task up to
`WAIT_S`, and a second cancellation (Litestar cancels a handler's `finally` again when the client goes away) ends that
wait, not the settlement. A settlement that fails is logged; the lease then charges the hold in full.
"""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Mapping
from types import TracebackType
from typing import Self

from core.identity import Caller
from core.rules import TenantPolicy
from policies.ledger import LEASE_S, MAX_COST_NANO_USD, NOTHING, BudgetLedger, Cost, Hold, settles_at_once

WAIT_S = 1.0

_logger = logging.getLogger(__name__)
_running: set[asyncio.Task[None]] = set()
"""The event loop keeps weak references only; a task that no one awaits any more must be held here."""


class Holding:
    """What `hold` returns: a reservation for as long as the context lasts; `charge` says what it has cost so far."""

    __slots__ = ("_is_granted", "_ledger", "_wanted", "cost")

    def __init__(self, ledger: BudgetLedger, wanted: Hold) -> None:
        self._ledger = ledger
        self._is_granted = False
        self._wanted = wanted
        self.cost = NOTHING

    def charge(self, cost_nano_usd: int, by_tier: Mapping[str, int] | None = None) -> None:
        """Record the sum over all attempts; called several times, the last call counts, and absurd sums are cut.

        Args:
            cost_nano_usd: what all attempts together have cost, at least 0.
            by_tier: how much of it each tier cost, for budgets of one tier.
        """
        parts = dict(by_tier) if by_tier else {}
        for tier, part in parts.items():
            if part > MAX_COST_NANO_USD:
                parts[tier] = MAX_COST_NANO_USD
        if cost_nano_usd > MAX_COST_NANO_USD:
            _logger.error("a cost beyond reason was cut", extra={"reservation": self._wanted.reservation_id})
            cost_nano_usd = MAX_COST_NANO_USD
        self.cost = Cost(cost_nano_usd, parts)

    async def grant(self) -> None:
        """Reserve before the context is entered, which must follow at once; without this call, entering does it.

        Raises:
            BudgetExhausted, Unavailable: as `hold` says.
        """
        try:
            await self._ledger.reserve(self._wanted)
        except asyncio.CancelledError:
            # The grant may have happened although its answer never arrived.
            await self._finish(NOTHING)
            raise
        self._is_granted = True

    async def __aenter__(self) -> Self:
        if not self._is_granted:
            await self.grant()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._finish(self.cost)

    def _finish(self, cost: Cost) -> Awaitable[None]:
        settling = _logged(self._ledger.settle(self._wanted, cost), self._wanted.reservation_id)
        return settling if settles_at_once(self._ledger) else _shielded(settling)


def hold(
    ledger: BudgetLedger,
    reservation_id: str,
    caller: Caller,
    policy: TenantPolicy,
    amount_nano_usd: int,
    tiers: frozenset[str] | None = None,
    lease_s: float = LEASE_S,
) -> Holding:
    """Hold `amount_nano_usd` while the body runs, then charge what it recorded, or release everything.

    Args:
        ledger: where the budgets are.
        reservation_id: the request's id; the same id never holds or charges twice.
        caller: who pays.
        policy: the tenant's policy, with the budgets to draw on.
        amount_nano_usd: the worst case of the plan.
        tiers: the tiers that the plan may use; None means any, so that budgets of every tier are held.
        lease_s: how long the hold lives if this process dies.

    Raises:
        BudgetExhausted: some budget has less free; nothing is held.
        Unavailable: the store is away and the policy says `closed`.
    """
    drawn = frozenset(policy.tiers) if tiers is None else tiers
    return Holding(ledger, Hold(reservation_id, caller, policy, amount_nano_usd, drawn, lease_s))


async def drain(timeout_s: float) -> int:
    """Wait at shutdown for settlements still under way; return how many were not done in time."""
    if not _running:
        return 0
    _, late = await asyncio.wait(_running, timeout=timeout_s)
    return len(late)


async def _logged(settlement: Coroutine[object, object, None], reservation_id: str) -> None:
    try:
        await settlement
    except Exception:
        _logger.exception("settlement failed; the lease will charge the hold", extra={"reservation": reservation_id})


async def _shielded(settling: Coroutine[object, object, None]) -> None:
    """Settle in a task of its own, and wait for it for a while."""
    task = asyncio.create_task(settling)
    _running.add(task)
    task.add_done_callback(_running.discard)
    await asyncio.wait({task}, timeout=WAIT_S)
