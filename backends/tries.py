"""One attempt under way, from its start to the record of how it ended."""

import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import msgspec

from backends.admission_queue import AdmissionQueue
from backends.attempt import LiveAnswer
from backends.latency import Flight
from backends.opened import Opened
from backends.protocol import AttemptError, UpstreamCall
from backends.registry import Registry
from backends.shielded import uninterrupted
from backends.waiting_lines import Claim
from core.chat import ChatRequest
from core.clock import Clock
from core.deadline import Deadline
from core.plan import Plan, PlannedStep, Readiness
from core.trace import Attempt, AttemptKind, AttemptOutcome
from core.trace_context import PASS_ON, Propagation

LONGEST_WAIT_S = 60.0
Afford = Callable[[PlannedStep], Awaitable[bool]]
"""Holds the worst case of one more attempt beyond the plan's, or says that the budget has no room for it."""

Verify = Callable[[bytes], str | None]
"""Says why a whole answer will not do, None when it will."""
ANYONE = Claim()


async def nothing_more(step: PlannedStep) -> bool:
    """Refuse whatever costs more than the plan."""
    return False


@dataclass(slots=True)
class AttemptLog:
    """Every finished attempt of one request, in order of their ends, and how long it waited for a slot.

    What the request costs is the sum over its attempts.
    """

    attempts: list[Attempt] = field(default_factory=list)
    queued_s: float = 0.0

    @property
    def cost_nano_usd(self) -> int:
        """Return the sum over all attempts."""
        cost_nano_usd = 0
        for attempt in self.attempts:
            cost_nano_usd += attempt.cost_nano_usd
        return cost_nano_usd

    @property
    def cost_by_tier(self) -> dict[str, int]:
        """Return each tier's part of the cost, for budgets of one tier."""
        by_tier: dict[str, int] = {}
        for attempt in self.attempts:
            by_tier[attempt.tier] = by_tier.get(attempt.tier, 0) + attempt.cost_nano_usd
        return by_tier

    def waited_ms(self, open_since_ms: float | None = None, now_ms: float = 0.0) -> float:
        """Return how long the request waited for a slot and for upstreams; attempts may overlap.

        Args:
            open_since_ms: when an attempt began that is not in the log yet, since the request was received.
            now_ms: the present, which counts only with such an attempt.
        """
        first_ms, last_ms = (math.inf, -math.inf) if open_since_ms is None else (open_since_ms, now_ms)
        for attempt in self.attempts:
            first_ms = attempt.started_ms if attempt.started_ms < first_ms else first_ms
            last_ms = attempt.ended_ms if attempt.ended_ms > last_ms else last_ms
        return self.queued_s * 1000 + (last_ms - first_ms if last_ms > -math.inf else 0.0)


class Errand(msgspec.Struct, frozen=True):
    """What one request asks of dispatch.

    Attributes:
        received_s: the monotonic moment the request arrived; attempts are timed from it.
        traceparent: the caller's trace context, as it came.
        tenant: whose prefixes engines keep apart from those of others.
        afford: holds the cost of one more attempt.
        may_hedge: whether a second attempt may run beside the first.
        claim: its place among others where deployments are busy.
        verify: says why the first step's answer will not do, where the plan may escalate.
    """

    plan: Plan
    request: ChatRequest
    deadline: Deadline
    log: AttemptLog
    received_s: float
    traceparent: str | None = None
    tenant: str = ""
    afford: Afford = nothing_more
    may_hedge: bool = True
    claim: Claim = ANYONE
    verify: Verify | None = None


class Try:
    """One attempt: `begin` reads until it answers, `close` ends and records it, once, however far it came.

    It holds a slot of its deployment, which was taken before and is given back to `queue` when it is closed.
    """

    def __init__(
        self,
        registry: Registry,
        queue: AdmissionQueue,
        clock: Clock,
        errand: Errand,
        n: int,
        step: PlannedStep,
        kind: AttemptKind,
        propagation: Propagation = PASS_ON,
    ) -> None:
        self.step = step
        self.kind = kind
        self.deployment = registry[step.deployment]
        self.answer = LiveAnswer(
            n, step, self.deployment, errand.request, errand.deadline, clock, errand.received_s, kind
        )
        self._registry = registry
        self._queue = queue
        self._began_s = clock.monotonic_s()
        self._clock = clock
        self._errand = errand
        self._propagation = propagation
        self._opened: AbstractAsyncContextManager[None] | None = None
        self._flight: Flight | None = None

    async def begin(self) -> None:
        """Open the deployment and read until the answer begins.

        Raises:
            AttemptError: nothing was sent to the client yet, so another attempt may follow.
        """
        errand, step = self._errand, self.step
        if self.deployment.readiness() is Readiness.LOADING:
            await self._wait()
        tokens = errand.request.estimated_input_tokens()
        self._flight = self._registry.take_off(step.deployment, tokens, streamed=errand.request.stream)
        call = UpstreamCall(
            path=errand.request.path,
            body=errand.request.upstream_body(
                self.deployment.model,
                ask_usage=self.deployment.ask_usage,
                max_tokens=step.sent_max_tokens,
                cache_salt=None if self.deployment.salt is None else self.deployment.salt(errand.tenant),
            ),
            request_id=errand.request.request_id,
            traceparent=self._traceparent() if self.deployment.local else None,
            content_type=errand.request.content_type,
            tells_deadline=self.deployment.local,
            headers=errand.request.demands.passed,
        )
        opening = Opened(self.answer, self.deployment, call, errand.deadline)
        await opening.__aenter__()
        self._opened = opening
        self._registry.began(step.deployment, self._flight)

    async def close(self) -> Attempt:
        """Release the connection, write the attempt down and learn from it."""
        try:
            if self.answer.is_worth_draining:
                await uninterrupted(self.answer.drain())
        finally:
            try:
                if self._opened is not None:
                    await self._opened.__aexit__(None, None, None)
            finally:
                if self._flight is not None:
                    self._registry.land(self.step.deployment, self._flight)
            attempt = self.answer.record()
            self._errand.log.attempts.append(attempt)
            streamed, rests = self._errand.request.stream, self.answer.asks_for_rest
            self._registry.learn(attempt, streamed=streamed, flight=self._flight, rests=rests)
            self._queue.leave(self.step.deployment, self._clock.monotonic_s() - self._began_s)
            self.answer.let_go()
        return attempt

    def _traceparent(self) -> str | None:
        """Return what an engine of ours is told, so that its spans lie below this attempt's; nobody else is told."""
        errand = self._errand
        return self._propagation.traceparent(errand.request.request_id, errand.traceparent, self.answer.n)

    async def _wait(self) -> None:
        limit_s = self._errand.deadline.remaining_s(self._clock, first_token_sent=False)
        name = self.step.deployment
        if not await self._registry.wait_ready(name, LONGEST_WAIT_S if limit_s is None else limit_s):
            failure = AttemptError(AttemptOutcome.REFUSED, "the engine was not ready in time")
            self.answer.fail(failure)
            raise failure
