"""The order of decision with sessions: held, raised, and let down after enough easy turns."""

from dataclasses import replace

import msgspec
import pytest

from core.plan import Complexity, Readiness, Reason, Standing
from core.rules import EffectivePolicy, RoutingRule, RuleCondition, TierTarget
from router.decision import Decision, Inputs, decide
from router.sessions import SessionState
from tests.planning import EASY, HARD, chat, declared, deployment, policy, registry, two_tiers

LARGE = SessionState("large", "l", 400, turns=2)
SMALL = SessionState("small", "s", 400, turns=2)
ASKED = declared(chat("Which of these cities is further north, and by how many degrees: Oslo or Riga?"))


def decided(state: SessionState | None, complexity: Complexity | None = EASY, **changes: object) -> Decision:
    inputs = Inputs(ASKED, policy(), complexity, Standing(), two_tiers(), session=state)
    return decide(msgspec.structs.replace(inputs, **changes))


def outcome(decision: Decision) -> tuple[str, Reason, str | None]:
    return decision.plan.tier, decision.plan.reason, decision.hold


def test_an_easy_turn_keeps_the_larger_tier_until_there_were_enough() -> None:
    held = decided(LARGE)
    assert outcome(held) == ("large", Reason.SESSION, "easy_turns")
    assert held.was_easy is True
    free = decided(msgspec.structs.replace(LARGE, easy_turns=2))
    assert outcome(free) == ("small", Reason.SCORE, None)


def test_a_hard_turn_goes_up_at_once() -> None:
    assert outcome(decided(SMALL, HARD)) == ("large", Reason.SCORE, None)


def test_a_follow_up_keeps_the_tier_without_being_judged() -> None:
    follow_up = msgspec.structs.replace(ASKED, turns=1, last_user_chars=4)
    for state, tier in ((LARGE, "large"), (SMALL, "small")):
        assert outcome(decided(state, None, facts=follow_up)) == (tier, Reason.SESSION, "follow_up")


def test_an_agent_loop_stays_unless_a_guard_raises_it() -> None:
    loop = msgspec.structs.replace(ASKED, ends_in="tool")
    assert outcome(decided(SMALL, None, facts=loop)) == ("small", Reason.SESSION, "tool_loop")
    raised = decided(SMALL, None, facts=msgspec.structs.replace(loop, has_tools=True))
    assert outcome(raised) == ("large", Reason.GUARD_TOOLS, "tool_loop")


def test_a_held_tier_that_is_down_is_replaced_and_money_still_binds() -> None:
    down = decided(LARGE, registry=two_tiers(large=Readiness.DOWN))
    assert (down.plan.tier, down.plan.reason) == ("small", Reason.UNHEALTHY)
    poor = decided(LARGE, standing=Standing(3_000))
    assert (poor.plan.tier, poor.plan.reason) == ("small", Reason.BUDGET)


def test_an_explicit_choice_and_a_rule_come_before_the_session() -> None:
    assert outcome(decided(LARGE, policy=policy(TierTarget("small")))) == ("small", Reason.REQUESTED, None)
    rule = RoutingRule("short", RuleCondition(max_context_tokens=900), "small")
    auto = policy()
    routing = replace(auto.tenant_policy.routing, rules=(rule,))
    ruled = EffectivePolicy(replace(auto.tenant_policy, routing=routing), "auto", auto.target)
    made = decided(LARGE, policy=ruled)
    assert (outcome(made), made.rule) == (("small", Reason.RULE, None), "short")


def test_the_sessions_own_deployment_is_preferred_in_its_tier() -> None:
    tiers = registry([deployment("a"), deployment("b")], [deployment("l", 10_000)])
    made = decided(SessionState("small", "b", 400), registry=tiers)
    assert made.plan.steps[0].deployment == "b"


@pytest.mark.parametrize("state", [None, LARGE, SMALL])
def test_what_the_other_tiers_were_excluded_for_is_told(state: SessionState | None) -> None:
    weighing = decided(state).plan.weighing
    assert weighing is not None
    excluded = {candidate.tier: candidate.excluded_by for candidate in weighing.candidates}
    assert excluded["large" if state is LARGE else "small"] is None


def test_a_session_on_a_tier_that_is_gone_is_decided_like_a_first_turn() -> None:
    gone = SessionState("huge", "h", 400, turns=2)
    made = decided(gone)
    assert (made.plan.tier, made.hold, made.was_easy) == (decided(None).plan.tier, None, None)
