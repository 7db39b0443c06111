"""Rate and concurrency limits of tenants and keys, decided before any work is done; an exhausted budget is only told.

What is counted where is the store's business (`rates_memory`, `rates_redis`); this is the seam that the pipeline sees.
Failure rule: while a shared store is away, `rates_redis` counts in this process.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType

from core.clock import Clock
from core.identity import Caller
from core.plan import Standing
from core.rules import Limits, TenantPolicy
from policies.ledger import BudgetLedger
from policies.rates import Entry, LimitStore, Scope, limit_headers
from policies.rates_memory import MemoryRates

UNLIMITED = Limits()


@dataclass(slots=True)
class Used:
    """What a request really used, told when it is known; unknown tokens leave the estimate standing."""

    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Admitted(Standing):
    """The caller's standing, with the `x-ratelimit-*` headers as of now and a place to tell what was used."""

    limit_headers: Mapping[str, str] = field(default_factory=dict)
    used: Used = field(default_factory=Used)


class Admission:
    """Lets requests in under the limits of their tenant and key."""

    def __init__(self, ledger: BudgetLedger, clock: Clock, store: LimitStore | None = None) -> None:
        """Count in `store`, or in this process without one."""
        self._store: LimitStore = MemoryRates(ledger, clock) if store is None else store

    def admit(
        self, caller: Caller, policy: TenantPolicy, estimated_tokens: int, key_limits: Limits = UNLIMITED
    ) -> "Admitting":
        """Take one request, its tokens and a concurrency slot, which is given back when the body ends, however it ends.

        Args:
            caller: whose key it is.
            policy: the tenant's policy with the tenant's limits.
            estimated_tokens: input and output that the request is expected to use; `Admitted.used` corrects it.
            key_limits: what each key of the tenant may use.

        Raises:
            RateLimited: a limit is used up; says truthfully how long to wait. Nothing was taken.
        """
        scopes = tuple(
            scope for scope in (Scope("", policy.limits), Scope(caller.key_id, key_limits)) if scope.limits != UNLIMITED
        )
        return Admitting(self._store, Entry(caller, policy, estimated_tokens, scopes))


class Admitting:
    """What `admit` returns: a slot for as long as the context lasts, or until `leave`."""

    def __init__(self, store: LimitStore, entry: Entry) -> None:
        self._store = store
        self._entry = entry
        self._used = Used()
        self._is_inside = False

    async def __aenter__(self) -> Admitted:
        entered = await self._store.enter(self._entry)
        self._is_inside = True
        standing = entered.standing
        return Admitted(
            standing.free_nano_usd,
            standing.when_exhausted,
            standing.resets_at,
            standing.free_by_tier,
            standing.spending,
            limit_headers(entered.levels),
            self._used,
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Give the slot back, and say what was used; only the first call does."""
        if self._is_inside:
            self._is_inside = False
            self._store.leave(self._entry, self._used.tokens)
