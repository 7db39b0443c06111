"""Control of share, mean cost and pace over the planner, and its state."""

import random
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from core.clock import ManualClock
from core.plan import Complexity, Reason, Spending, Standing
from core.rules import DeploymentTarget, EffectivePolicy, Routing, TierTarget
from core.weighing import UNSTEERED
from router.control import Control
from router.planner import make_plan
from tests.planning import chat, declared, policy, two_tiers

REQUEST, TIERS = declared(chat("word " * 30)), two_tiers()
TOOLS = declared(chat("word " * 30, tools=[{"type": "function"}]))


def steered(routing: Routing, target: TierTarget | None = None) -> EffectivePolicy:
    base = policy(tiers=("small", "large"))
    rules = replace(base.tenant_policy, routing=routing)
    return replace(base, tenant_policy=rules, target=target or base.target)


def ask(control: Control, rules: EffectivePolicy, p_small: float | None, standing: Standing | None = None) -> str:
    """Plan and settle one request at its expected cost; without a score it names the large tier."""
    standing = standing or Standing()
    complexity = None if p_small is None else Complexity(p_small, "model:x@1")
    effective = replace(rules, target=TierTarget("large")) if p_small is None else rules
    steering = control.steering(rules.tenant_policy, standing)
    plan = make_plan(REQUEST, effective, complexity, standing, TIERS, steering)
    watched = control.planned(rules.tenant_policy, complexity, plan, standing)
    if watched is not None:
        control.settled(watched, watched.planned.expected_nano_usd, plan.tier)
    return plan.tier


def share(control: Control, rules: EffectivePolicy, explicit: float = 0.0, n: int = 1_500) -> float:
    dice = random.Random(3)
    tiers = [ask(control, rules, None if dice.random() < explicit else dice.uniform(0.6, 0.8)) for _ in range(n)]
    return tiers[500:].count("large") / (n - 500)


def test_without_a_knob_or_a_budget_nothing_is_steered_or_kept() -> None:
    control, rules = Control(ManualClock()), steered(Routing(quality=0.7))
    assert ask(control, rules, 0.6) == "large"
    assert control.steering(rules.tenant_policy, Standing()) == UNSTEERED
    assert control.dump() == Control(ManualClock()).dump()


@pytest.mark.parametrize("explicit", [0.0, 0.2])
def test_a_share_is_kept_with_what_callers_name(explicit: float) -> None:
    assert share(Control(ManualClock()), steered(Routing(max_large_share=0.4)), explicit) == pytest.approx(
        0.4, abs=0.01
    )


def test_a_share_of_none_still_grants_what_callers_name() -> None:
    assert share(Control(ManualClock()), steered(Routing(max_large_share=0.0)), 0.2) == pytest.approx(0.2, abs=0.03)


def test_a_mean_cost_is_kept() -> None:
    control, rules, dice, costs = (
        Control(ManualClock()),
        steered(Routing(target_cost_nano_usd=1_000)),
        random.Random(4),
        [],
    )
    for _ in range(1_500):
        complexity = Complexity(dice.random(), "model:x@1")
        plan = make_plan(
            REQUEST, rules, complexity, Standing(), TIERS, control.steering(rules.tenant_policy, Standing())
        )
        watched = control.planned(rules.tenant_policy, complexity, plan, Standing())
        assert watched is not None
        cost = round(watched.planned.expected_nano_usd * 1.5)
        control.settled(watched, cost, plan.tier)
        costs.append(cost)
    assert sum(costs[500:]) / 1_000 == pytest.approx(1_000, rel=0.03)


def test_the_reason_names_the_knob() -> None:
    for routing, reason in (
        (Routing(max_large_share=0.4), Reason.SHARE),
        (Routing(target_cost_nano_usd=9), Reason.COST),
    ):
        rules = steered(routing)
        steering = Control(ManualClock()).steering(rules.tenant_policy, Standing())
        assert make_plan(REQUEST, rules, Complexity(0.5, "m"), Standing(), TIERS, steering).reason is reason


def test_a_guard_counts_towards_the_share() -> None:
    control, rules = Control(ManualClock()), steered(Routing(max_large_share=0.3))
    for _ in range(50):
        plan = make_plan(TOOLS, rules, Complexity(0.9, "m"), Standing(), TIERS)
        control.planned(rules.tenant_policy, Complexity(0.9, "m"), plan, Standing())
    ask(control, rules, 0.7)
    assert control.steering(rules.tenant_policy, Standing()).floor == 0.0


def test_a_fallback_to_another_tier_is_put_right() -> None:
    """Planned small and answered by large each time: what was spent so is owed."""
    control, rules = Control(ManualClock()), steered(Routing(max_large_share=0.5))
    for _ in range(100):
        plan = make_plan(REQUEST, rules, Complexity(0.9, "m"), Standing(), TIERS)
        watched = control.planned(rules.tenant_policy, Complexity(0.9, "m"), plan, Standing())
        assert watched is not None
        control.settled(watched, 0, "large")
    assert control.steering(rules.tenant_policy, Standing()).floor == 0.0


def spent(clock: ManualClock, limit: int, so_far: int) -> Standing:
    began = ManualClock().now()
    return Standing(10**9, spending=(Spending("acme", began, began + timedelta(hours=1), limit, so_far),))


def test_spending_ahead_of_the_pace_raises_the_price_until_the_floor_gives_way() -> None:
    clock = ManualClock()
    control, rules, so_far, tiers = Control(clock), steered(Routing(quality=0.9)), 0, []
    for _ in range(600):
        clock.advance(1)
        tiers.append(ask(control, rules, 0.5, spent(clock, 3_600 * 1_000, so_far)))
        so_far += 3_000 if tiers[-1] == "large" else 300
    assert tiers[0] == "large"
    assert 0.05 < tiers[300:].count("large") / 300 < 0.6


def test_the_state_survives_a_restart() -> None:
    clock, rules = ManualClock(), steered(Routing(max_large_share=0.4))
    control = Control(clock)
    share(control, rules)
    standing = spent(clock, 10, 9)
    for _ in range(60):
        ask(control, rules, 0.7, standing)
    restored = Control(clock)
    restored.restore(control.dump())
    assert restored.steering(rules.tenant_policy, standing) == control.steering(rules.tenant_policy, standing)
    assert [ask(restored, rules, 0.7) for _ in range(20)] == [ask(control, rules, 0.7) for _ in range(20)]


@pytest.mark.parametrize("dumped", [b"", b"[]", b'{"schema": 99}', b'{"schema": 1, "sliders": [["a", "b", 1, []]]}'])
def test_a_state_that_cannot_be_read_is_refused(dumped: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Control(ManualClock()).restore(dumped)


def test_one_tier_leaves_nothing_to_control() -> None:
    rules = replace(steered(Routing(max_large_share=0.4)).tenant_policy, tiers=("small",))
    assert Control(ManualClock()).steering(rules, Standing()) == UNSTEERED


def test_of_two_limits_on_one_account_the_lower_is_paced_once() -> None:
    clock, rules = ManualClock(), steered(Routing(quality=0.9))
    one, both = Control(clock), Control(clock)
    (low,) = spent(clock, 100_000, 50_000).spending
    high = msgspec.structs.replace(low, limit_nano_usd=10**9)
    for _ in range(60):
        clock.advance(1)
        ask(one, rules, 0.5, Standing(10**9, spending=(low,)))
        ask(both, rules, 0.5, Standing(10**9, spending=(low, high)))
    assert one.dump() == both.dump()


def test_a_policy_of_deployments_alone_has_no_cheapest_tier() -> None:
    rules = steered(Routing())
    direct = replace(rules, target=DeploymentTarget("s"), tenant_policy=replace(rules.tenant_policy, tiers=()))
    standing = spent(ManualClock(), 10**9, 0)
    plan = make_plan(REQUEST, direct, None, standing, TIERS)
    assert Control(ManualClock()).planned(direct.tenant_policy, None, plan, standing) is not None
