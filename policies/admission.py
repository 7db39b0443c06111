"""Rate and concurrency limits of tenants and keys, decided before any work is done; an exhausted budget is only told.

What is counted where is the store's business (`rates_memory`, `rates_redis`); this is the seam that the pipeline sees.
Failure rule: while a shared store is away, `rates_redis` counts in this process.
"""

from types import TracebackType
from typing import Self

from core.clock import Clock
from core.identity import Caller
from core.plan import Standing
from core.rules import Limits, TenantPolicy
from policies.ledger import BudgetLedger
from policies.rates import Entry, Level, LimitStore, Scope, limit_headers
from policies.rates_memory import MemoryRates

UNLIMITED = Limits()


class Admission:
    """Lets requests in under the limits of their tenant and key."""

    def __init__(self, ledger: BudgetLedger, clock: Clock, store: LimitStore | None = None) -> None:
        """Count in `store`, or in this process without one."""
        self._store: LimitStore = MemoryRates(ledger, clock) if store is None else store

    def admit(
        self, caller: Caller, policy: TenantPolicy, estimated_tokens: int, key_limits: Limits = UNLIMITED
    ) -> "Admitted":
        """Take one request, its tokens and a concurrency slot, which is given back when the body ends, however it ends.

        Args:
            caller: whose key it is.
            policy: the tenant's policy with the tenant's limits.
            estimated_tokens: input and output that the request is expected to use; `used_tokens` corrects it.
            key_limits: what each key of the tenant may use.

        Raises:
            RateLimited: a limit is used up; says truthfully how long to wait. Nothing was taken.
        """
        scopes: tuple[Scope, ...] = () if policy.limits.is_unlimited else (Scope("", policy.limits),)
        if not key_limits.is_unlimited:
            scopes += (Scope(caller.key_id, key_limits),)
        return Admitted(self._store, Entry(caller, policy, estimated_tokens, scopes))


class Admitted:
    """A request's slot for as long as the context lasts, or until `leave`; known once it was entered.

    Attributes:
        standing: the caller's, as of now.
        used_tokens: what the request really used, told when it is known; None leaves the estimate standing.
    """

    __slots__ = ("_entry", "_is_inside", "_levels", "_store", "standing", "used_tokens")

    def __init__(self, store: LimitStore, entry: Entry) -> None:
        self._store = store
        self._entry = entry
        self._is_inside = False
        self._levels: tuple[Level, ...] = ()
        self.standing = Standing()
        self.used_tokens: int | None = None

    async def __aenter__(self) -> Self:
        entered = await self._store.enter(self._entry)
        self._is_inside = True
        self._levels = entered.levels
        self.standing = entered.standing
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    @property
    def limit_headers(self) -> dict[str, str]:
        """Return the `x-ratelimit-*` headers as of admission."""
        return limit_headers(self._levels)

    def leave(self) -> None:
        """Give the slot back, and say what was used; only the first call does."""
        if self._is_inside:
            self._is_inside = False
            self._store.leave(self._entry, self.used_tokens)
