"""`BudgetOperations` on a ledger: selectors become accounts, balances become lines in USD."""

from collections.abc import Callable
from dataclasses import dataclass

from core.errors import InvalidRequest
from core.money import usd_text
from core.rules import Budget, TenantPolicy
from gateway.admin.budget_routes import Selector
from gateway.reporting.budget_line import BudgetLine
from policies.budgets import Account, account_of
from policies.ledger import Balance, Treasury
from policies.loading import PolicySet


@dataclass(frozen=True, slots=True)
class TreasuryBudgets:
    """Budgets as the ledger keeps them."""

    treasury: Treasury
    policies: Callable[[], PolicySet]

    async def balances(self, tenant: str) -> tuple[BudgetLine, ...]:
        """Return every budget of the tenant in its present window."""
        return tuple(budget_line(balance) for balance in await self.treasury.balances(self._policy(tenant)))

    async def grant(self, tenant: str, which: Selector, amount_nano_usd: int, grant_id: str) -> None:
        """Raise a limit in its present window."""
        policy = self._policy(tenant)
        await self.treasury.grant(policy, chosen_account(policy, which), amount_nano_usd, grant_id)

    async def reset(self, tenant: str, which: Selector, grant_id: str) -> None:
        """Grant what was spent in the present window."""
        policy = self._policy(tenant)
        await self.treasury.reset(policy, chosen_account(policy, which), grant_id)

    def _policy(self, tenant: str) -> TenantPolicy:
        policy = self.policies().get(tenant)
        if policy is None:
            raise InvalidRequest(f"The tenant {tenant[:64]!r} has no policy.", param="tenant")
        return policy


def chosen_account(policy: TenantPolicy, which: Selector) -> Account:
    """Return the one account that the selector names; budgets that share it are granted together.

    Raises:
        InvalidRequest: no budget fits, or several with different accounts.
    """
    found = {
        account_of(budget, policy.tenant, which.key_id or "", which.user): budget
        for budget in policy.budgets
        if _fits(budget, which)
    }
    if len(found) == 1:
        return next(iter(found))
    known = "; ".join(dict.fromkeys(_described(budget) for budget in policy.budgets)) or "none"
    problem = "No budget fits" if not found else "Several budgets fit"
    raise InvalidRequest(f"{problem}. The budgets of {policy.tenant!r} are: {known}.", param="window")


def budget_line(balance: Balance) -> BudgetLine:
    """Write a balance in USD."""
    account, budget = balance.account, balance.budget
    return BudgetLine(
        tenant=account.tenant,
        window=budget.window,
        window_id=balance.window_id,
        starts_at=balance.starts_at.isoformat(),
        ends_at=balance.ends_at.isoformat(),
        limit_usd=usd_text(balance.limit_nano_usd),
        reserved_usd=usd_text(balance.reserved_nano_usd),
        spent_usd=usd_text(balance.spent_nano_usd),
        free_usd=usd_text(balance.free_nano_usd),
        granted_usd=usd_text(balance.granted_nano_usd),
        unconfirmed_usd=usd_text(balance.unconfirmed_nano_usd),
        key_id=account.key_id or None,
        user=account.user or None,
        tier=account.tier or None,
        rolling=budget.rolling,
        soft=budget.soft,
    )


def _fits(budget: Budget, which: Selector) -> bool:
    """Tell whether the selector means this budget; one per key or per user needs the key or the user."""
    return (
        which.window in (None, budget.window)
        and which.rolling in (None, budget.rolling)
        and which.tier in (None, budget.tier)
        and (budget.per == "key") == (which.key_id is not None)
        and (budget.per == "user") == (which.user is not None)
    )


def _described(budget: Budget) -> str:
    parts = [f"rolling {budget.window}" if budget.rolling else budget.window]
    parts += [f"per {budget.per}"] if budget.per != "tenant" else []
    parts += [f"tier {budget.tier}"] if budget.tier else []
    return " ".join(parts)
