"""The ledger of one process that forgets everything when it ends: the twin that tests and other ledgers build on."""

from core.clock import Clock
from core.identity import Caller
from core.plan import Standing
from core.rules import TenantPolicy
from policies.books import Books
from policies.ledger import Balance, Cost, Hold, standing_of
from policies.windows import Calendar


class MemoryLedger:
    """A `BudgetLedger` that never waits."""

    def __init__(self, clock: Clock) -> None:
        self._books = Books(Calendar(clock))

    async def standing(self, caller: Caller, policy: TenantPolicy) -> Standing:
        """Return what the caller may still spend."""
        return standing_of([b for b in self._books.balances(policy, caller.key_id) if not b.account.tier])

    async def reserve(self, hold: Hold) -> None:
        """Hold the amount or raise BudgetExhausted."""
        self._books.grant(hold)

    async def settle(self, hold: Hold, cost: Cost) -> None:
        """Charge the cost and release the rest."""
        self._books.settle(hold, cost)

    async def reap(self) -> int:
        """Charge expired holds in full."""
        return self._books.reap()

    async def balances(self, policy: TenantPolicy) -> tuple[Balance, ...]:
        """Return the tenant's budgets."""
        return tuple(self._books.balances(policy))
