"""Replay logged requests under other policies: the real planner, control, limits and ledger on a clock moved by hand.

What is replayed: resolution of the model's name, the holdout, rate and concurrency limits, budgets with holds, control
(share, mean cost, pace), rules, sessions as they stood, weighing with the forecasts of the moment, the cascade. What is
taken from the log: how hard a request was judged, whether the cache hit (as far as the candidate's answers may be kept,
too), and what deployments took (`donors`). Whoever stays with the deployment that answered keeps its cost and times.

What nobody can know is counted: `imputed` decisions (the log has no inputs, as for a hit whose cache is now off) borrow
those of another request of the tenant; `unmeasured` ones go to a deployment that never answered in the log, and keep
the times of the answer that they had, at that deployment's price.
"""

import heapq
import random
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from core.clock import ManualClock
from core.errors import BudgetExhausted, HeadgateError
from core.facts import RequestFacts
from core.identity import Caller
from core.money import Usage
from core.plan import Complexity, DeploymentSnapshot, Plan, Reason, RegistrySnapshot
from core.rules import NO_SLA, AutoTarget, EffectivePolicy, TenantPolicy
from gateway.holdout import Holdout, on_baseline_path
from gateway.whatif.donors import Donors, ease_of
from gateway.whatif.history import Past
from policies.admission import Admission, Admitted
from policies.ledger import Cost, Hold
from policies.ledger_memory import MemoryLedger
from policies.loading import PolicySet
from policies.resolution import resolve
from router.control import Control, Watched
from router.decision import Inputs, decide
from router.receipt import RecordedInputs
from router.rules import GENERATING, ruled
from router.sessions import SessionState

EXPECTED_OUTPUT_TOKENS = 1_024
_holdout = Holdout(b"simulation")


class Ended(StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    HIT = "hit"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one request; `kept` whether its own cost and times stand, `imputed` and `unmeasured` as above."""

    tenant: str
    ended: Ended
    cost_nano_usd: int = 0
    tier: str | None = None
    late: bool = False
    total_ms: float = 0.0
    kept: bool = False
    imputed: bool = False
    unmeasured: bool = False
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """What an answer would take."""

    output_tokens: int
    input_tokens: int
    first_ms: float
    total_ms: float
    cost_nano_usd: int
    kept: bool = False
    unmeasured: bool = False


def fate_then(past: Past) -> Fate:
    """Return what became of a request in truth."""
    if past.is_answered:
        ended = Ended.HIT if past.is_hit else Ended.ANSWERED
    else:
        ended = Ended.FAILED if past.status >= 500 else Ended.REFUSED
    return Fate(
        past.tenant, ended, past.cost_nano_usd, past.tier, past.late, past.total_ms, kept=True, refusal=past.error_code
    )


@dataclass(slots=True)
class _Open:
    """A request that has begun and not ended: what gives back its slot, its hold and what control assumed."""

    slot: AsyncExitStack
    admitted: Admitted
    hold: Hold | None = None
    cost: Cost = field(default_factory=lambda: Cost(0))
    watched: Watched | None = None
    tier: str | None = None
    tokens: int = 0


@dataclass(slots=True)
class _Kept:
    """How many answers so far the cache may keep, now and then: of the others, hits cannot come."""

    now: int = 0
    then: int = 0

    def note(self, *, now: bool, then: bool) -> None:
        self.now += now
        self.then += then

    @property
    def ratio(self) -> float:
        return min(1.0, self.now / self.then) if self.then else 1.0


class Replay:
    """One run through a history; `seed` draws donors, and equal seeds give equal fates."""

    def __init__(
        self, policies: PolicySet, registry: RegistrySnapshot, history: Sequence[Past], donors: Donors, seed: int
    ) -> None:
        self._policies = policies
        self._history = history
        self._donors = donors
        self._draw = random.Random(seed)  # noqa: S311 - no secret
        self._clock = ManualClock(datetime.fromtimestamp(history[0].at_s, UTC))
        self._ledger = MemoryLedger(self._clock)
        self._admission = Admission(self._ledger, self._clock)
        self._control = Control(self._clock)
        self._registry = registry
        self._known: dict[str, DeploymentSnapshot] = dict(registry.deployments)
        self._lenders: dict[str, list[Past]] = defaultdict(list)
        for past in history:
            if past.inputs is not None:
                self._lenders[past.tenant].append(past)
        self._kept: dict[str, _Kept] = defaultdict(_Kept)
        self._ending: list[tuple[float, int, _Open]] = []

    async def run(self) -> tuple[Fate, ...]:
        """Return every request's fate, in the order of the history."""
        fates = []
        for n, past in enumerate(self._history):
            await self._end_until(past.at_s)
            fates.append(await self._begin(n, past))
        await self._end_until(float("inf"))
        return tuple(fates)

    async def _end_until(self, at_s: float) -> None:
        while self._ending and self._ending[0][0] <= at_s:
            ends_at_s, _, opened = heapq.heappop(self._ending)
            self._move_to(ends_at_s)
            await self._settle(opened)
        if at_s != float("inf"):
            self._move_to(at_s)

    def _move_to(self, at_s: float) -> None:
        ahead_s = at_s - self._clock.now().timestamp()
        if ahead_s > 0:
            self._clock.advance(ahead_s)

    async def _begin(self, n: int, past: Past) -> Fate:
        """Admit, and where it is no hit decide, hold and draw what the answer takes."""
        caller = Caller(past.tenant, past.key_id)
        opened: _Open | None = None
        try:
            policy = self._policy(past, caller)
            if not _may_change(past):
                return fate_then(past)
            asked = self._asked(past)
            if asked is None:
                return fate_then(past)
            facts, complexity, session, imputed = asked
            policy = _drawn(policy, facts, past)
            rules, slot = policy.tenant_policy, AsyncExitStack()
            tokens = _expected_tokens(facts, rules)
            admitted = await slot.enter_async_context(self._admission.admit(caller, rules, tokens, rules.key_limits))
            opened = _Open(slot, admitted)
            if past.is_hit and _still_hits(past, rules) and self._survives(past.tenant):
                return await self._hit(n, past, opened)
            inputs = Inputs(facts, policy, complexity, admitted.standing, self._seen(past), session=session)
            return await self._answer(n, past, opened, inputs, imputed=imputed)
        except HeadgateError as error:
            if opened is not None:
                await self._settle(opened)
            if not past.is_hit:
                self._kept[past.tenant].note(now=False, then=past.stored and past.is_answered)
            ended = Ended.FAILED if error.http_status >= 500 else Ended.REFUSED
            return Fate(past.tenant, ended, refusal=error.code)

    async def _hit(self, n: int, past: Past, opened: _Open) -> Fate:
        opened.tokens = 0
        self._end_later(n, past.at_s + past.total_ms / 1000, opened)
        return Fate(past.tenant, Ended.HIT, tier=past.tier, total_ms=past.total_ms, kept=True)

    async def _answer(self, n: int, past: Past, opened: _Open, inputs: Inputs, *, imputed: bool) -> Fate:
        plan, opened.hold = await self._reserved(past, inputs)
        rules, ease = inputs.policy.tenant_policy, inputs.complexity
        opened.watched = self._control.planned(rules, ease, plan, inputs.standing)
        served, tier = self._served(past, inputs, plan)
        opened.tier, opened.tokens = tier, served.input_tokens + served.output_tokens
        opened.cost = Cost(served.cost_nano_usd, {tier: served.cost_nano_usd})
        self._end_later(n, past.at_s + served.total_ms / 1000, opened)
        late, cut = _is_late(past, rules, plan, served)
        keeps = not (cut or plan.has_given_way or plan.reason is Reason.HOLDOUT)
        self._kept[past.tenant].note(now=keeps, then=past.stored and past.is_answered and not past.is_hit)
        return Fate(
            past.tenant,
            Ended.FAILED if cut else Ended.ANSWERED,
            served.cost_nano_usd,
            tier,
            late or cut,
            served.total_ms,
            kept=served.kept,
            imputed=imputed,
            unmeasured=served.unmeasured,
        )

    async def _reserved(self, past: Past, inputs: Inputs) -> tuple[Plan, Hold]:
        """Decide and hold, a second time on a fresh standing when others took the money meanwhile."""
        rules, caller = inputs.policy.tenant_policy, Caller(past.tenant, past.key_id, user=inputs.facts.user)
        for is_last in (False, True):
            steering = self._control.steering(rules, inputs.standing)
            plan = decide(msgspec.structs.replace(inputs, steering=steering)).plan
            tiers = frozenset(step.tier for step in plan.steps)
            wanted = Hold(past.id, caller, rules, plan.worst_case_nano_usd, tiers)
            try:
                await self._ledger.reserve(wanted)
                return plan, wanted
            except BudgetExhausted:
                if is_last:
                    raise
                inputs = msgspec.structs.replace(inputs, standing=await self._ledger.standing(caller, rules))
        raise AssertionError("the second refusal was raised")

    def _served(self, past: Past, inputs: Inputs, plan: Plan) -> tuple[Served, str]:
        first = self._one(past, inputs, plan, 0)
        if plan.escalates_to is None:
            return first, plan.steps[0].tier
        judged = inputs.complexity
        if judged is None or self._draw.random() < judged.p_small_suffices:
            return first, plan.steps[0].tier
        second = self._one(past, inputs, plan, plan.escalates_to)
        both = replace(
            second,
            first_ms=first.total_ms + second.first_ms,
            total_ms=first.total_ms + second.total_ms,
            cost_nano_usd=first.cost_nano_usd + second.cost_nano_usd,
            kept=False,
        )
        return both, plan.steps[plan.escalates_to].tier

    def _one(self, past: Past, inputs: Inputs, plan: Plan, at: int) -> Served:
        """Return what the answer of one step takes: its own where it stays, else a donor's."""
        step = plan.steps[at]
        if past.answer is not None and not past.is_hit and past.answer.deployment == step.deployment:
            return _own(past)
        ease = ease_of(past) if inputs.complexity is None else inputs.complexity.p_small_suffices
        return lent(past, inputs.facts, self._known[step.deployment], self._donors, ease, self._draw, step.max_tokens)

    def _policy(self, past: Past, caller: Caller) -> EffectivePolicy:
        asked = None if past.inputs is None else past.inputs.policy.asked
        named = asked.partition(":") if asked is not None else ("", "", "")
        by_header = named[2] if named[0] == "tier" and past.inputs and past.inputs.policy.alias == named[2] else None
        return resolve(self._policies, caller, past.alias or "auto", by_header)

    def _asked(self, past: Past) -> tuple[RequestFacts, Complexity | None, SessionState | None, bool] | None:
        """Return what the request declared, how hard it was judged and where its session was, borrowed if need be.

        The last says whether it was; None where nobody can lend.
        """
        inputs = past.inputs
        if inputs is None:
            lenders = self._lenders.get(past.tenant)
            if not lenders:
                return None
            inputs = self._draw.choice(lenders).inputs
            assert inputs is not None
            if past.input_tokens is not None:
                facts = msgspec.structs.replace(inputs.facts, input_tokens=past.input_tokens)
                inputs = msgspec.structs.replace(inputs, facts=facts)
            return inputs.facts, inputs.complexity or self._judgement(past), None, True
        if inputs.complexity is None:
            return inputs.facts, self._judgement(past), inputs.session, inputs.policy.asked == "auto"
        return inputs.facts, inputs.complexity, inputs.session, False

    def _judgement(self, past: Past) -> Complexity | None:
        """Return how hard another request of the tenant was judged."""
        judged = [one.inputs for one in self._lenders.get(past.tenant, ()) if one.p_small_suffices is not None]
        drawn = self._draw.choice(judged) if judged else None
        return None if drawn is None else drawn.complexity

    def _seen(self, past: Past) -> RegistrySnapshot:
        """Return all deployments as last recorded; those of this very decision as they were then."""
        recorded: RecordedInputs | None = past.inputs
        if recorded is not None:
            self._known.update({one.name: one for one in recorded.deployments})
        return RegistrySnapshot(dict(self._known), self._registry.tiers)

    def _survives(self, tenant: str) -> bool:
        """Tell whether the entry that a hit was served from is there under the candidate, too: drawn by the share."""
        return self._draw.random() < self._kept[tenant].ratio

    def _end_later(self, n: int, at_s: float, opened: _Open) -> None:
        heapq.heappush(self._ending, (at_s, n, opened))

    async def _settle(self, opened: _Open) -> None:
        opened.admitted.used_tokens = opened.tokens
        if opened.hold is not None:
            await self._ledger.settle(opened.hold, opened.cost)
        if opened.watched is not None:
            self._control.settled(opened.watched, opened.cost.total_nano_usd, opened.tier)
        await opened.slot.aclose()


def lent(
    past: Past,
    facts: RequestFacts,
    deployment: DeploymentSnapshot,
    donors: Donors,
    ease: float,
    draw: random.Random,
    max_tokens: int,
) -> Served:
    """Return what an answer of the deployment takes, by a donor; without one, what the logged answer took."""
    donor = donors.draw(past, ease, deployment.name, draw)
    input_tokens = past.input_tokens or round(facts.input_tokens * donors.input_ratio(deployment.name))
    if donor is None:
        output_tokens = min(past.output_tokens or deployment.expected_output_tokens, max_tokens)
        first_ms, total_ms = past.ttft_ms or past.total_ms, past.total_ms
    else:
        output_tokens = min(donor.output_tokens, max_tokens * facts.n)
        first_ms, total_ms = donor.first_ms, donor.total_ms
    cost = deployment.price.cost_nano_usd(Usage(input_tokens, output_tokens))
    return Served(output_tokens, input_tokens, first_ms, total_ms, cost, unmeasured=donor is None)


def _own(past: Past) -> Served:
    return Served(
        past.output_tokens or 0,
        past.input_tokens or 0,
        past.ttft_ms or past.total_ms,
        past.total_ms,
        past.cost_nano_usd,
        kept=True,
    )


def _may_change(past: Past) -> bool:
    """Whether another policy may end it otherwise: what was answered, cut by the SLA, or refused for limits."""
    return past.is_answered or past.was_cut or past.status == 429


def _still_hits(past: Past, rules: TenantPolicy) -> bool:
    return rules.cache.enabled and (past.cache != "semantic" or rules.cache.semantic)


def _drawn(policy: EffectivePolicy, facts: RequestFacts, past: Past) -> EffectivePolicy:
    """Return the policy of the baseline path for requests that the candidate's own holdout would draw."""
    per_10k = round(policy.tenant_policy.routing.holdout_ratio * 10_000)
    is_free = isinstance(ruled(policy, facts).target, AutoTarget) and facts.endpoint in GENERATING
    if not per_10k or not is_free or not _holdout.draws(past.id, per_10k):
        return policy
    return on_baseline_path(policy)


def _expected_tokens(facts: RequestFacts, rules: TenantPolicy) -> int:
    limits = [limit for limit in (facts.max_tokens, rules.max_output_tokens) if limit is not None]
    return facts.input_tokens + min([*limits, EXPECTED_OUTPUT_TOKENS]) * facts.n


def _is_late(past: Past, rules: TenantPolicy, plan: Plan, served: Served) -> tuple[bool, bool]:
    """Return whether the answer misses the SLA, and whether its deadline ends it."""
    sla = rules.sla.get(plan.tier, NO_SLA)
    is_awaited = past.stream and rules.service_class != "batch"
    late_start = is_awaited and sla.ttft_ms is not None and served.first_ms > sla.ttft_ms
    return late_start, sla.total_ms is not None and served.total_ms > sla.total_ms
