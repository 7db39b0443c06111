"""What may be explored, with which probability, and that explicit choices, guards, sessions and money never are."""

from dataclasses import replace

import pytest

from core.facts import RequestFacts
from core.plan import Complexity, Readiness, Reason, RegistrySnapshot, Standing
from core.rules import EffectivePolicy, RoutingRule, RuleCondition, TierTarget
from core.weighing import Steering
from router.decision import Decision, Inputs, decide
from router.exploring import draw_of, picked
from router.sessions import SessionState
from tests.planning import EASY, HARD, chat, declared, deployment, policy, registry, two_tiers

ALWAYS = 0.9999999
THREE = registry([deployment("s", 1_000)], [deployment("l", 10_000)], [deployment("h", 100_000)])


def exploring(rules: EffectivePolicy | None = None, ratio: float = 0.02) -> EffectivePolicy:
    base = rules or policy()
    tenant = base.tenant_policy
    return replace(base, tenant_policy=replace(tenant, routing=replace(tenant.routing, explore_ratio=ratio)))


def decided(
    draw: float | None = ALWAYS,
    complexity: Complexity | None = EASY,
    *,
    rules: EffectivePolicy | None = None,
    facts: RequestFacts | None = None,
    standing: Standing | None = None,
    snapshot: RegistrySnapshot | None = None,
    state: SessionState | None = None,
    steering: Steering | None = None,
) -> Decision:
    return decide(
        Inputs(
            facts or declared(),
            exploring(rules),
            complexity,
            standing or Standing(),
            snapshot or two_tiers(),
            steering or Steering(),
            state,
            draw,
        )
    )


def test_the_draw_decides_and_the_probabilities_are_on_record() -> None:
    explored, kept = decided(ALWAYS), decided(0.5)
    assert (explored.plan.tier, explored.plan.reason, explored.greedy_tier) == ("large", Reason.EXPLORE, "small")
    assert (kept.plan.tier, kept.plan.reason, kept.greedy_tier) == ("small", Reason.SCORE, "small")
    assert explored.propensities == kept.propensities == (("small", 0.98), ("large", 0.02))


def test_hard_requests_are_explored_downwards() -> None:
    explored = decided(0.0, HARD)
    assert (explored.plan.tier, explored.plan.reason) == ("small", Reason.EXPLORE)


def test_an_explored_tier_says_so_where_its_first_deployment_is_passed_over() -> None:
    starting = [deployment("starting", 1_000, Readiness.LOADING), deployment("s", 1_000)]
    explored = decided(0.0, HARD, snapshot=registry(starting, [deployment("l", 10_000)]))
    assert (explored.plan.steps[0].deployment, explored.plan.reason) == ("s", Reason.EXPLORE)


def test_the_other_tiers_share_the_ratio() -> None:
    made = decided(ALWAYS, snapshot=THREE)
    assert made.propensities == (("small", 0.98), ("large", 0.01), ("huge", 0.01))
    assert made.plan.tier == "huge"


RULED = RoutingRule("all", RuleCondition(max_context_tokens=9_999), "small")


@pytest.mark.parametrize(
    "changes",
    [
        {"draw": None},
        {"complexity": None},
        {"rules": policy(TierTarget("small"))},
        {"facts": declared(chat(tools=[{"type": "function"}]))},
        {"state": SessionState("small", "s", 10)},
        {"standing": Standing(3_000)},
        {"snapshot": two_tiers(large=Readiness.DOWN)},
        {"snapshot": two_tiers(large=Readiness.LOADING)},
        {"steering": Steering(shadow_price_per_usd=1e9)},
        {"rules": policy(tiers=("small",))},
    ],
)
def test_nothing_else_than_a_free_choice_is_explored(changes: dict[str, object]) -> None:
    made = decided(**changes)  # type: ignore[arg-type]
    assert made.propensities == ()
    assert made.plan.reason is not Reason.EXPLORE


def test_a_rule_is_never_explored() -> None:
    base = policy()
    routing = replace(base.tenant_policy.routing, rules=(RULED,))
    ruled = replace(base, tenant_policy=replace(base.tenant_policy, routing=routing))
    assert decided(rules=ruled).plan.reason is Reason.RULE


def test_draws_are_even_and_belong_to_secret_and_purpose() -> None:
    draws = [draw_of(b"secret", f"req_{n}", b"explore") for n in range(4_000)]
    assert abs(sum(draw < 0.02 for draw in draws) / 4_000 - 0.02) < 0.01
    assert all(0.0 <= draw < 1.0 for draw in draws)
    assert draw_of(b"secret", "req_1", b"explore") == draws[1]
    assert len({draw_of(b"other", "req_1", b"explore"), draw_of(b"secret", "req_1", b"compare"), draws[1]}) == 3


def test_a_draw_falls_on_each_tier_as_often_as_it_says() -> None:
    odds = (("a", 0.5), ("b", 0.25), ("c", 0.25))
    assert [picked(odds, draw) for draw in (0.0, 0.49, 0.5, 0.74, 0.75, 0.999)] == ["a", "a", "b", "b", "c", "c"]
