"""Limits counted in this process; they cannot be away, and other replicas do not see them."""

from collections import OrderedDict

from core.clock import Clock
from policies.ledger import BudgetLedger
from policies.rates import (
    KINDS,
    PERIOD_S,
    ROUNDING_S,
    Entered,
    Entry,
    Level,
    RateKind,
    Scope,
    refused_by_concurrency,
    refused_by_rate,
)

KEPT_SCOPES = 200_000
"""How many tenants and keys are remembered; the one unused for longest goes first, unless a request is in flight."""


class Rate:
    """What one rate of a scope has used: when its allowance is whole again (monotonic clock)."""

    __slots__ = ("full_at_s",)

    def __init__(self) -> None:
        self.full_at_s = 0.0

    def behind_s(self, now_s: float) -> float:
        """Return how long until the allowance is whole."""
        behind_s = self.full_at_s - now_s
        return behind_s if behind_s > 0.0 else 0.0

    def wait_s(self, cost: int, limit: int, now_s: float) -> float:
        """Return how long until `cost` may pass; 0 or less means now."""
        behind_s = self.full_at_s - now_s
        ahead_s = cost / limit * PERIOD_S if cost < limit else PERIOD_S
        return (behind_s if behind_s > 0.0 else 0.0) + ahead_s - PERIOD_S

    def take(self, cost: int, limit: int, now_s: float) -> None:
        """Use `cost` of the allowance; a negative one gives back."""
        self.full_at_s = (self.full_at_s if self.full_at_s > now_s else now_s) + cost / limit * PERIOD_S


class Use:
    """What one scope has used: of its two rates, and by its requests in flight."""

    __slots__ = ("in_flight", "requests", "tokens")

    def __init__(self) -> None:
        self.in_flight = 0
        self.requests = Rate()
        self.tokens = Rate()


_Wanted = tuple[RateKind, Rate, int, int, Scope]
"""One rate that a request draws on: by how much, and of what limit per minute."""


class MemoryRates:
    """A `LimitStore` of one process; standing comes from the ledger."""

    def __init__(self, ledger: BudgetLedger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._uses: OrderedDict[tuple[str, str], Use] = OrderedDict()

    async def enter(self, entry: Entry) -> Entered:
        """Take what the request needs, or refuse."""
        levels = self.take(entry)
        try:
            return Entered(await self._ledger.standing(entry.caller, entry.policy), levels)
        except BaseException:
            self.leave(entry, None)
            raise

    def take(self, entry: Entry) -> tuple[Level, ...]:
        """Take from all limits or from none, and return what is left.

        Raises:
            RateLimited: a limit is used up.
        """
        now_s = self._clock.monotonic_s()
        uses, wanted = list[Use](), list[_Wanted]()
        for scope in entry.scopes:
            use, limits = self._use(entry, scope), scope.limits
            uses.append(use)
            if limits.requests_per_minute is not None:
                wanted.append(("requests", use.requests, 1, limits.requests_per_minute, scope))
            if limits.tokens_per_minute is not None:
                wanted.append(("tokens", use.tokens, entry.tokens, limits.tokens_per_minute, scope))
            if limits.concurrency is not None and use.in_flight >= limits.concurrency:
                raise refused_by_concurrency(scope, self._levels(entry, now_s))
        worst: _Wanted | None = None
        worst_s = ROUNDING_S
        for one in wanted:
            _, rate, cost, limit, _ = one
            wait_s = rate.wait_s(cost, limit, now_s)
            if wait_s > worst_s:
                worst, worst_s = one, wait_s
        if worst is not None:
            raise refused_by_rate(worst[4], worst[0], worst_s, self._levels(entry, now_s))
        for use in uses:
            use.in_flight += 1
        levels = []
        for kind, rate, cost, limit, _ in wanted:
            rate.take(cost, limit, now_s)
            levels.append(Level(kind, limit, rate.behind_s(now_s)))
        return tuple(levels)

    def leave(self, entry: Entry, used_tokens: int | None) -> None:
        """Give the slots back and correct the tokens."""
        now_s = self._clock.monotonic_s()
        for scope in entry.scopes:
            use = self._use(entry, scope)
            if use.in_flight > 0:
                use.in_flight -= 1
            limit = scope.limits.tokens_per_minute
            if used_tokens is not None and limit is not None:
                use.tokens.take(used_tokens - entry.tokens, limit, now_s)

    def _use(self, entry: Entry, scope: Scope) -> Use:
        key = (entry.policy.tenant, scope.key_id)
        use = self._uses.get(key)
        if use is None:
            use = self._uses[key] = Use()
            if len(self._uses) > KEPT_SCOPES:
                self._forget_one()
        self._uses.move_to_end(key)
        return use

    def _forget_one(self) -> None:
        key, use = next(iter(self._uses.items()))
        if use.in_flight:
            self._uses.move_to_end(key)
        else:
            del self._uses[key]

    def _levels(self, entry: Entry, now_s: float) -> tuple[Level, ...]:
        """Return what is left of every rate without taking anything."""
        uses = [(scope, self._use(entry, scope)) for scope in entry.scopes]
        return tuple(
            Level(kind, limit, rate.behind_s(now_s))
            for scope, use in uses
            for kind, rate in zip(KINDS, (use.requests, use.tokens), strict=True)
            for limit in (scope.limit(kind),)
            if limit is not None
        )
