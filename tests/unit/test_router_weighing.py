"""How the planner weighs quality, cost and latency, one fact a test."""

import pytest

from core.chat import ChatRequest, Demands, parse_chat_request
from core.plan import Complexity, LatencyForecast, Plan, Readiness, Reason, RegistrySnapshot, Standing
from core.rules import EffectivePolicy, Sla, TierTarget, Wish
from core.weighing import UNSTEERED, Pin, Steering
from router.planner import make_plan
from router.weighing import predicted_quality
from tests.planning import EASY, HARD, chat, declared, deployment, policy, registry

SLOW, FAST = LatencyForecast(queue_ms=2_000), LatencyForecast(base_ms=100, ms_per_output_token=1)
SECOND = {"small": Sla(total_ms=1_000), "large": Sla(total_ms=1_000)}
DEAR = Steering(shadow_price_per_usd=10_000_000.0)


def tiers(small: LatencyForecast | None = None, large: LatencyForecast | None = None) -> RegistrySnapshot:
    return registry([deployment("s", 1_000, forecast=small)], [deployment("l", 10_000, forecast=large)])


def plan(
    rules: EffectivePolicy | None = None,
    complexity: Complexity = EASY,
    snapshot: RegistrySnapshot | None = None,
    steering: Steering = UNSTEERED,
    pin: Pin | None = None,
    request: ChatRequest | None = None,
) -> Plan:
    snapshot = tiers() if snapshot is None else snapshot
    return make_plan(declared(request), rules or policy(), complexity, Standing(), snapshot, steering, pin)


def outcome(made: Plan) -> tuple[str, Reason]:
    return made.tier, made.reason


def excluded(made: Plan) -> dict[str, str | None]:
    assert made.weighing is not None
    return {candidate.deployment: candidate.excluded_by for candidate in made.weighing.candidates}


def test_a_tier_that_would_be_late_is_passed_over() -> None:
    assert outcome(plan(policy(sla=SECOND), EASY, tiers(small=SLOW, large=FAST))) == ("large", Reason.LATENCY)


def test_without_a_forecast_nothing_is_late() -> None:
    assert outcome(plan(policy(sla=SECOND), EASY, tiers(large=FAST))) == ("small", Reason.SCORE)


def test_the_time_to_the_first_token_binds_streams_alone() -> None:
    rules = policy(sla={"small": Sla(ttft_ms=300)})
    snapshot = tiers(small=SLOW, large=FAST)
    assert plan(rules, snapshot=snapshot, request=chat(stream=True)).tier == "large"
    assert plan(rules, snapshot=snapshot).tier == "small"


def test_the_callers_deadline_counts_like_the_sla() -> None:
    body = b'{"model": "auto", "messages": [{"role": "user", "content": "Hi"}]}'
    hurried = parse_chat_request(body, "r", Demands(deadline_ms=500))
    assert plan(snapshot=tiers(small=SLOW, large=FAST), request=hurried).reason is Reason.LATENCY


def test_quality_gives_way_to_the_sla_by_default() -> None:
    assert outcome(plan(policy(sla=SECOND), HARD, tiers(small=FAST, large=SLOW))) == ("small", Reason.LATENCY)


def test_the_sla_gives_way_where_the_policy_says_so() -> None:
    rules = policy(sla=SECOND, give_way=("latency", "cost", "quality"))
    assert outcome(plan(rules, HARD, tiers(small=FAST, large=SLOW))) == ("large", Reason.SCORE)


def test_where_everything_is_late_the_least_late_answers() -> None:
    less_slow = LatencyForecast(queue_ms=1_500)
    assert plan(policy(sla=SECOND), EASY, tiers(small=SLOW, large=less_slow)).tier == "large"


def test_within_a_tier_what_is_in_time_goes_first() -> None:
    snapshot = registry([deployment("late", forecast=SLOW), deployment("prompt", forecast=FAST)])
    made = plan(policy(sla=SECOND), snapshot=snapshot)
    assert [step.deployment for step in made.steps] == ["prompt", "late"]
    assert excluded(made) == {"prompt": None, "late": "latency"}


def test_a_shadow_price_sends_a_hard_prompt_to_small() -> None:
    made = plan(complexity=HARD, steering=DEAR)
    assert outcome(made) == ("small", Reason.PACE)
    assert excluded(made) == {"s": "quality", "l": "cost"}


def test_a_plan_tells_when_quality_gave_way() -> None:
    assert plan(complexity=HARD, steering=DEAR).gave_up_quality
    assert plan(policy(sla=SECOND), HARD, tiers(small=FAST, large=SLOW)).gave_up_quality
    assert not plan(complexity=HARD).gave_up_quality
    assert not plan(complexity=EASY, steering=DEAR).gave_up_quality
    assert not plan(policy(TierTarget("small")), HARD).gave_up_quality


def test_a_shadow_price_spares_the_hardest_longest() -> None:
    def tier(p_small: float, price_per_usd: float) -> str:
        return plan(complexity=Complexity(p_small, "model"), steering=Steering(shadow_price_per_usd=price_per_usd)).tier

    between = next(price for price in range(0, 10**7, 10_000) if tier(0.4, price) == "small")
    assert tier(0.1, between) == "large"


@pytest.mark.parametrize(
    ("give_way", "tier"), [(("quality", "cost", "latency"), "small"), (("cost", "quality", "latency"), "large")]
)
def test_the_policy_says_whether_quality_gives_way_to_the_pace(give_way: tuple[Wish, ...], tier: str) -> None:
    assert plan(policy(give_way=give_way), HARD, steering=DEAR).tier == tier


@pytest.mark.parametrize(
    ("give_way", "tier"), [(("quality", "cost", "latency"), "large"), (("quality", "latency", "cost"), "small")]
)
def test_the_policy_says_whether_the_pace_gives_way_to_the_sla(give_way: tuple[Wish, ...], tier: str) -> None:
    rules = policy(sla=SECOND, give_way=give_way)
    assert plan(rules, EASY, tiers(small=SLOW, large=FAST), DEAR).tier == tier


def test_a_floor_of_control_takes_the_place_of_the_policys() -> None:
    assert outcome(plan(policy(), EASY, steering=Steering(0.95, "share"))) == ("large", Reason.SHARE)
    assert outcome(plan(policy(), HARD, steering=Steering(0.05, "cost"))) == ("small", Reason.COST)


def test_an_explicit_choice_knows_no_price() -> None:
    assert outcome(plan(policy(TierTarget("large")), steering=DEAR)) == ("large", Reason.REQUESTED)


def test_predicted_lengths_decide_which_tier_is_cheaper() -> None:
    """A small model that rambles can cost more than a large one that answers."""
    rambling = Complexity(0.9, "model", (1_000, 20))
    assert (
        plan(complexity=rambling, snapshot=registry([deployment("s", 1_000)], [deployment("l", 3_000)])).tier == "large"
    )


def test_the_expected_output_stays_below_the_cap() -> None:
    made = plan(complexity=Complexity(0.9, "model", (1_000, 1_000)), request=chat(max_tokens=10))
    assert made.weighing is not None
    assert [one.expected_nano_usd for one in made.weighing.candidates] == [
        one.worst_case_nano_usd for one in made.weighing.candidates
    ]


def test_leaving_a_session_costs_its_cached_tokens() -> None:
    snapshot = registry([deployment("s", 1_000)], [deployment("l", 2_000)])
    pin = Pin("l", cached_tokens=1_000)
    free, pinned = plan(snapshot=snapshot), plan(snapshot=snapshot, pin=pin)
    assert (free.tier, pinned.tier) == ("small", "large")
    assert free.weighing is not None
    assert pinned.weighing is not None
    assert (
        pinned.weighing.of("s", "small").expected_nano_usd - free.weighing.of("s", "small").expected_nano_usd == 2_000
    )
    assert pinned.weighing.of("l", "large") == free.weighing.of("l", "large")


def test_the_sessions_deployment_goes_first_in_its_tier() -> None:
    snapshot = registry([deployment("a"), deployment("b")])
    assert plan(snapshot=snapshot, pin=Pin("b")).steps[0].deployment == "b"


def test_the_candidates_say_what_speaks_against_them() -> None:
    snapshot = registry(
        [deployment("s", 1)], [deployment("away", 10, Readiness.DOWN), deployment("l", 10)], [deployment("h", 10**9)]
    )
    made = make_plan(declared(), policy(), HARD, Standing(10**6), snapshot)
    assert excluded(made) == {"s": "quality", "away": "down", "l": None, "h": "budget"}
    tools = make_plan(declared(chat(tools=[{"type": "function"}])), policy(), EASY, Standing(), tiers())
    assert excluded(tools)["s"] == "guard"
    named = plan(policy(TierTarget("large")))
    assert excluded(named) == {"s": "not_asked", "l": None}


def test_a_candidate_tells_quality_and_times() -> None:
    made = plan(complexity=Complexity(0.6, "model"), snapshot=tiers(small=FAST))
    assert made.weighing is not None
    small, large = made.weighing.candidates
    assert (small.predicted_quality, large.predicted_quality) == (0.6, 1.0)
    assert (small.ttft_ms, small.total_ms) == (100.0, 356.0)
    assert (large.ttft_ms, large.total_ms) == (None, None)


def test_tiers_close_the_gap_to_certainty_in_equal_steps() -> None:
    assert [predicted_quality(0.2, rung, 3) for rung in range(3)] == pytest.approx([0.2, 0.6, 1.0])
