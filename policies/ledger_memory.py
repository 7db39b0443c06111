"""The ledger of one process that forgets everything when it ends: the twin that tests and other ledgers build on."""

from core.clock import Clock
from core.identity import Caller
from core.plan import Standing
from core.rules import TenantPolicy
from policies.books import Books
from policies.budgets import MAX_USERS, Account
from policies.ledger import Balance, Cost, Hold, OnAlert, never_waits
from policies.windows import Calendar


class MemoryLedger:
    """A `BudgetLedger` and `Treasury` that never waits."""

    def __init__(self, clock: Clock, *, on_alert: OnAlert | None = None, max_users: int = MAX_USERS) -> None:
        self._books = Books(Calendar(clock), on_alert=on_alert, max_users=max_users)

    async def standing(self, caller: Caller, policy: TenantPolicy) -> Standing:
        """Return what the caller may still spend."""
        return self._books.standing(policy, caller)

    async def reserve(self, hold: Hold) -> None:
        """Hold the amount or raise BudgetExhausted."""
        self._books.reserve(hold)

    @never_waits
    async def settle(self, hold: Hold, cost: Cost) -> None:
        """Charge the cost and release the rest."""
        self._books.settle(hold, cost)

    async def reap(self) -> int:
        """Charge expired holds in full."""
        return self._books.reap()

    async def balances(self, policy: TenantPolicy) -> tuple[Balance, ...]:
        """Return the tenant's budgets."""
        return tuple(self._books.balances(policy))

    async def grant(self, policy: TenantPolicy, account: Account, nano_usd: int, grant_id: str) -> None:
        """Raise the limits of one account in its present window."""
        self._books.grant(policy, account, nano_usd, grant_id)

    async def reset(self, policy: TenantPolicy, account: Account, grant_id: str) -> None:
        """Grant what the account has spent in its present window."""
        self._books.reset(policy, account, grant_id)
