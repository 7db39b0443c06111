"""Budgets with a scope, and the accounts that a request draws on.

An account is what a ledger counts in: one scope of one tenant in one window. Two budgets of the same scope, window and
zone (say, small tier only from 400 USD, refusal from 500) are two limits on the same account.

End users are named by the request, so their number is not the operator's choice: a ledger keeps at most `MAX_USERS`
accounts per budget and window (per part of a rolling one), and users beyond that share one account, with one limit for
all of them together. Requests that name no user share one account too: leaving the name out is no way around a limit.
"""

from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple, cast

from core.identity import Caller
from core.money import NANO_PER_USD
from core.rules import Budget, TenantPolicy, WindowKind

MAX_LIMIT_NANO_USD = 9_000_000 * NANO_PER_USD
"""The largest limit: Redis scripts count in doubles, which are exact up to 2**53, a little above this."""
MAX_USERS = 10_000
MAX_USER_CHARACTERS = 64
NO_USER = "#none"
OTHER_USERS = "#others"
ROLLING = "rolling-"


class Account(NamedTuple):
    """What is counted together; empty `key_id`, `user` or `tier` means all of them.

    `window` is a kind of calendar window with its `zone`, or that of a rolling one (`rolling-day`) without.
    """

    tenant: str
    key_id: str
    user: str
    tier: str
    window: str
    zone: str

    @property
    def rolling_kind(self) -> WindowKind | None:
        """Return the length of the rolling window, or None for a calendar window."""
        return cast(WindowKind, self.window[len(ROLLING) :]) if self.window.startswith(ROLLING) else None


@lru_cache(maxsize=MAX_USERS)
def user_account(user: str | None) -> str:
    """Return the end user's name in accounts: the name itself, or a digest where it is long or has odd characters.

    Names of our own begin with `#`, and one that a client sends so becomes a digest: nobody can pose as another.
    """
    if not user:
        return NO_USER
    if len(user) <= MAX_USER_CHARACTERS and user.isprintable() and not user.startswith("#"):
        return user
    return "#" + blake2b(user.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def account_of(budget: Budget, tenant: str, key_id: str, user: str | None = None) -> Account:
    """Return the account that `budget` limits for a request of this key and end user."""
    return Account(
        tenant,
        key_id if budget.per == "key" else "",
        user_account(user) if budget.per == "user" else "",
        budget.tier or "",
        f"{ROLLING}{budget.window}" if budget.rolling else budget.window,
        "" if budget.rolling else budget.zone.key,
    )


def limits_for(policy: TenantPolicy, caller: Caller) -> Iterator[tuple[Account, Budget]]:
    """Yield every budget of the tenant with the account it limits for this caller."""
    for budget in policy.budgets:
        yield account_of(budget, policy.tenant, caller.key_id, caller.user), budget
