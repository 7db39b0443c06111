"""The path of one request, stage by stage, from admission to settled cost.

resolve -> admit -> lookup -> classify -> plan -> reserve -> dispatch -> store -> settle -> trace

A failing cache never fails a request (it degrades to a miss), nor does a missing encoder (the classifier judges from
text alone); a ledger that cannot hold the cost does, as the tenant's policy says. Whatever happens, the hold is settled
and the trace is recorded.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from backends.dispatch import Dispatcher
from backends.sse import data_of
from cache.semantic_cache import SemanticCache
from cache.single_flight import Follower, LeaderFailed, SingleFlight
from core.cached import Bypass, ExactHit, Found, Miss, NearHit, SemanticHit
from core.chat import ChatRequest
from core.clock import Clock
from core.errors import BudgetExhausted, HeadgateError, NotCached, Unavailable, UpstreamFailed, reason_of
from core.facts import RequestFacts
from core.identity import Caller
from core.money import usd_text
from core.plan import Complexity, Plan, PlannedStep, Reason
from core.rules import AutoTarget, EffectivePolicy
from core.time_limit import TimeLimit
from core.trace import TraceSink
from gateway.answer import Answer, AnswerHead, AnswerTail, Headers, Published
from gateway.counterfactual import baseline_price
from gateway.further_holds import FurtherHolds
from gateway.holdout import Holdout
from gateway.learning.feedback import Owners
from gateway.learning.learns import Learns
from gateway.promises import affinity_of, errand_of
from gateway.receipts import Receipts
from gateway.relay import CACHE_LIMIT_S, Relay, Source
from gateway.trace_draft import TraceDraft
from gateway.wire.replay import replay
from policies.access import check_scopes, check_tiers, narrowed
from policies.admission import Admission, Admitted
from policies.ledger import BudgetLedger
from policies.loading import PolicySet
from policies.reservation import Holding, hold
from policies.resolution import resolve
from router.complexity import Classifier
from router.control import Control, Watched
from router.decision import Inputs, decide
from router.facts import facts_of
from router.rules import ruled
from router.sessions import Session, SessionBook, after, state_of
from router.sessions import holding as is_holding

EXPECTED_OUTPUT_TOKENS = 1_024
logger = logging.getLogger("headgate.pipeline")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The stages, each behind its protocol; built by `gateway.compose` alone."""

    policies: Callable[[], PolicySet]
    admission: Admission
    ledger: BudgetLedger
    cache: SemanticCache
    classifier: Classifier
    calibrated: Callable[[str, Complexity], Complexity]
    dispatcher: Dispatcher
    sink: TraceSink
    clock: Clock
    tiers: tuple[str, ...]
    store_is_away: Callable[[], bool]
    flights: SingleFlight[Published]
    control: Control
    owners: Owners
    sessions: SessionBook
    receipts: Receipts
    holdout: Holdout
    learning: Learns

    @asynccontextmanager
    async def open(self, caller: Caller, request: ChatRequest, draft: TraceDraft) -> AsyncIterator[Answer]:
        """Carry one request from admission to settled cost; `draft` collects what the trace will tell.

        Raises:
            HeadgateError: refused, or nothing answered, before the first byte.
        """
        self.owners.note(request.request_id, caller.tenant)
        try:
            policy = draft.policy = resolve(self.policies(), caller, request.model, request.demands.tier)
            draft.baseline_price = baseline_price(policy, self.dispatcher.registry)
            caller = check_scopes(caller, policy, request)
            facts = draft.facts = facts_of(request, draft.path, caller.user)
            policy = draft.policy = ruled(narrowed(policy, caller), facts)
            check_tiers(caller, policy)
            policy = draft.policy = self.holdout.drawn(policy, draft)
            tokens = expected_tokens(request, policy)
            rules = policy.tenant_policy
            async with self.admission.admit(caller, rules, tokens, rules.key_limits) as admitted:
                found = draft.found = await self._lookup(caller, request, policy)
                if isinstance(found, ExactHit | SemanticHit):
                    admitted.used_tokens = 0
                    yield self._replayed(found, policy, admitted, draft)
                    return
                if request.demands.cache.only_if_cached:
                    raise NotCached("No cached answer may be served for this request.")
                async with self.flights.join(self.cache.flight_key(caller, request, policy)) as place:
                    if isinstance(place, Follower):
                        yield await self._followed(place, admitted, draft)
                        return
                    session = draft.session = self.sessions.open(caller, request, facts, rules)
                    judged = await self._classify(request, facts, policy, session, found)
                    complexity = draft.complexity = self.learning.judged(draft, judged, found.vector)
                    snapshot = self.dispatcher.registry.snapshot(affinity_of(caller, request))
                    inputs = Inputs(facts, policy, complexity, admitted.standing, snapshot, session=state_of(session))
                    async with FurtherHolds(self.ledger, caller, rules, request.request_id) as further:
                        plan, granted, watched = await self._granted(caller, inputs, draft)
                        async with granted as reservation:
                            try:
                                registry = self.dispatcher.registry
                                errand = errand_of(plan, policy, draft, further.afford, snapshot, registry)
                                async with self.dispatcher.open(errand) as live:
                                    source = Source(caller, policy, plan, admitted, live, place)
                                    async with Relay(source, draft, self.cache, self.learning, self.clock) as relay:
                                        yield self._relayed(source, relay, draft)
                            finally:
                                self.control.ended(watched, draft.attempts)
                                reservation.charge(draft.attempts.cost_nano_usd, draft.attempts.cost_by_tier)
        except HeadgateError as error:
            draft.error = error
            raise
        except asyncio.CancelledError as cancelled:
            draft.error = reason_of(cancelled)
            raise
        except Exception:
            draft.error = HeadgateError("The gateway failed to handle this request.")
            raise
        finally:
            self.receipts.note(draft)
            self.sink.record(draft.freeze(self.clock.monotonic_s()))

    async def _lookup(self, caller: Caller, request: ChatRequest, policy: EffectivePolicy) -> Found:
        """Ask the cache within a bound: a slow encoder or store is a miss, not a wait."""
        try:
            with TimeLimit(CACHE_LIMIT_S):
                return await self.cache.lookup(caller, request, policy)
        except TimeoutError:
            logger.warning("the cache took too long to look up", extra={"request_id": request.request_id})
            return Miss()

    async def _classify(
        self,
        request: ChatRequest,
        facts: RequestFacts,
        policy: EffectivePolicy,
        session: Session | None,
        found: NearHit | Miss | Bypass,
    ) -> Complexity | None:
        """Judge complexity only where the score decides: not after an explicit choice, a rule, or in a held session."""
        if not isinstance(policy.target, AutoTarget):
            return None
        if is_holding(state_of(session), facts, policy.tenant_policy.routing.sessions) is not None:
            return None
        judged = await self.classifier.classify(request, found.vector)
        return self.calibrated(policy.tenant_policy.tenant, judged)

    async def _granted(self, caller: Caller, inputs: Inputs, draft: TraceDraft) -> tuple[Plan, Holding, Watched | None]:
        """Decide, and hold the plan's worst case on every budget that its tiers touch; enter the hold at once.

        When others took the money since the standing was read, a second plan on a fresh one may step down a tier.

        Raises:
            BudgetExhausted: nothing that may answer fits.
        """
        request_id, rules = draft.request.request_id, inputs.policy.tenant_policy
        for is_last in (False, True):
            plan = self._decide(inputs, draft)
            tiers = frozenset(step.tier for step in plan.steps)
            holding = hold(self.ledger, request_id, caller, rules, plan.worst_case_nano_usd, tiers)
            try:
                await holding.grant()
                return plan, holding, self.control.planned(rules, inputs.complexity, plan, inputs.standing)
            except BudgetExhausted:
                if is_last:
                    raise
                inputs = msgspec.structs.replace(inputs, standing=await self.ledger.standing(caller, rules))
        raise AssertionError("the second refusal was raised")

    def _decide(self, inputs: Inputs, draft: TraceDraft) -> Plan:
        """Decide, and keep what from; where nothing is ready, engines that sleep are woken for the next request."""
        steering = self.control.steering(inputs.policy.tenant_policy, inputs.standing)
        steered = draft.inputs = Inputs(
            inputs.facts,
            inputs.policy,
            inputs.complexity,
            inputs.standing,
            inputs.registry,
            steering,
            inputs.session,
            self.learning.draw(draft),
        )
        draft.decision = None
        try:
            decision = draft.decision = decide(steered)
        except Unavailable:
            self.dispatcher.registry.want()
            raise
        draft.plan = decision.plan
        return decision.plan

    def _replayed(
        self, hit: ExactHit | SemanticHit, policy: EffectivePolicy, admitted: Admitted, draft: TraceDraft
    ) -> Answer:
        request, answer = draft.request, hit.entry.answer
        headers = self._headers(draft, answer.tier, answer.deployment, "cache", upstream_s=0.0)
        headers += (("x-headgate-cost-usd", "0"), ("age", str(int(hit.age_s))), *admitted.limit_headers.items())
        if policy.tenant_policy.cache.expose_details:
            score = hit.score if isinstance(hit, SemanticHit) else 1.0
            headers += (
                ("x-headgate-cache-entry", hit.entry.entry_id),
                ("x-headgate-cache-score", f"{score:.4f}"),
                ("x-headgate-cache-saved-usd", usd_text(answer.cost_nano_usd)),
            )
        chunks = replay(answer, request, int(draft.received_at.timestamp()))
        return Answer(request.stream, headers, _timed(chunks, draft, self.clock))

    async def _followed(self, place: Follower[Published], admitted: Admitted, draft: TraceDraft) -> Answer:
        """Follow an identical request that is under way: its bytes as they come, at no cost."""
        items = place.items()
        try:
            head = await anext(items)
        except LeaderFailed as failure:
            raise UpstreamFailed("The identical request that was under way failed.") from failure
        assert isinstance(head, AnswerHead), "a leader publishes its head first"
        admitted.used_tokens = 0
        draft.joined = head
        headers = self._headers(draft, head.tier, head.deployment, "cache", upstream_s=0.0)
        headers += (("x-headgate-cost-usd", "0"), *admitted.limit_headers.items())
        return Answer(draft.request.stream, headers, _timed(_following(items, draft), draft, self.clock))

    def _relayed(self, source: Source, relay: Relay, draft: TraceDraft) -> Answer:
        live, plan = source.live, source.plan
        draft.live = live
        self._note_turn(draft, live.step)
        self.learning.note(draft, live.step.tier)
        now_ms = (self.clock.monotonic_s() - draft.received_s) * 1000
        waited_s = draft.attempts.waited_ms(now_ms - live.elapsed_s * 1000, now_ms) / 1000
        headers = self._headers(draft, live.step.tier, live.step.deployment, plan.reason.value, waited_s)
        headers += (*source.admitted.limit_headers.items(), *live.headers)
        degraded_from = draft.degraded_from = self._degraded_from(source)
        if degraded_from is not None:
            headers += (("x-headgate-degraded-from", degraded_from),)
        if not draft.request.stream:
            cost_nano_usd = draft.attempts.cost_nano_usd + live.cost_nano_usd
            headers += (("x-headgate-cost-usd", usd_text(cost_nano_usd)),)
        return Answer(draft.request.stream, headers, relay, live.content_type, relay.flow_to)

    def _note_turn(self, draft: TraceDraft, step: PlannedStep) -> None:
        """Let the conversation's next turn know who answers this one."""
        session, decision, facts = draft.session, draft.decision, draft.facts
        if session is None or decision is None or facts is None:
            return
        if draft.is_held_out or decision.plan.reason is Reason.EXPLORE:
            return
        state = after(session.state, facts, step.tier, step.deployment, was_easy=decision.was_easy)
        self.sessions.note(draft.caller.tenant, Session(session.id, state))

    def _degraded_from(self, source: Source) -> str | None:
        """Return the tier that was wanted when a cheaper one answers, whether the plan or a fallback chose it."""
        wanted, answering = source.plan.degraded_from or source.plan.tier, source.live.step.tier
        rank = {tier: at for at, tier in enumerate(self.tiers)}
        return wanted if rank.get(answering, 0) < rank.get(wanted, 0) else None

    def _headers(self, draft: TraceDraft, tier: str, deployment: str, reason: str, upstream_s: float) -> Headers:
        overhead_ms = (self.clock.monotonic_s() - draft.received_s - upstream_s) * 1000
        away = (("x-headgate-store", "away"),) if self.store_is_away() else ()
        explained = (self.receipts.header(draft, reason),) if draft.request.demands.explain else ()
        return (
            *away,
            *explained,
            ("x-request-id", draft.request.request_id),
            ("x-headgate-cache", draft.cache),
            ("x-headgate-tier", tier),
            ("x-headgate-deployment", deployment),
            ("x-headgate-reason", reason),
            ("x-headgate-overhead-ms", f"{max(0.0, overhead_ms):.2f}"),
        )


def expected_tokens(request: ChatRequest, policy: EffectivePolicy) -> int:
    """Return what the request is expected to use of its token rate; the actual usage corrects it at the end."""
    limits = [limit for limit in (request.max_tokens, policy.tenant_policy.max_output_tokens) if limit is not None]
    output = min([*limits, EXPECTED_OUTPUT_TOKENS])
    return request.estimated_input_tokens() + output * request.n


async def _timed(chunks: AsyncIterator[bytes], draft: TraceDraft, clock: Clock) -> AsyncIterator[bytes]:
    """Pass `chunks` on, note when the first one left, and turn a leader's failure into an error of the request."""
    try:
        async for chunk in chunks:
            if draft.first_sent_s is None:
                draft.first_sent_s = clock.monotonic_s()
            yield chunk
    except LeaderFailed as failure:
        draft.error = UpstreamFailed("The answer was cut: the identical request that led it ended.")
        raise draft.error from failure


async def _following(items: AsyncIterator[Published], draft: TraceDraft) -> AsyncIterator[bytes]:
    """Yield a leader's bytes; what its usage chunk says of cost is the leader's, a follower pays nothing."""
    async for item in items:
        if isinstance(item, AnswerTail):
            draft.joined_tail = item
        elif isinstance(item, bytes):
            yield without_cost(item) if b'"headgate"' in item else item


def without_cost(frame: bytes) -> bytes:
    """Return an SSE frame with the cost in its `headgate` field set to 0, or as it is when it has none."""
    try:
        fields = msgspec.json.decode(data_of(frame), type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return frame
    if "headgate" not in fields:
        return frame
    fields["headgate"] = msgspec.Raw(b'{"cost_usd":"0"}')
    return b"data: " + msgspec.json.encode(fields) + b"\n\n"
