"""One decision from its inputs, in the documented order: rules, session, score and planner. Pure and deterministic.

The gateway decides by `decide` and records the inputs, so that anyone can decide again and compare byte by byte.
"""

from dataclasses import dataclass, replace

from core.facts import RequestFacts
from core.plan import Complexity, Plan, Reason, RegistrySnapshot, Standing
from core.rules import AutoTarget, EffectivePolicy, RuledTarget
from core.weighing import UNSTEERED, Pin, Steering
from router.planner import make_plan
from router.rules import ruled
from router.sessions import Hold, SessionState, holding, may_go_down

JUDGED = frozenset({Reason.SCORE, Reason.SHARE, Reason.COST, Reason.PACE, Reason.LATENCY, Reason.PRIOR})
"""Reasons that tell how easy a turn was; guards, budgets and outages say nothing about that."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that a decision depends on.

    Attributes:
        facts: what the request declares.
        policy: the tenant's rules and what the requested name means under them.
        complexity: how hard the request was judged; None where nobody judged.
        standing: what the ledger says is free.
        registry: the deployments as they were.
        steering: the floor and the shadow price that control asked for.
        session: what the session's last turn left.
    """

    facts: RequestFacts
    policy: EffectivePolicy
    complexity: Complexity | None
    standing: Standing
    registry: RegistrySnapshot
    steering: Steering = UNSTEERED
    session: SessionState | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A plan, and what came before the score.

    Attributes:
        rule: the rule of the policy that decided.
        hold: why the session's tier was kept.
        was_easy: whether a cheaper tier than the session's would have been chosen; None where nobody judged.
    """

    plan: Plan
    rule: str | None = None
    hold: Hold | None = None
    was_easy: bool | None = None


def decide(inputs: Inputs) -> Decision:
    """Return who answers, in which order, and why.

    Raises:
        ModelNotFound, BudgetExhausted, Unavailable: as `router.planner.make_plan` says.
    """
    policy, state = ruled(inputs.policy, inputs.facts), inputs.session
    rule = policy.target.rule if isinstance(policy.target, RuledTarget) else None
    pin = None if state is None else Pin(state.deployment, min(state.input_tokens, inputs.facts.input_tokens))

    def planned(held_tier: str | None = None) -> Plan:
        where = pin if pin is None or held_tier is None else replace(pin, held_tier=held_tier)
        arguments = (inputs.facts, policy, inputs.complexity, inputs.standing, inputs.registry, inputs.steering)
        return make_plan(*arguments, where)

    if state is None or not isinstance(policy.target, AutoTarget):
        return Decision(planned(), rule)
    sessions = policy.tenant_policy.routing.sessions
    hold = holding(state, inputs.facts, sessions)
    if hold is not None:
        return Decision(planned(state.tier), hold=hold)
    free = planned()
    rank = list(inputs.registry.tiers).index
    if free.reason not in JUDGED:
        return Decision(free)
    was_easy = rank(free.tier) < rank(state.tier)
    if was_easy and not may_go_down(state, sessions):
        return Decision(planned(state.tier), hold="easy_turns", was_easy=True)
    return Decision(free, was_easy=was_easy)
