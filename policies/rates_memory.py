"""Limits counted in this process; they cannot be away, and other replicas do not see them."""

from collections import OrderedDict
from dataclasses import dataclass, field

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


@dataclass(slots=True)
class Use:
    """What one scope has used: when each allowance is whole again (monotonic clock), and its requests in flight."""

    full_at_s: dict[RateKind, float] = field(default_factory=dict)
    in_flight: int = 0

    def behind_s(self, kind: RateKind, now_s: float) -> float:
        """Return how long until the allowance is whole."""
        return max(0.0, self.full_at_s.get(kind, 0.0) - now_s)

    def wait_s(self, kind: RateKind, cost: int, limit: int, now_s: float) -> float:
        """Return how long until `cost` may pass; 0 or less means now."""
        return self.behind_s(kind, now_s) + min(cost / limit, 1.0) * PERIOD_S - PERIOD_S

    def take(self, kind: RateKind, cost: int, limit: int, now_s: float) -> None:
        """Use `cost` of the allowance; a negative one gives back."""
        self.full_at_s[kind] = max(self.full_at_s.get(kind, 0.0), now_s) + cost / limit * PERIOD_S


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
        uses = [(scope, self._use(entry, scope)) for scope in entry.scopes]
        worst: tuple[float, Scope, RateKind] | None = None
        for scope, use in uses:
            if scope.limits.concurrency is not None and use.in_flight >= scope.limits.concurrency:
                raise refused_by_concurrency(scope, _levels(uses, now_s))
            for kind, cost in zip(KINDS, (1, entry.tokens), strict=True):
                limit = scope.limit(kind)
                if limit is None:
                    continue
                wait_s = use.wait_s(kind, cost, limit, now_s)
                if wait_s > ROUNDING_S and (worst is None or wait_s > worst[0]):
                    worst = wait_s, scope, kind
        if worst is not None:
            wait_s, scope, kind = worst
            raise refused_by_rate(scope, kind, wait_s, _levels(uses, now_s))
        for scope, use in uses:
            use.in_flight += 1
            for kind, cost in zip(KINDS, (1, entry.tokens), strict=True):
                limit = scope.limit(kind)
                if limit is not None:
                    use.take(kind, cost, limit, now_s)
        return _levels(uses, now_s)

    def leave(self, entry: Entry, used_tokens: int | None) -> None:
        """Give the slots back and correct the tokens."""
        now_s = self._clock.monotonic_s()
        for scope in entry.scopes:
            use = self._use(entry, scope)
            use.in_flight = max(0, use.in_flight - 1)
            limit = scope.limits.tokens_per_minute
            if used_tokens is not None and limit is not None:
                use.take("tokens", used_tokens - entry.tokens, limit, now_s)

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


def _levels(uses: list[tuple[Scope, Use]], now_s: float) -> tuple[Level, ...]:
    return tuple(
        Level(kind, limit, use.behind_s(kind, now_s))
        for scope, use in uses
        for kind in KINDS
        for limit in (scope.limit(kind),)
        if limit is not None
    )
