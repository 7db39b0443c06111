"""Carry out a plan: try its deployments in order until one begins to answer.

A try may follow another only before the first byte went to the client, inside the same deadline, and not when the
request itself was at fault.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from backends.attempt import LiveAnswer, opened
from backends.protocol import AttemptError, UpstreamCall
from backends.registry import Registry
from core.chat import ChatRequest
from core.clock import Clock
from core.deadline import Deadline
from core.errors import DeadlineExceeded, HeadgateError, InvalidRequest, Unavailable, UpstreamFailed
from core.plan import Plan, PlannedStep, Readiness
from core.trace import Attempt, AttemptOutcome

LONGEST_WAIT_S = 60.0
LATE = frozenset({AttemptOutcome.TIMED_OUT, AttemptOutcome.GIVEN_UP})


@dataclass(slots=True)
class AttemptLog:
    """Every finished attempt of one request, in order; what the request costs is their sum."""

    attempts: list[Attempt] = field(default_factory=list)

    @property
    def cost_nano_usd(self) -> int:
        """Return the sum over all attempts."""
        return sum(attempt.cost_nano_usd for attempt in self.attempts)

    @property
    def cost_by_tier(self) -> dict[str, int]:
        """Return each tier's part of the cost, for budgets of one tier."""
        by_tier: dict[str, int] = {}
        for attempt in self.attempts:
            by_tier[attempt.tier] = by_tier.get(attempt.tier, 0) + attempt.cost_nano_usd
        return by_tier

    @property
    def elapsed_s(self) -> float:
        """Return the seconds spent waiting for these attempts."""
        return sum(attempt.ended_ms - attempt.started_ms for attempt in self.attempts) / 1000


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Opens deployments of the registry in the plan's order."""

    registry: Registry
    clock: Clock

    @asynccontextmanager
    async def open(
        self,
        plan: Plan,
        request: ChatRequest,
        deadline: Deadline,
        log: AttemptLog,
        received_s: float,
        traceparent: str | None = None,
        tenant: str = "",
    ) -> AsyncIterator[LiveAnswer]:
        """Yield the first answer that begins; every attempt, the winning one too, is in `log` when the context ends.

        Args:
            received_s: the monotonic moment the request arrived; attempts are timed from it.
            traceparent: passed on to engines of ours.
            tenant: whose prefixes engines keep apart from those of others.

        Raises:
            HeadgateError: no deployment answered; the error fits the last failure.
        """
        failure: AttemptError | None = None
        self.registry.want(plan.degraded_from or plan.tier)
        tokens = request.estimated_input_tokens()
        for n, step in enumerate(plan.steps, start=1):
            deployment = self.registry[step.deployment]
            answer = LiveAnswer(n, step, deployment, request, deadline, self.clock, received_s, log.cost_nano_usd)
            with self.registry.flight(step.deployment, tokens, streamed=request.stream) as flight:
                try:
                    async with AsyncExitStack() as stack:
                        try:
                            await self._begin(stack, answer, step, request, deadline, traceparent, tenant)
                        except AttemptError as problem:
                            failure = problem
                        else:
                            failure = None
                            self.registry.began(step.deployment, flight)
                            yield answer
                            return
                finally:
                    attempt = answer.record()
                    log.attempts.append(attempt)
                    self.registry.learn(attempt, streamed=request.stream, flight=flight)
            if not failure.retryable or deadline.remaining_s(self.clock, first_token_sent=False) == 0.0:
                break
        assert failure is not None, "a plan has at least one step"
        raise self._translated(failure, step) from failure

    async def _begin(
        self,
        stack: AsyncExitStack,
        answer: LiveAnswer,
        step: PlannedStep,
        request: ChatRequest,
        deadline: Deadline,
        traceparent: str | None,
        tenant: str,
    ) -> None:
        deployment = self.registry[step.deployment]
        if deployment.readiness() is Readiness.LOADING:
            await self._wait(answer, step, deadline)
        call = UpstreamCall(
            path=request.path,
            body=request.upstream_body(
                deployment.model,
                ask_usage=deployment.ask_usage,
                max_tokens=step.sent_max_tokens,
                cache_salt=None if deployment.salt is None else deployment.salt(tenant),
            ),
            request_id=request.request_id,
            traceparent=traceparent if deployment.local else None,
            content_type=request.content_type,
        )
        await stack.enter_async_context(opened(answer, deployment, call, deadline))

    async def _wait(self, answer: LiveAnswer, step: PlannedStep, deadline: Deadline) -> None:
        limit_s = deadline.remaining_s(self.clock, first_token_sent=False)
        if not await self.registry.wait_ready(step.deployment, LONGEST_WAIT_S if limit_s is None else limit_s):
            failure = AttemptError(AttemptOutcome.REFUSED, "the engine was not ready in time")
            answer.fail(failure)
            raise failure

    def _translated(self, failure: AttemptError, step: PlannedStep) -> HeadgateError:
        if failure.outcome in LATE:
            return DeadlineExceeded(f"The deadline of tier {step.tier!r} passed: {failure.message}.")
        if failure.outcome is AttemptOutcome.REFUSED and not failure.retryable:
            return InvalidRequest(failure.message)
        if failure.http_status in (429, 503):
            return Unavailable("The deployment is overloaded.", failure.retry_after_s or 1.0)
        if self.registry.readiness_of(step.deployment) is not Readiness.READY:
            snapshot = self.registry.snapshot().deployments[step.deployment]
            return Unavailable(f"Tier {step.tier!r} cannot answer now.", snapshot.retry_after_s)
        return UpstreamFailed(f"No deployment answered: {failure.message}.")


def broken_off(failure: AttemptError) -> HeadgateError:
    """Return what the client is told when an answer fails after its first byte."""
    if failure.outcome in LATE:
        return DeadlineExceeded(f"The answer was cut: {failure.message}.")
    return UpstreamFailed(f"The answer was cut: {failure.message}.")
