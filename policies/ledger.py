"""The budget ledger: what it promises, and the words it speaks.

Flow: `standing` at admission, `reserve` before the first attempt, `settle` after the last, `reap` for the dead. Failure
rule: what happens while a store is away is the tenant's choice (`on_store_outage`, default `closed`).

Invariants, at every moment and for every budget:

1. `limit = free + reserved + spent`, where `limit` is the policy's plus what was granted on top in this window;
   `reserved` and `spent` are never negative. All are integers of nano-USD.
2. A hold draws on all its accounts or on none, in one atomic step, and lies in the windows in which it was made. In a
   rolling window it lies in the part in which it was made, and counts as long as that part does.
3. `reserve` and `settle` are idempotent by reservation id for as long as a closed hold is remembered (the last 100,000
   in a process, two days or 100,000 per tenant in Redis). A settlement of an id that the ledger does not know (a store
   that came back older) is booked in the present window: money that was spent is never forgotten.
4. No false block: a hold is refused only if some account's `free` is below the hold's own amount. A hold of 0 is never
   refused, whatever was spent: models that cost nothing go on (which `small_only` is for; the planner sees to it). A
   soft budget counts and alerts, and never refuses.
5. A hold whose lease has run out is charged in full and flagged (`unconfirmed`); a settlement that still arrives
   replaces that charge by the true cost.
6. A grant raises the limit of one account in its present window. A reset is a grant of what was spent: nothing that was
   booked is ever erased.

Overshoot. `reserved + spent - limit` never exceeds the sum, over the holds in flight, of max(0, actual - amount).
Proof: a hold of amount a > 0 is granted only if a <= limit - reserved - spent, so right after the last such grant
`reserved + spent <= limit`. From then on the sum changes only when holds that were in flight at that moment close: a
settlement adds actual - amount, a reaped lease adds 0, and a late settlement adds what the settlement would have added.
Each hold closes once, so the excess is at most the sum of max(0, actual - amount) over them; holds of 0 granted
meanwhile count among them with amount 0. A limit that the owner lowers below what is already spent is not an overshoot
of the ledger.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

import msgspec

from core.errors import InvalidRequest
from core.identity import Caller
from core.money import NANO_PER_USD
from core.plan import Spending, Standing
from core.rules import Budget, TenantPolicy
from policies.budgets import MAX_LIMIT_NANO_USD, Account, account_of

LEASE_S = 900.0
"""How long a hold lives without settlement; longer than any request should take, and harmless when one takes longer."""


MAX_COST_NANO_USD = 1_000_000 * NANO_PER_USD
"""No request costs more; a larger figure comes from an upstream that miscounts, and may not fit a store's integers."""


class Hold(msgspec.Struct, frozen=True, gc=False):
    """A request to hold money: the worst case of a plan, drawn on every budget of the caller that it can touch.

    Attributes:
        reservation_id: unique for the request; reserving it twice holds it once.
        amount_nano_usd: at least 0.
        tiers: the tiers that the plan may use; budgets of other tiers are left alone.
        lease_s: after this time without settlement the hold is charged in full.
    """

    reservation_id: str
    caller: Caller
    policy: TenantPolicy
    amount_nano_usd: int
    tiers: frozenset[str] = frozenset()
    lease_s: float = LEASE_S

    def __post_init__(self) -> None:
        if self.amount_nano_usd < 0:
            raise ValueError("a hold cannot be negative")

    def touches(self, account: Account) -> bool:
        """Tell whether this hold draws on `account`."""
        return not account.tier or account.tier in self.tiers


class Cost(msgspec.Struct, frozen=True, gc=False):
    """What a request has cost in nano-USD, and how much of it in each tier (nothing said: all of it in every tier)."""

    total_nano_usd: int
    by_tier: Mapping[str, int] = {}

    def __post_init__(self) -> None:
        least = most = self.total_nano_usd
        for part in self.by_tier.values():
            least, most = min(least, part), max(most, part)
        if least < 0:
            raise ValueError("a cost cannot be negative")
        if most > MAX_COST_NANO_USD:
            raise ValueError("no request costs that much")

    def in_tier(self, tier: str) -> int:
        """Return the part that counts for a tier, or all of it for the empty name."""
        if not tier or not self.by_tier:
            return self.total_nano_usd
        return self.by_tier.get(tier, 0)


NOTHING = Cost(0)


class Balance(msgspec.Struct, frozen=True, gc=False):
    """One budget in its present window.

    Attributes:
        reserved_nano_usd: held by requests in flight, slices of replicas included.
        unconfirmed_nano_usd: the part of `spent` that was charged when leases ran out.
        granted_nano_usd: what was added to the policy's limit in this window.
        leased_nano_usd: the part of `reserved` that replicas hold for requests to come, at most; it can be recalled.
    """

    account: Account
    budget: Budget
    window_id: str
    starts_at: datetime
    ends_at: datetime
    reserved_nano_usd: int
    spent_nano_usd: int
    unconfirmed_nano_usd: int
    granted_nano_usd: int = 0
    leased_nano_usd: int = 0

    @property
    def limit_nano_usd(self) -> int:
        """Return the policy's limit plus what was granted."""
        return self.budget.limit_nano_usd + self.granted_nano_usd

    @property
    def free_nano_usd(self) -> int:
        """Return limit - reserved - spent; negative only by the overshoot that the module states."""
        return self.limit_nano_usd - self.reserved_nano_usd - self.spent_nano_usd


@dataclass(frozen=True, slots=True)
class Alert:
    """A budget has spent a stated percentage of its limit; raised once per window, percentage and limit.

    `until` is the end of the window; a rolling budget may raise the same alert again after it.
    """

    account: Account
    budget: Budget
    percent: int
    spent_nano_usd: int
    limit_nano_usd: int
    window_id: str
    until: datetime


OnAlert = Callable[[Alert], None]
"""Takes an alert; it must neither wait nor raise."""


class BudgetLedger(Protocol):
    """Where budgets are kept; see the module for what every implementation promises."""

    async def standing(self, caller: Caller, policy: TenantPolicy) -> Standing:
        """Return how much the caller may still spend under the tightest of its budgets, those of one tier apart.

        What replicas hold for requests to come counts as free: a reservation recalls it.
        """
        ...

    async def reserve(self, hold: Hold) -> None:
        """Hold the amount in every account, or in none.

        Raises:
            BudgetExhausted: some account has less free; says when the last such window ends.
            Unavailable: the store is away and the policy says `closed`.
        """
        ...

    async def settle(self, hold: Hold, cost: Cost) -> None:
        """Charge what it cost and release the rest; `NOTHING` releases all."""
        ...

    async def reap(self) -> int:
        """Charge every hold whose lease has run out in full, flag it, and return how many there were."""
        ...

    async def balances(self, policy: TenantPolicy) -> tuple[Balance, ...]:
        """Return every budget of the tenant in its present window, per-key ones once for each key that used them."""
        ...


NEVER_WAITS = "never_waits"
Settling = TypeVar("Settling", bound=Callable[..., object])


def never_waits(settle: Settling) -> Settling:
    """Mark a `BudgetLedger.settle` that never waits: nothing can come between its begin and its end."""
    setattr(settle, NEVER_WAITS, True)
    return settle


def settles_at_once(ledger: BudgetLedger) -> bool:
    """Tell whether the ledger's own `settle` is marked; one that overrides it is not."""
    return getattr(type(ledger).settle, NEVER_WAITS, False)


class Treasury(Protocol):
    """What the operator may do to a ledger while it runs; `gateway` offers it on the admin listener."""

    async def balances(self, policy: TenantPolicy) -> tuple[Balance, ...]:
        """Return every budget of the tenant in its present window."""
        ...

    async def grant(self, policy: TenantPolicy, account: Account, nano_usd: int, grant_id: str) -> None:
        """Raise the limits of `account` in its present window (a negative amount takes an earlier grant back).

        Repeating a `grant_id` changes nothing.

        Raises:
            InvalidRequest: no budget of the policy counts in this account, or the amount is beyond reason.
            Unavailable: the store is away.
        """
        ...

    async def reset(self, policy: TenantPolicy, account: Account, grant_id: str) -> None:
        """Grant what `account` has spent in its present window, so that the whole limit is free but for open holds.

        Raises:
            InvalidRequest: no budget of the policy counts in this account.
            Unavailable: the store is away.
        """
        ...


def check_account(policy: TenantPolicy, account: Account) -> Budget:
    """Return a budget of the policy that counts in `account`.

    Raises:
        InvalidRequest: there is none.
    """
    for budget in policy.budgets:
        mine = account_of(budget, policy.tenant, account.key_id)
        is_theirs = bool(account.user) == bool(mine.user) and bool(account.key_id) == bool(mine.key_id)
        if is_theirs and mine._replace(user=account.user) == account:
            return budget
    raise InvalidRequest(f"No budget of the tenant {policy.tenant!r} counts in such an account.", param="account")


def check_grant(nano_usd: int) -> None:
    """Refuse amounts that no limit could have.

    Raises:
        InvalidRequest: the amount is larger than the largest limit.
    """
    if abs(nano_usd) > MAX_LIMIT_NANO_USD:
        raise InvalidRequest("A grant cannot be larger than the largest limit.", param="amount")


_STRICTNESS = {"small_only": 0, "cache_only": 1, "reject": 2}


def standing_of(balances: Iterable[Balance], *, count_leased: bool = True) -> Standing:
    """Reduce balances to the one that binds: the strictest of those that are used up, else the one with least free.

    Soft budgets never bind. Budgets of one tier bind that tier alone, each by what it leaves. What replicas hold for
    requests to come counts as free, unless `count_leased` says otherwise.
    """
    free, binding = 0, None
    spending: list[Spending] = []
    by_tier: dict[str, int] = {}
    for balance in balances:
        budget, tier = balance.budget, balance.account.tier
        if budget.soft:
            continue
        left = balance.free_nano_usd + (balance.leased_nano_usd if count_leased else 0)
        if tier:
            by_tier[tier] = min(left, by_tier.get(tier, left))
            continue
        spending.append(_spending_of(balance))
        if binding is None or _binds_more(left, balance, free, binding):
            free, binding = left, balance
    if binding is None:
        return Standing(free_by_tier=by_tier)
    return Standing(free, binding.budget.when_exhausted, binding.ends_at, by_tier, tuple(spending))


def _binds_more(free: int, balance: Balance, other_free: int, other: Balance) -> bool:
    """Tell whether one balance binds more than another that came before it."""
    if free > 0 or other_free > 0:
        return free < other_free
    strictness, others = _STRICTNESS[balance.budget.when_exhausted], _STRICTNESS[other.budget.when_exhausted]
    return (strictness, balance.ends_at) > (others, other.ends_at)


def _spending_of(balance: Balance) -> Spending:
    return Spending(
        "|".join(balance.account),
        balance.starts_at,
        balance.ends_at,
        balance.limit_nano_usd,
        balance.spent_nano_usd,
        balance.budget.rolling,
    )
