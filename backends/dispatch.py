"""Carry out a plan: try its deployments until one begins to answer, and rescue what the first attempt endangers.

After a failure the next deployment of the plan is tried (fallback); when none is left, the ones that may recover are
tried again (retry) after a random wait, within a share of all requests. While an attempt keeps the client waiting and
the deadline is in danger, a second one is started beside it (hedge); whoever answers first wins, and the other is
cancelled and billed for what it used. Where the plan may escalate, a whole answer of its first step is verified, and
when it will not do, a dearer step answers in its place (escalation). All of it ends with the first byte for the client,
stays inside the one deadline, and is not done when the request itself was at fault.
"""

import asyncio
import random
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from backends.admission_queue import AdmissionQueue
from backends.attempt import LiveAnswer
from backends.hedging import Hedging, PlannedHedge
from backends.protocol import AttemptError
from backends.registry import Registry
from backends.rescue_budget import NO_RESCUE, RescueRules, ShareBudget
from backends.shielded import uninterrupted
from backends.tries import Errand, Try
from core.clock import Clock
from core.errors import DeadlineExceeded, HeadgateError, InvalidRequest, Unavailable, UpstreamFailed
from core.plan import PlannedStep, Readiness
from core.trace import AttemptKind, AttemptOutcome
from core.trace_context import PASS_ON, Propagation

BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 2.0
LONGEST_UNBOUND_WAIT_S = 10.0
MAY_PASS = frozenset({None, 408, 409, 425, 429})
LATE = frozenset({AttemptOutcome.TIMED_OUT, AttemptOutcome.GIVEN_UP})
OUTRUN = AttemptError(AttemptOutcome.OUTRUN, "another attempt answered first")


class Dispatcher:
    """Opens deployments of the registry in the plan's order; keeps the budgets of rescue for all requests."""

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        rules: RescueRules = NO_RESCUE,
        rng: random.Random | None = None,
        queue: AdmissionQueue | None = None,
        propagation: Propagation = PASS_ON,
    ) -> None:
        """Rescue within `rules`; waits before retries are drawn from `rng`; `queue` says who is served next.

        `propagation` is what engines of ours are told of a request's trace.
        """
        self.registry = registry
        self.clock = clock
        self.rules = rules
        self.propagation = propagation
        self.queue = queue or AdmissionQueue({one.name: one.gate for one in registry}.__getitem__, clock)
        self.retries = ShareBudget(rules.retry_ratio)
        self.hedging = Hedging(registry, rules)
        self.rng = rng or random.Random()  # noqa: S311 - spreads retries, guards nothing

    def open(self, errand: Errand) -> AbstractAsyncContextManager[LiveAnswer]:
        """Yield the first answer that begins; every attempt is in the errand's log when the context ends.

        Raises:
            HeadgateError: no deployment answered; the error fits the last failure.
        """
        return _Race(self, errand)

    def translated(self, failure: AttemptError, step: PlannedStep) -> HeadgateError:
        """Return what the client is told when nothing answered."""
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


class _Race:
    """The attempts of one errand until one of them answers."""

    def __init__(self, dispatcher: Dispatcher, errand: Errand) -> None:
        self._dispatcher = dispatcher
        self._errand = errand
        self._tries: list[Try] = []
        self._open: list[Try] = []
        self._running: dict[asyncio.Task[None], Try] = {}
        self._retried = 0

    async def __aenter__(self) -> LiveAnswer:
        dispatcher, errand = self._dispatcher, self._errand
        dispatcher.retries.request()
        dispatcher.hedging.share.request()
        dispatcher.registry.want(errand.plan.degraded_from or errand.plan.tier)
        try:
            winner = await self._run()
        except BaseException:
            await self._end()
            raise
        winner.answer.spent_before_nano_usd = errand.log.cost_nano_usd
        return winner.answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _run(self) -> Try:
        """Return the attempt that answers first.

        Raises:
            HeadgateError: none did.
        """
        step, kind = self._errand.plan.steps[0], AttemptKind.FIRST
        if not self._dispatcher.queue.enter_at_once(self._errand.claim, step.deployment):
            step = await self._admitted()
        while True:
            outcome = await self._attempt(step, kind)
            if isinstance(outcome, Try):
                return await self._verified(outcome)
            following = await self._following(outcome)
            if following is None:
                raise self._dispatcher.translated(outcome, step) from outcome
            step, kind = following

    async def _admitted(self) -> PlannedStep:
        """Wait for a slot and return the step it is for: the planned tier's, or another's where the policy moves."""
        errand, clock = self._errand, self._dispatcher.clock
        steps = errand.plan.steps
        own = [step.deployment for step in steps if step.tier == steps[0].tier]
        others = [step.deployment for step in steps if step.tier != steps[0].tier]
        began_s = clock.monotonic_s()
        try:
            name = await self._dispatcher.queue.enter(errand.claim, own, others)
        finally:
            errand.log.queued_s = clock.monotonic_s() - began_s
        return next(step for step in steps if step.deployment == name)

    async def _verified(self, attempt: Try) -> Try:
        """Return the attempt, or the one that it escalates to when its answer will not do.

        Both are billed. When the other one fails, or no time is left for it, the answer at hand is better than none.
        """
        plan, verify, body = self._errand.plan, self._errand.verify, attempt.answer.body
        if plan.escalates_to is None or verify is None or body is None or attempt.step.tier != plan.tier:
            return attempt
        attempt.answer.rejected = verify(body)
        remaining_s = self._errand.deadline.remaining_s(self._dispatcher.clock, first_token_sent=False)
        if attempt.answer.rejected is None or remaining_s == 0.0:
            return attempt
        better = self._new(plan.steps[plan.escalates_to], AttemptKind.ESCALATION)
        try:
            await better.begin()
        except AttemptError as failure:
            await self._failed(better, failure)
            return attempt
        await self._close(attempt)
        return better

    async def _end(self) -> None:
        """End and record whatever is still under way."""
        if self._running:
            await uninterrupted(self._cancel_running(None))
        while self._open:
            await self._close(self._open[0])

    async def _attempt(self, step: PlannedStep, kind: AttemptKind) -> Try | AttemptError:
        """Try one step, with a hedge beside it where one is planned."""
        attempt = self._new(step, kind)
        hedge = self._planned_hedge()
        if hedge is not None:
            return await self._raced(attempt, hedge)
        try:
            await attempt.begin()
        except AttemptError as failure:
            return await self._failed(attempt, failure)
        return attempt

    async def _raced(self, first: Try, hedge: PlannedHedge | None) -> Try | AttemptError:
        self._launch(first)
        failure: AttemptError | None = None
        while self._running:
            wait_s = None if hedge is None else max(0.0, hedge.at_s - self._dispatcher.clock.monotonic_s())
            done, _ = await asyncio.wait(self._running, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if not done and hedge is not None:
                await self._start_hedge(hedge)
                hedge = None
            for task in done:
                attempt = self._running.pop(task)
                problem = task.exception()
                if problem is None:
                    await self._cancel_running(OUTRUN)
                    return attempt
                if not isinstance(problem, AttemptError):
                    raise problem
                failure = await self._failed(attempt, problem)
        assert failure is not None, "an attempt ends in an answer or a failure"
        return failure

    async def _failed(self, attempt: Try, failure: AttemptError) -> AttemptError:
        """Close an attempt that failed, and leave its deployment alone for as long as it asked."""
        await self._close(attempt)
        if failure.http_status in (429, 503) and failure.retry_after_s:
            self._dispatcher.registry.cool(attempt.step.deployment, failure.retry_after_s)
        return failure

    def _planned_hedge(self) -> PlannedHedge | None:
        if not self._errand.may_hedge or len(self._errand.plan.steps) < 2:
            return None
        used = [attempt.step.deployment for attempt in self._tries]
        return self._dispatcher.hedging.planned(self._errand, used, self._dispatcher.clock.monotonic_s())

    async def _start_hedge(self, hedge: PlannedHedge) -> None:
        """Start a hedge when its budgets, and the tenant's, have room for it."""
        errand, dispatcher = self._errand, self._dispatcher
        if (
            dispatcher.hedging.may_start(errand, hedge, dispatcher.clock.monotonic_s())
            and (await errand.afford(hedge.step))
            and dispatcher.queue.take(hedge.step.deployment)
        ):
            self._launch(self._new(hedge.step, AttemptKind.HEDGE))

    async def _following(self, failure: AttemptError) -> tuple[PlannedStep, AttemptKind] | None:
        """Return what to try after a failure, once it is time to; None when nothing may follow."""
        remaining_s = self._errand.deadline.remaining_s(self._dispatcher.clock, first_token_sent=False)
        if not failure.retryable or remaining_s == 0.0:
            return None
        used = {attempt.step.deployment for attempt in self._tries}
        for step in self._errand.plan.steps:
            if step.deployment not in used and self._dispatcher.queue.take(step.deployment):
                return step, AttemptKind.FALLBACK
        step = self._tries[-1].step
        if not await self._may_retry(failure, step, remaining_s) or not self._dispatcher.queue.take(step.deployment):
            return None
        return step, AttemptKind.RETRY

    async def _may_retry(self, failure: AttemptError, step: PlannedStep, remaining_s: float | None) -> bool:
        """Wait for the moment of a retry: at random, or as long as the deployment asked, inside all limits."""
        dispatcher, status = self._dispatcher, failure.http_status
        if self._retried >= dispatcher.rules.max_retries or not (status in MAY_PASS or (status or 0) >= 500):
            return False
        if dispatcher.registry[step.deployment].health.open_until_s is not None:
            return False
        most_s = min(LONGEST_BACKOFF_S, BACKOFF_S * 2**self._retried)
        wait_s = max(dispatcher.rng.uniform(0.0, most_s), failure.retry_after_s or 0.0)
        if wait_s >= (LONGEST_UNBOUND_WAIT_S if remaining_s is None else remaining_s):
            return False
        if self._errand.log.cost_nano_usd and not await self._errand.afford(step):
            return False
        if not dispatcher.retries.use():
            return False
        self._retried += 1
        await asyncio.sleep(wait_s)
        return True

    def _new(self, step: PlannedStep, kind: AttemptKind) -> Try:
        dispatcher = self._dispatcher
        registry, queue, n = dispatcher.registry, dispatcher.queue, len(self._tries) + 1
        attempt = Try(registry, queue, dispatcher.clock, self._errand, n, step, kind, dispatcher.propagation)
        self._tries.append(attempt)
        self._open.append(attempt)
        return attempt

    def _launch(self, attempt: Try) -> None:
        self._running[asyncio.create_task(attempt.begin())] = attempt

    async def _cancel_running(self, reason: AttemptError | None) -> None:
        """Cancel what still runs; with a `reason` it is why these attempts ended."""
        running, self._running = self._running, {}
        if not running:
            return
        for task, attempt in running.items():
            if reason is not None:
                attempt.answer.fail(reason)
            task.cancel()
        await asyncio.wait(running)
        for attempt in running.values():
            await self._close(attempt)

    async def _close(self, attempt: Try) -> None:
        self._open.remove(attempt)
        record = await attempt.close()
        is_lost = record.outcome is AttemptOutcome.OUTRUN
        now_s = self._dispatcher.clock.monotonic_s()
        self._dispatcher.hedging.money.spent(record.cost_nano_usd, now_s, by_hedge=is_lost)


def broken_off(failure: AttemptError) -> HeadgateError:
    """Return what the client is told when an answer fails after its first byte."""
    if failure.outcome in LATE:
        return DeadlineExceeded(f"The answer was cut: {failure.message}.")
    return UpstreamFailed(f"The answer was cut: {failure.message}.")
