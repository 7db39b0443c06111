"""Budgets with a scope, and the accounts that a request draws on.

An account is what a ledger counts in: one scope of one tenant in one calendar window. Two budgets of the same scope,
window and zone (say, small tier only from 400 USD, refusal from 500) are two limits on the same account.
"""

from collections.abc import Iterator
from typing import NamedTuple

from core.identity import Caller
from core.money import NANO_PER_USD
from core.rules import Budget, TenantPolicy, WindowKind

MAX_LIMIT_NANO_USD = 9_000_000 * NANO_PER_USD
"""The largest limit: Redis scripts count in doubles, which are exact up to 2**53, a little above this."""


class Account(NamedTuple):
    """What is counted together; empty `key_id` or `tier` means all of them."""

    tenant: str
    key_id: str
    tier: str
    window: WindowKind
    zone: str


def is_per_key(budget: Budget) -> bool:
    """Tell whether every key has this budget for itself."""
    return budget.per == "key"


def account_of(budget: Budget, tenant: str, key_id: str) -> Account:
    """Return the account that `budget` limits for a request of this key."""
    return Account(tenant, key_id if is_per_key(budget) else "", budget.tier or "", budget.window, budget.zone.key)


def limits_for(policy: TenantPolicy, caller: Caller) -> Iterator[tuple[Account, Budget]]:
    """Yield every budget of the tenant with the account it limits for this caller."""
    for budget in policy.budgets:
        yield account_of(budget, policy.tenant, caller.key_id), budget
