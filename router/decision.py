"""One decision from its inputs, in the documented order: rules, session, score, cascade. Pure and deterministic.

The gateway decides by `decide` and records the inputs, so that anyone can decide again and compare byte by byte.
"""

import msgspec

from core.endpoints import CHAT
from core.facts import RequestFacts
from core.plan import Complexity, Plan, Reason, RegistrySnapshot, Standing
from core.rules import AutoTarget, CascadeRules, EffectivePolicy, RuledTarget
from core.weighing import UNSTEERED, Pin, Steering, Weighing
from router.exploring import Propensities, picked, propensities_of
from router.planner import make_plan
from router.rules import ruled
from router.sessions import Hold, SessionState, holding, may_go_down

WEIGHED = frozenset({Reason.SCORE, Reason.SHARE, Reason.COST})
"""Reasons of plans that a cascade may take the place of."""
JUDGED = frozenset({Reason.SCORE, Reason.SHARE, Reason.COST, Reason.PACE, Reason.LATENCY, Reason.PRIOR})
"""Reasons that tell how easy a turn was; guards, budgets and outages say nothing about that."""


class Inputs(msgspec.Struct, frozen=True, gc=False):
    """Everything that a decision depends on.

    Attributes:
        facts: what the request declares.
        policy: the tenant's rules and what the requested name means under them.
        complexity: how hard the request was judged; None where nobody judged.
        standing: what the ledger says is free.
        registry: the deployments as they were.
        steering: the floor and the shadow price that control asked for.
        session: what the session's last turn left.
        draw: in [0, 1), decides whether the request explores another tier; None where none may.
    """

    facts: RequestFacts
    policy: EffectivePolicy
    complexity: Complexity | None
    standing: Standing
    registry: RegistrySnapshot
    steering: Steering = UNSTEERED
    session: SessionState | None = None
    draw: float | None = None


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A plan, and what came before the score.

    Attributes:
        rule: the rule of the policy that decided.
        hold: why the session's tier was kept.
        was_easy: whether a cheaper tier than the session's would have been chosen; None where nobody judged.
        propensities: P(tier) of each tier that could be drawn; empty where the choice was certain.
        greedy_tier: what would have been chosen without exploring.
    """

    plan: Plan
    rule: str | None = None
    hold: Hold | None = None
    was_easy: bool | None = None
    propensities: Propensities = ()
    greedy_tier: str | None = None


def decide(inputs: Inputs) -> Decision:
    """Return who answers, in which order, and why.

    Raises:
        ModelNotFound, BudgetExhausted, Unavailable: as `router.planner.make_plan` says.
    """
    policy, state, facts = ruled(inputs.policy, inputs.facts), inputs.session, inputs.facts
    target = policy.target
    pin = None if state is None else Pin(state.deployment, min(state.input_tokens, facts.input_tokens))

    def planned(held_tier: str | None = None, explored: str | None = None) -> Plan:
        where = pin if pin is None or held_tier is None else Pin(pin.deployment, pin.cached_tokens, held_tier)
        return make_plan(
            facts, policy, inputs.complexity, inputs.standing, inputs.registry, inputs.steering, where, explored
        )

    if not isinstance(target, AutoTarget):
        return Decision(planned(), target.rule if isinstance(target, RuledTarget) else None)
    if target.held_out:
        return Decision(planned())
    if state is None:
        free = cascaded(inputs, policy, planned())
        propensities = propensities_of(free, policy.tenant_policy.routing.explore_ratio)
        if inputs.draw is None or not propensities:
            return Decision(free)
        tier = picked(propensities, inputs.draw)
        plan = free if tier == free.tier else planned(explored=tier)
        return Decision(plan, propensities=propensities, greedy_tier=free.tier)
    sessions = policy.tenant_policy.routing.sessions
    hold = holding(state, facts, sessions)
    if hold is not None:
        return Decision(planned(state.tier), hold=hold)
    free = planned()
    ranks = list(inputs.registry.tiers)
    if free.reason not in JUDGED or state.tier not in ranks:
        return Decision(free)
    was_easy = ranks.index(free.tier) < ranks.index(state.tier)
    if was_easy and not may_go_down(state, sessions):
        return Decision(planned(state.tier), hold="easy_turns", was_easy=True)
    return Decision(cascaded(inputs, policy, free), was_easy=was_easy)


def cascaded(inputs: Inputs, policy: EffectivePolicy, plan: Plan) -> Plan:
    """Return a plan that tries the cheapest tier first and escalates, where the policy wants that and it is worth it.

    Plain chat requests for one answer only: of a stream the first byte would be out before anything is verified.
    """
    rules, facts, judged = policy.tenant_policy.routing.cascade, inputs.facts, inputs.complexity
    is_plain = facts.endpoint == CHAT and facts.n == 1 and not facts.stream
    if not rules.enabled or judged is None or not is_plain or plan.reason not in WEIGHED or plan.weighing is None:
        return plan
    if not rules.from_p <= judged.p_small_suffices < rules.to_p:
        return plan
    lowest = Steering(0.0, inputs.steering.knob, 0.0)
    tried = make_plan(facts, policy, judged, inputs.standing, inputs.registry, lowest)
    rank = list(inputs.registry.tiers).index
    above = (at for at, step in enumerate(tried.steps) if rank(step.tier) > rank(tried.tier))
    escalates_to = next(above, None)
    if (
        escalates_to is None
        or tried.reason is not Reason.SCORE
        or not _is_cheap(plan.weighing, tried, escalates_to, rules)
    ):
        return plan
    both = msgspec.structs.replace(tried, reason=Reason.CASCADE, weighing=plan.weighing, escalates_to=escalates_to)
    return both if _fits(both, inputs.standing) else plan


def _is_cheap(weighing: Weighing, plan: Plan, escalates_to: int, rules: CascadeRules) -> bool:
    small, large = (
        weighing.of(step.deployment, step.tier).expected_nano_usd for step in (plan.steps[0], plan.steps[escalates_to])
    )
    return small <= rules.max_cost_ratio * large


def _fits(plan: Plan, standing: Standing) -> bool:
    """Tell whether every budget that the plan touches has room for both answers."""
    limits = [standing.free_nano_usd, *(standing.free_by_tier.get(step.tier) for step in plan.steps)]
    return all(limit is None or plan.worst_case_nano_usd <= limit for limit in limits)
