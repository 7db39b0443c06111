"""Ask a deployment behind the client's back, on the tenant's budget: to verify what was served, or to learn.

plan -> hold -> dispatch -> settle -> a trace of its own, whose path is `shadow:PURPOSE`, so that traced cost adds up to
the ledger's. The cache is neither asked nor filled, and rate limits are the client's alone. What is asked has no
fallback, and nothing is asked while the store is away, when the budget is exhausted or would make the plan step down,
while requests wait for the deployment, or when too much is being asked already: the answer is then None. Nobody waits
for it, so it never slows a client; `close` ends what is under way.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from backends.attempt import LiveAnswer
from backends.dispatch import Dispatcher, broken_off
from backends.protocol import AttemptError
from backends.tries import Errand
from cache.shadow import Ask
from core.chat import ChatRequest, Demands
from core.clock import Clock
from core.deadline import Deadline
from core.errors import HeadgateError, reason_of
from core.identity import Caller, new_request_id
from core.money import Usage
from core.plan import Plan, Reason
from core.rules import NO_SLA, AutoTarget, EffectivePolicy, TierTarget
from core.trace import SHADOW_PATH, TraceSink
from gateway.trace_draft import TraceDraft
from policies.ledger import BudgetLedger
from policies.reservation import hold
from router.facts import facts_of
from router.planner import make_plan

MOST_AT_ONCE = 8
LONGEST_MS = 60_000
LEAST_QUEUE_MS = 10.0  # the forecast keeps a trace of a wait that is long over; less than this nobody waits for


@dataclass(frozen=True, slots=True)
class Asked:
    """A complete answer of one choice of plain text; `finish_reason` tells whether it was truncated."""

    content: str
    finish_reason: str
    tier: str
    deployment: str
    usage: Usage | None
    cost_nano_usd: int


class Asking:
    """Asks on a tenant's account, at most `most_at_once` requests at a time."""

    def __init__(
        self,
        ledger: BudgetLedger,
        dispatcher: Dispatcher,
        sink: TraceSink,
        clock: Clock,
        store_is_away: Callable[[], bool],
        *,
        most_at_once: int = MOST_AT_ONCE,
    ) -> None:
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._sink = sink
        self._clock = clock
        self._store_is_away = store_is_away
        self._most_at_once = most_at_once
        self._running: set[asyncio.Task[object]] = set()
        self._is_closed = False

    async def ask(
        self, caller: Caller, request: ChatRequest, policy: EffectivePolicy, *, purpose: str, tier: str | None = None
    ) -> Asked | None:
        """Ask what `request` asks, as a request of its own; None when it may not be asked or was not answered.

        Args:
            caller: who pays.
            request: a request that was answered already; its headers' wishes do not hold here.
            policy: its policy.
            purpose: a word of the code, such as `cache`, which the trace's path carries.
            tier: the tier to ask; without one, a request that left the choice to the router goes to the dearest.
        """
        task = asyncio.current_task()
        assert task is not None
        if self._is_closed or self._store_is_away() or len(self._running) >= self._most_at_once:
            return None
        self._running.add(task)
        draft = TraceDraft(
            caller, unaccompanied(request), SHADOW_PATH + purpose, self._clock.now(), self._clock.monotonic_s(), None
        )
        draft.policy = aimed_at(policy, tier)
        try:
            return await self._carried(draft, draft.policy)
        except HeadgateError as error:
            draft.error = error
        except asyncio.CancelledError as cancelled:
            draft.error = reason_of(cancelled)
            raise
        finally:
            self._running.discard(task)
            if draft.attempts.attempts:
                self._sink.record(draft.freeze(self._clock.monotonic_s()))
        return None

    async def close(self) -> None:
        """End what is under way, settled and traced, and ask nothing more."""
        self._is_closed = True
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _carried(self, draft: TraceDraft, policy: EffectivePolicy) -> Asked | None:
        """Plan, hold, ask, settle.

        Raises:
            HeadgateError: not granted, not affordable, or not answered.
        """
        plan = await self._planned(draft, policy)
        if plan is None:
            return None
        draft.plan = plan
        request, rules = draft.request, policy.tenant_policy
        limit_ms = rules.sla.get(plan.tier, NO_SLA).total_ms or LONGEST_MS
        deadline = Deadline.after(draft.received_s, None, limit_ms)
        tiers = frozenset(step.tier for step in plan.steps)
        holding = hold(self._ledger, request.request_id, draft.caller, rules, plan.worst_case_nano_usd, tiers)
        async with holding as reservation:
            try:
                log, tenant = draft.attempts, draft.caller.tenant
                errand = Errand(plan, request, deadline, log, draft.received_s, tenant=tenant, may_hedge=False)
                async with self._dispatcher.open(errand) as live:
                    return await _answer_of(live)
            finally:
                reservation.charge(draft.attempts.cost_nano_usd, draft.attempts.cost_by_tier)

    async def _planned(self, draft: TraceDraft, policy: EffectivePolicy) -> Plan | None:
        """Return a plan of one step that does what was meant, or None."""
        standing = await self._ledger.standing(draft.caller, policy.tenant_policy)
        is_exhausted = standing.free_nano_usd is not None and standing.free_nano_usd <= 0
        if is_exhausted or self._store_is_away():
            return None
        snapshot = self._dispatcher.registry.snapshot()
        plan = make_plan(facts_of(draft.request, draft.path, draft.caller.user), policy, None, standing, snapshot)
        if plan.degraded_from is not None or plan.reason in (Reason.BUDGET, Reason.UNHEALTHY, Reason.LOADING):
            return None
        forecast = snapshot.deployments[plan.steps[0].deployment].forecast
        if forecast is not None and forecast.queue_ms >= LEAST_QUEUE_MS:
            return None
        return msgspec.structs.replace(plan, steps=plan.steps[:1])


def unaccompanied(request: ChatRequest) -> ChatRequest:
    """Return the request under a fresh id, not streamed, and without what its headers asked for."""
    fields = {name: raw for name, raw in request.fields.items() if name not in ("stream", "stream_options")}
    return msgspec.structs.replace(
        request, request_id=new_request_id(), fields=fields, stream=False, include_usage=False, demands=Demands()
    )


def aimed_at(policy: EffectivePolicy, tier: str | None) -> EffectivePolicy:
    """Return the policy with `tier` as target, unless the client named a deployment, which stays what it asked for."""
    if tier is None or not isinstance(policy.target, AutoTarget | TierTarget):
        return policy
    return replace(policy, target=TierTarget(tier))


def hit_check(asking: Asking) -> Ask:
    """Return how a cached answer is verified: by a whole answer of the tier that made it."""

    async def ask(caller: Caller, request: ChatRequest, policy: EffectivePolicy, tier: str) -> str | None:
        asked = await asking.ask(caller, request, policy, purpose="cache", tier=tier)
        return asked.content if asked is not None and asked.finish_reason == "stop" else None

    return ask


async def _answer_of(live: LiveAnswer) -> Asked | None:
    try:
        async for _ in live.chunks():
            pass
    except AttemptError as failure:
        raise broken_off(failure) from failure
    captured = live.captured()
    if captured is None or not captured.plain:
        return None
    return Asked(
        content=captured.content,
        finish_reason=captured.finish_reason,
        tier=live.step.tier,
        deployment=live.step.deployment,
        usage=live.usage,
        cost_nano_usd=live.cost_nano_usd,
    )
