"""GCRA rates and the words that admission and its stores share: what a request asks of its limits, and what it got.

Rates are GCRA (the generic cell rate algorithm, ITU-T I.371 annex A, in its virtual-scheduling form): per scope and
kind one moment `full_at_s` at which the allowance is whole again. A cost moves it forward by cost / limit minutes; a
request is refused when that would put it more than one minute ahead. So a whole minute's allowance may be used at once,
and flows back evenly. A single request that is larger than the allowance passes when the allowance is whole and leaves
a debt. When a request ends, its tokens are corrected to what it really used.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from core.errors import RateLimited
from core.identity import Caller
from core.plan import Standing
from core.rules import Limits, TenantPolicy

PERIOD_S = 60.0
CONCURRENCY_RETRY_S = 1.0
"""When a slot frees is unknown; a second is what the official SDKs would wait at least."""
ROUNDING_S = 1e-6
"""Below this a wait is an artefact of floating point, and who waited as told must get in."""

RateKind = Literal["requests", "tokens"]
KINDS: tuple[RateKind, RateKind] = ("requests", "tokens")
_HEADERS = tuple(
    (kind, f"x-ratelimit-limit-{kind}", f"x-ratelimit-remaining-{kind}", f"x-ratelimit-reset-{kind}") for kind in KINDS
)


class Scope(msgspec.Struct, frozen=True, gc=False):
    """Whose limits: the tenant's (an empty `key_id`), or each key's."""

    key_id: str
    limits: Limits

    def limit(self, kind: RateKind) -> int | None:
        """Return the limit of one kind per minute."""
        return self.limits.requests_per_minute if kind == "requests" else self.limits.tokens_per_minute

    @property
    def owner(self) -> str:
        """Return how messages name whose limits these are."""
        return "key" if self.key_id else "tenant"


class Entry(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One request at the gate; `tokens` is what it is expected to use. It equals itself alone."""

    caller: Caller
    policy: TenantPolicy
    tokens: int
    scopes: tuple[Scope, ...]


class Level(msgspec.Struct, frozen=True, gc=False):
    """The state of one rate: in `behind_s` its allowance is whole again."""

    kind: RateKind
    limit: int
    behind_s: float

    @property
    def remaining(self) -> int:
        """Return what is left of the allowance."""
        left = int((PERIOD_S - self.behind_s) * self.limit / PERIOD_S + 1e-6)
        return left if left > 0 else 0


class Entered(msgspec.Struct, frozen=True, gc=False):
    """What a store says of a request that may go on."""

    standing: Standing
    levels: tuple[Level, ...] = ()


class LimitStore(Protocol):
    """Where the use of limits is counted."""

    async def enter(self, entry: Entry) -> Entered:
        """Take a request, its tokens and a slot in every scope or in none, and read the caller's standing.

        Raises:
            RateLimited: a limit is used up; says truthfully how long to wait. Nothing was taken.
        """
        ...

    def leave(self, entry: Entry, used_tokens: int | None) -> None:
        """Give the slots back and correct the tokens, where it is known how many were used; never waits."""
        ...


def refused_by_concurrency(scope: Scope, levels: Sequence[Level]) -> RateLimited:
    """Explain that all slots are in use."""
    message = f"All {scope.limits.concurrency} concurrent requests of this {scope.owner} are in use."
    return RateLimited(message, CONCURRENCY_RETRY_S, limit_headers(levels))


def refused_by_rate(scope: Scope, kind: RateKind, wait_s: float, levels: Sequence[Level]) -> RateLimited:
    """Explain that a rate is used up."""
    message = f"The {scope.owner}'s limit of {scope.limit(kind)} {kind} per minute is used up."
    return RateLimited(message, wait_s, limit_headers(levels))


def limit_headers(levels: Sequence[Level]) -> dict[str, str]:
    """Describe the limits as OpenAI does (size, what is left, when it is whole again), the tightest scope of each."""
    headers: dict[str, str] = {}
    for kind, limit, remaining, reset in _HEADERS:
        tightest, least = None, 0
        for level in levels:
            if level.kind == kind:
                left = level.remaining
                if tightest is None or left < least:
                    tightest, least = level, left
        if tightest is not None:
            headers[limit] = str(tightest.limit)
            headers[remaining] = str(least)
            headers[reset] = duration_text(tightest.behind_s)
    return headers


def duration_text(seconds: float) -> str:
    """Write a duration as OpenAI's headers do, such as `120ms`, `1.5s` or `6m0s`; rounded up, never early."""
    milliseconds = -int(-seconds * 1000 // 1)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest_ms = divmod(milliseconds, 60_000)
    rest = f"{rest_ms / 1000:g}s"
    return f"{minutes}m{rest}" if minutes else rest
