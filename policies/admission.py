"""Rate and concurrency limits of one process, decided before any work is done; an exhausted budget is only reported.

Rates are GCRA (the generic cell rate algorithm, ITU-T I.371 annex A, in its virtual-scheduling form): per tenant one
moment `full_at_s` at which the allowance is whole again. A cost moves it forward by cost / limit minutes; a request is
refused when that would put it more than one minute ahead. So a whole minute's allowance may be used at once, and flows
back evenly. A single request that is larger than the allowance passes when the allowance is whole and leaves a debt.

Failure rule: state is in memory and cannot be away; the budget's state comes from the ledger, with its own rule.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from core.clock import Clock
from core.errors import RateLimited
from core.identity import Caller
from core.plan import Standing
from core.rules import Limits, TenantPolicy
from policies.ledger import BudgetLedger

PERIOD_S = 60.0
CONCURRENCY_RETRY_S = 1.0
"""When a slot frees is unknown; a second is what the official SDKs would wait at least."""
_ROUNDING_S = 1e-6
"""Below this a wait is an artefact of floating point, and who waited as told must get in."""


@dataclass(slots=True)
class _Rate:
    """When the allowance of one limit is whole again, on the monotonic clock."""

    full_at_s: float = 0.0

    def wait_s(self, cost: int, limit: int, now_s: float) -> float:
        """Return how long until `cost` may pass; 0 or less means now."""
        behind_s = max(0.0, self.full_at_s - now_s)
        return behind_s + min(cost / limit, 1.0) * PERIOD_S - PERIOD_S

    def take(self, cost: int, limit: int, now_s: float) -> None:
        """Use `cost` of the allowance."""
        self.full_at_s = max(self.full_at_s, now_s) + cost / limit * PERIOD_S

    def headers(self, kind: str, limit: int, now_s: float) -> dict[str, str]:
        """Describe the limit as OpenAI does: its size, what is left, and when it is whole again."""
        behind_s = max(0.0, self.full_at_s - now_s)
        remaining = max(0, int((PERIOD_S - behind_s) * limit / PERIOD_S + 1e-6))
        return {
            f"x-ratelimit-limit-{kind}": str(limit),
            f"x-ratelimit-remaining-{kind}": str(remaining),
            f"x-ratelimit-reset-{kind}": duration_text(behind_s),
        }


@dataclass(slots=True)
class _Tenant:
    """What one tenant has used; one of these per tenant with a policy."""

    requests: _Rate
    tokens: _Rate
    in_flight: int = 0


class Admission:
    """Lets requests in, one at a time, under their tenant's limits."""

    def __init__(self, ledger: BudgetLedger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._tenants: dict[str, _Tenant] = {}

    @asynccontextmanager
    async def admit(self, caller: Caller, policy: TenantPolicy, estimated_tokens: int) -> AsyncIterator[Standing]:
        """Take one request, its tokens and a concurrency slot, which is given back when the body ends, however it ends.

        Raises:
            RateLimited: a limit is used up; says truthfully how long to wait. Nothing was taken.
        """
        used = self._used(policy.tenant)
        self._check(used, policy.limits, estimated_tokens)
        used.in_flight += 1
        try:
            yield await self._ledger.standing(caller, policy)
        finally:
            used.in_flight -= 1

    def limit_headers(self, policy: TenantPolicy) -> dict[str, str]:
        """Return the `x-ratelimit-*` headers of the tenant as of now; none for limits that do not exist."""
        return self._headers(self._used(policy.tenant), policy.limits, self._clock.monotonic_s())

    def _used(self, tenant: str) -> _Tenant:
        used = self._tenants.get(tenant)
        if used is None:
            used = self._tenants[tenant] = _Tenant(_Rate(), _Rate())
        return used

    def _check(self, used: _Tenant, limits: Limits, tokens: int) -> None:
        """Refuse, or take from both rates."""
        now_s = self._clock.monotonic_s()
        if limits.concurrency is not None and used.in_flight >= limits.concurrency:
            message = f"All {limits.concurrency} concurrent requests of this tenant are in use."
            raise RateLimited(message, CONCURRENCY_RETRY_S, self._headers(used, limits, now_s))
        rates = [
            (rate, cost, limit, kind)
            for rate, cost, limit, kind in (
                (used.requests, 1, limits.requests_per_minute, "requests"),
                (used.tokens, tokens, limits.tokens_per_minute, "tokens"),
            )
            if limit is not None
        ]
        wait_s, limit, kind = max(
            ((rate.wait_s(cost, limit, now_s), limit, kind) for rate, cost, limit, kind in rates), default=(0.0, 0, "")
        )
        if wait_s > _ROUNDING_S:
            message = f"The limit of {limit} {kind} per minute is used up."
            raise RateLimited(message, wait_s, self._headers(used, limits, now_s))
        for rate, cost, limit, _ in rates:
            rate.take(cost, limit, now_s)

    @staticmethod
    def _headers(used: _Tenant, limits: Limits, now_s: float) -> dict[str, str]:
        headers: dict[str, str] = {}
        if limits.requests_per_minute is not None:
            headers |= used.requests.headers("requests", limits.requests_per_minute, now_s)
        if limits.tokens_per_minute is not None:
            headers |= used.tokens.headers("tokens", limits.tokens_per_minute, now_s)
        return headers


def duration_text(seconds: float) -> str:
    """Write a duration as OpenAI's headers do, such as `120ms`, `1.5s` or `6m0s`; rounded up, never early."""
    milliseconds = -int(-seconds * 1000 // 1)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest_ms = divmod(milliseconds, 60_000)
    rest = f"{rest_ms / 1000:g}s"
    return f"{minutes}m{rest}" if minutes else rest
