"""Holds beyond the plan's: what a hedge or a second try may cost is held before it starts, or it does not start."""

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from core.errors import BudgetExhausted, Unavailable
from core.identity import Caller
from core.plan import PlannedStep
from core.rules import TenantPolicy
from policies.ledger import BudgetLedger
from policies.reservation import hold


class FurtherHolds:
    """The further holds of one request; they are released when the context ends, after the plan's own was settled.

    What the attempts really cost is charged to the plan's hold. Entering this context first keeps the further amounts
    held until that has happened, so that a budget is never overdrawn in between.
    """

    def __init__(self, ledger: BudgetLedger, caller: Caller, policy: TenantPolicy, request_id: str) -> None:
        self._ledger = ledger
        self._caller = caller
        self._policy = policy
        self._request_id = request_id
        self._stack: AsyncExitStack | None = None
        self.count = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stack is not None:
            await self._stack.aclose()

    async def afford(self, step: PlannedStep) -> bool:
        """Hold one more step's worst case; False when a budget has no room for it or the store is away."""
        if self._stack is None:
            self._stack = AsyncExitStack()
        self.count += 1
        hold_id = f"{self._request_id}+{self.count}"
        tiers = frozenset({step.tier})
        holding = hold(self._ledger, hold_id, self._caller, self._policy, step.worst_case_nano_usd, tiers)
        try:
            await self._stack.enter_async_context(holding)
        except (BudgetExhausted, Unavailable):
            return False
        return True
