"""The planner's rules, one fact a test."""

from datetime import UTC, datetime
from typing import Any

import pytest

from core.chat import ChatRequest
from core.errors import BudgetExhausted, ModelNotFound, Unavailable
from core.plan import Abilities, Complexity, Plan, Readiness, Reason, RegistrySnapshot, Standing
from core.rules import DeploymentTarget, EffectivePolicy, RuledTarget, TierTarget, WhenExhausted
from core.weighing import Pin
from router.planner import make_plan
from tests.planning import EASY, HARD, beside, chat, declared, deployment, policy, registry, two_tiers

RESETS_AT = datetime(2026, 2, 1, tzinfo=UTC)
LARGE = TierTarget("large")
DOWN, LOADING = Readiness.DOWN, Readiness.LOADING


def plan(
    request: ChatRequest | None = None,
    rules: EffectivePolicy | None = None,
    complexity: Complexity | None = EASY,
    standing: Standing | None = None,
    tiers: RegistrySnapshot | None = None,
) -> Plan:
    return make_plan(declared(request), rules or policy(), complexity, standing or Standing(), tiers or two_tiers())


def names(made: Plan) -> list[str]:
    return [step.deployment for step in made.steps]


def test_an_easy_prompt_goes_to_small_and_may_fall_back_to_large() -> None:
    made = plan()
    assert (made.tier, made.reason, names(made)) == ("small", Reason.SCORE, ["s", "l"])


def test_a_hard_prompt_goes_to_large_and_may_fall_back_to_small() -> None:
    made = plan(complexity=HARD)
    assert (made.tier, made.reason, names(made)) == ("large", Reason.SCORE, ["l", "s"])
    assert made.degraded_from is None


@pytest.mark.parametrize(("quality", "tier"), [(0.69, "small"), (0.7, "small"), (0.71, "large")])
def test_quality_is_the_least_p_at_which_small_is_chosen(quality: float, tier: str) -> None:
    assert plan(rules=policy(quality=quality), complexity=Complexity(0.7, "model:x@1")).tier == tier


@pytest.mark.parametrize(("quality", "tier"), [(0.2, "small"), (0.5, "large"), (0.7, "huge")])
def test_a_middle_tier_halves_the_doubt(quality: float, tier: str) -> None:
    tiers = registry([deployment("s", 1)], [deployment("l", 10)], [deployment("h", 100)])
    assert plan(rules=policy(quality=quality), complexity=Complexity(0.2, "model:x@1"), tiers=tiers).tier == tier


def test_a_prior_says_so() -> None:
    assert plan(complexity=Complexity(0.8, "prior:no_text")).reason is Reason.PRIOR


def test_without_any_complexity_the_largest_tier_answers() -> None:
    made = plan(complexity=None)
    assert (made.tier, made.reason) == ("large", Reason.PRIOR)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (chat(tools=[{"type": "function", "function": {"name": "f"}}]), Reason.GUARD_TOOLS),
        (chat(response_format={"type": "json_object"}), Reason.GUARD_JSON),
        (
            chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]),
            Reason.GUARD_MEDIA,
        ),
        (chat("Какой город является столицей Франции?"), Reason.GUARD_LANGUAGE),
    ],
)
def test_guards_send_an_easy_prompt_to_large(request_: ChatRequest, reason: Reason) -> None:
    made = plan(request_)
    assert (made.tier, made.reason, names(made)) == ("large", reason, ["l"])


def test_accented_latin_text_is_not_guarded() -> None:
    assert plan(chat("Où est la bibliothèque à côté de l'hôtel?")).tier == "small"


def test_a_context_beyond_a_tiers_window_raises_to_the_first_that_holds_it() -> None:
    tiers = registry(
        [deployment("s", 1, context_tokens=100)],
        [deployment("l", 10, context_tokens=10_000)],
        [deployment("h", 100, context_tokens=10_000)],
    )
    made = plan(chat("word " * 200), tiers=tiers)
    assert (made.tier, made.reason, names(made)) == ("large", Reason.GUARD_CONTEXT, ["l", "h"])


def test_the_clients_output_limit_counts_towards_the_window() -> None:
    tiers = registry([deployment("s", 1, context_tokens=100)], [deployment("l", 10)])
    assert plan(chat(max_tokens=99), tiers=tiers).reason is Reason.GUARD_CONTEXT
    assert plan(chat(max_tokens=10), tiers=tiers).tier == "small"


def test_within_a_tier_the_deployment_with_room_is_chosen() -> None:
    tiers = registry([deployment("tight", 1, context_tokens=30), deployment("roomy", 2)], [deployment("l", 10)])
    assert names(plan(chat("word " * 100), tiers=tiers))[0] == "roomy"


def test_a_named_tier_is_kept_whatever_the_score_says() -> None:
    made = plan(rules=policy(LARGE))
    assert (made.tier, made.reason, names(made)) == ("large", Reason.REQUESTED, ["l"])


def test_a_named_tier_falls_back_upwards_only() -> None:
    assert names(plan(rules=policy(TierTarget("small")))) == ["s", "l"]
    assert names(plan(rules=policy(TierTarget("small"), fallback=False))) == ["s"]


def test_a_named_deployment_goes_first_and_its_granted_neighbours_follow() -> None:
    tiers = registry([deployment("s")], [deployment("l1", 10), deployment("l2", 10)])
    target = DeploymentTarget("l2")
    assert names(plan(rules=policy(target), tiers=tiers)) == ["l2", "l1"]
    narrow = policy(target, tiers=(), deployments=frozenset({"l2"}))
    assert names(plan(rules=narrow, tiers=tiers)) == ["l2"]


def test_a_named_deployment_is_not_judged_by_its_window() -> None:
    tiers = registry([deployment("s", context_tokens=10), deployment("s2")])
    assert names(plan(rules=policy(DeploymentTarget("s")), tiers=tiers))[0] == "s"


def test_a_deployment_outside_every_tier_answers_as_direct() -> None:
    tiers = RegistrySnapshot({"cloud": deployment("cloud")}, {})
    made = plan(rules=policy(DeploymentTarget("cloud"), deployments=frozenset({"cloud"})), tiers=tiers)
    assert (made.tier, names(made)) == ("direct", ["cloud"])


@pytest.mark.parametrize("rules", [policy(TierTarget("medium")), policy(DeploymentTarget("nowhere")), policy(tiers=())])
def test_what_does_not_exist_or_is_not_granted_is_not_found(rules: EffectivePolicy) -> None:
    with pytest.raises(ModelNotFound):
        plan(rules=rules)


def test_auto_uses_only_the_tiers_that_the_policy_lists() -> None:
    assert names(plan(rules=policy(tiers=("small",)), complexity=HARD)) == ["s"]


def test_the_worst_case_is_the_input_estimate_and_the_cap_times_n() -> None:
    request = chat(max_tokens=50, n=3)
    step = plan(request).steps[0]
    assert step.max_tokens == 50
    assert step.worst_case_nano_usd == request.estimated_input_tokens() + 50 * 3
    assert step.input_nano_usd == request.estimated_input_tokens()


@pytest.mark.parametrize(
    ("client", "tenant", "model", "cap", "sent"),
    [
        (None, None, None, 1_024, None),
        (None, None, 500, 500, None),
        (None, 300, 500, 300, 300),
        (200, 300, 500, 200, None),
        (400, 300, None, 300, 300),
        (900, None, 500, 500, 500),
        (900, None, None, 900, None),
    ],
)
def test_the_output_cap_is_the_least_limit_and_is_sent_only_when_it_differs(
    client: int | None, tenant: int | None, model: int | None, cap: int, sent: int | None
) -> None:
    tiers = registry([deployment("s", max_output_tokens=model)])
    step = plan(chat(max_tokens=client), policy(max_output_tokens=tenant), tiers=tiers).steps[0]
    assert (step.max_tokens, step.sent_max_tokens) == (cap, sent)


def test_what_large_would_cost_beyond_the_budget_is_answered_by_small() -> None:
    cheap = plan().steps[0].worst_case_nano_usd
    made = plan(complexity=HARD, standing=Standing(cheap, "reject"))
    assert (made.tier, made.reason, made.degraded_from, names(made)) == ("small", Reason.BUDGET, "large", ["s"])


def test_a_budget_of_exactly_the_worst_case_is_enough() -> None:
    rules = policy(TierTarget("small"), fallback=False)
    cost = plan(rules=rules).worst_case_nano_usd
    assert plan(rules=rules, standing=Standing(cost)).worst_case_nano_usd == cost
    with pytest.raises(BudgetExhausted):
        plan(rules=rules, standing=Standing(cost - 1))


def test_a_cheaper_deployment_of_the_same_tier_is_tried_before_a_cheaper_tier() -> None:
    tiers = registry([deployment("s", 1)], [deployment("dear", 100_000), deployment("fair", 10)])
    made = plan(complexity=HARD, standing=Standing(10_000), tiers=tiers)
    assert (made.tier, made.degraded_from, names(made)[0]) == ("large", None, "fair")


def test_when_nothing_fits_the_refusal_names_the_reset() -> None:
    with pytest.raises(BudgetExhausted, match="2026-02-01") as refused:
        plan(standing=Standing(10, "reject", RESETS_AT))
    assert refused.value.resets_at == RESETS_AT


@pytest.mark.parametrize("when_exhausted", ["reject", "cache_only"])
def test_an_exhausted_budget_refuses_even_a_model_without_a_price(when_exhausted: WhenExhausted) -> None:
    tiers = registry([deployment("s", 0)])
    assert plan(tiers=tiers, standing=Standing(0, "small_only")).tier == "small"
    with pytest.raises(BudgetExhausted):
        plan(tiers=tiers, standing=Standing(0, when_exhausted))


@pytest.mark.parametrize("when_exhausted", ["reject", "small_only", "cache_only"])
def test_the_next_cheaper_tier_that_fits_stands_in(when_exhausted: WhenExhausted) -> None:
    tiers = registry([deployment("s", 1_000)], [deployment("l", 2_000)], [deployment("h", 100_000)])
    made = plan(rules=policy(quality=0.9), complexity=HARD, tiers=tiers, standing=Standing(10_000, when_exhausted))
    assert (made.tier, made.reason, made.degraded_from) == ("large", Reason.BUDGET, "huge")


def test_a_named_tier_steps_down_for_money_only_under_small_only() -> None:
    cheap = plan().steps[0].worst_case_nano_usd
    with pytest.raises(BudgetExhausted):
        plan(rules=policy(LARGE), standing=Standing(cheap, "reject"))
    made = plan(rules=policy(LARGE), standing=Standing(cheap, "small_only"))
    assert (made.tier, made.degraded_from, made.reason) == ("small", "large", Reason.BUDGET)


def test_a_guard_holds_against_the_budget() -> None:
    tools = chat(tools=[{"type": "function", "function": {"name": "f"}}])
    cheap = plan(tools, rules=policy(TierTarget("small"), fallback=False)).worst_case_nano_usd
    with pytest.raises(BudgetExhausted):
        plan(tools, standing=Standing(cheap, "small_only"))


def test_fallbacks_are_left_out_when_the_whole_plan_would_not_fit() -> None:
    whole = plan().worst_case_nano_usd
    assert len(plan(standing=Standing(whole)).steps) == 2
    assert len(plan(standing=Standing(whole - 1)).steps) == 1


def test_a_loading_tier_is_stood_in_for_by_small() -> None:
    made = plan(complexity=HARD, tiers=two_tiers(large=LOADING))
    assert (made.tier, made.degraded_from, made.reason, names(made)) == ("small", "large", Reason.LOADING, ["s"])


def test_a_named_loading_tier_is_stood_in_for_by_small_openly() -> None:
    made = plan(rules=policy(LARGE), tiers=two_tiers(large=LOADING))
    assert (made.tier, made.degraded_from, made.reason) == ("small", "large", Reason.LOADING)


def test_a_loading_tier_is_waited_for_when_the_policy_says_so() -> None:
    made = plan(complexity=HARD, rules=policy(when_loading="wait"), tiers=two_tiers(large=LOADING))
    assert (made.tier, made.reason, names(made)) == ("large", Reason.SCORE, ["l", "s"])


def test_a_loading_tier_is_refused_when_the_policy_says_so() -> None:
    with pytest.raises(Unavailable) as refused:
        plan(complexity=HARD, rules=policy(when_loading="refuse"), tiers=two_tiers(large=LOADING))
    assert refused.value.retry_after_s == 7.0


def remote(**changes: Any) -> EffectivePolicy:
    return policy(**{"when_loading": "remote", "deployments": frozenset({"cloud"})} | changes)


def test_a_remote_that_the_policy_names_stands_in_for_a_loading_tier_in_its_name() -> None:
    tiers = beside(two_tiers(large=LOADING), deployment("cloud", 20_000))
    for rules in (remote(), remote(target=LARGE), remote(target=RuledTarget("r", "large"), fallback=False)):
        made = plan(complexity=HARD, rules=rules, tiers=tiers)
        assert (made.tier, made.degraded_from, made.reason, names(made)[0]) == ("large", None, Reason.LOADING, "cloud")
        assert made.weighing is not None
        assert made.weighing.of("cloud", "large").excluded_by is None
    tools = chat(tools=[{"type": "function"}])
    assert names(plan(tools, rules=remote(), tiers=tiers)) == ["cloud"], "the dearest tier takes what no other may"


def test_a_remote_stands_in_only_while_the_tier_loads() -> None:
    cloud = deployment("cloud", 20_000)
    assert names(plan(complexity=HARD, rules=remote(), tiers=beside(two_tiers(), cloud))) == ["l", "s"]
    assert names(plan(complexity=HARD, rules=remote(), tiers=beside(two_tiers(large=DOWN), cloud))) == ["s"]


def test_only_a_remote_that_is_granted_and_ready_and_within_the_budget_stands_in() -> None:
    loading = two_tiers(large=LOADING)
    cloud = deployment("cloud", 20_000)
    whole = plan(rules=remote(target=LARGE), tiers=beside(loading, cloud)).worst_case_nano_usd
    for rules, other, standing in (
        (remote(deployments=frozenset()), cloud, Standing()),
        (remote(), deployment("cloud", 20_000, DOWN), Standing()),
        (remote(), deployment("cloud", 20_000, local=True), Standing()),
        (remote(), cloud, Standing(whole - 1)),
        (remote(), cloud, Standing(free_by_tier={"large": whole - 1})),
    ):
        made = plan(complexity=HARD, rules=rules, standing=standing, tiers=beside(loading, other))
        assert (made.tier, made.degraded_from) == ("small", "large")


def test_without_a_remote_a_named_tier_that_loads_is_unavailable() -> None:
    with pytest.raises(Unavailable) as refused:
        plan(rules=remote(target=LARGE), tiers=two_tiers(large=LOADING))
    assert refused.value.retry_after_s == 7.0


def test_a_remote_is_planned_once_where_two_tiers_load() -> None:
    tiers = beside(two_tiers(LOADING, LOADING), deployment("cloud", 20_000))
    made = plan(rules=remote(), tiers=tiers)
    assert (made.tier, names(made)) == ("small", ["cloud"])


def test_a_list_of_a_rule_is_not_left_for_a_remote() -> None:
    tiers = beside(two_tiers(large=LOADING), deployment("cloud", 20_000))
    with pytest.raises(Unavailable):
        plan(rules=remote(target=RuledTarget("r", ("l",))), tiers=tiers)


def test_a_loading_small_tier_is_stood_in_for_by_large_where_fallback_is_allowed() -> None:
    made = plan(tiers=two_tiers(small=LOADING))
    assert (made.tier, made.reason, made.degraded_from) == ("large", Reason.LOADING, None)
    with pytest.raises(Unavailable):
        plan(rules=policy(fallback=False), tiers=two_tiers(small=LOADING))


def test_a_guarded_request_never_goes_to_small_while_large_loads() -> None:
    with pytest.raises(Unavailable):
        plan(chat(response_format={"type": "json_object"}), tiers=two_tiers(large=LOADING))


def test_a_ready_deployment_of_the_same_tier_is_used_instead_of_one_that_is_down() -> None:
    tiers = registry([deployment("s1", 1, DOWN), deployment("s2", 1)])
    made = plan(tiers=tiers)
    assert (made.reason, names(made)) == (Reason.UNHEALTHY, ["s2"])


def test_a_tier_that_is_down_is_replaced_upwards_first_then_downwards() -> None:
    up = plan(tiers=two_tiers(small=DOWN))
    assert (up.tier, up.reason, up.degraded_from) == ("large", Reason.UNHEALTHY, None)
    down = plan(complexity=HARD, tiers=two_tiers(large=DOWN))
    assert (down.tier, down.reason, down.degraded_from) == ("small", Reason.UNHEALTHY, "large")


def test_a_named_tier_that_is_down_never_goes_to_a_smaller_one() -> None:
    with pytest.raises(Unavailable) as refused:
        plan(rules=policy(LARGE), tiers=two_tiers(large=DOWN))
    assert refused.value.retry_after_s == 7.0


def test_without_fallback_a_tier_that_is_down_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        plan(rules=policy(fallback=False), tiers=two_tiers(small=DOWN))


def test_when_nothing_is_ready_the_shortest_wait_is_told() -> None:
    with pytest.raises(Unavailable) as refused:
        plan(tiers=two_tiers(small=DOWN, large=DOWN))
    assert refused.value.retry_after_s == 1.0


def test_a_used_up_budget_of_one_tier_steps_down_and_keeps_that_tier_out_of_the_fallbacks() -> None:
    made = plan(complexity=HARD, standing=Standing(free_by_tier={"large": 0}))
    assert (made.tier, made.reason, names(made)) == ("small", Reason.BUDGET, ["s"])


def test_a_plan_fits_the_budget_of_every_tier_that_it_touches() -> None:
    alone = plan(tiers=two_tiers(large=DOWN)).worst_case_nano_usd
    made = plan(standing=Standing(free_by_tier={"small": alone}))
    assert names(made) == ["s"]
    assert names(plan(standing=Standing(free_by_tier={"small": 10**12}))) == ["s", "l"]


def test_a_rule_for_a_tier_is_kept_before_guards_and_score() -> None:
    made = plan(chat(tools=[{"type": "function"}]), policy(RuledTarget("tools", "small")), complexity=None)
    assert (made.tier, made.reason, names(made)) == ("small", Reason.RULE, ["s", "l"])


def test_deployments_of_a_rule_are_tried_in_its_order_whatever_their_tier() -> None:
    made = plan(rules=policy(RuledTarget("mail", ("l", "s", "gone")), tiers=("small",)))
    assert (made.reason, names(made), made.degraded_from) == (Reason.RULE, ["l", "s"], None)


def test_a_rule_for_a_tier_does_not_send_a_prompt_to_a_window_that_cannot_hold_it() -> None:
    tiers = registry([deployment("s", 1, context_tokens=100)], [deployment("l", 10, context_tokens=10_000)])
    made = plan(chat("word " * 200), policy(RuledTarget("mail", "small")), tiers=tiers)
    assert (made.tier, made.reason, names(made)) == ("large", Reason.GUARD_CONTEXT, ["l"])
    assert plan(rules=policy(RuledTarget("mail", "small")), tiers=tiers).reason is Reason.RULE
    assert made.weighing is not None
    assert {one.deployment: one.excluded_by for one in made.weighing.candidates}["s"] == "guard"


def test_a_rule_prefers_the_deployment_of_its_tier_whose_window_holds_the_prompt() -> None:
    small = [deployment("narrow", 1, context_tokens=100), deployment("wide", 1, context_tokens=10_000)]
    made = plan(
        chat("word " * 200, tools=[{"type": "function"}]),
        policy(RuledTarget("mail", "small")),
        tiers=registry(small, [deployment("l", 10)]),
    )
    assert (made.tier, made.reason, names(made)) == ("small", Reason.RULE, ["wide", "l"])


def test_a_rule_of_deployments_skips_those_whose_window_is_too_small_and_is_never_left() -> None:
    tiers = registry(
        [deployment("s", 1, context_tokens=100)], [deployment("l", 10, context_tokens=10_000)], [deployment("h", 100)]
    )
    made = plan(chat("word " * 200), policy(RuledTarget("mail", ("s", "l"))), tiers=tiers)
    assert (made.reason, names(made)) == (Reason.GUARD_CONTEXT, ["l"])
    alone = plan(chat("word " * 200), policy(RuledTarget("mail", ("s",))), tiers=tiers)
    assert (alone.reason, names(alone)) == (Reason.RULE, ["s"])


def test_a_session_does_not_hold_a_deployment_whose_window_its_prompt_has_outgrown() -> None:
    small = [deployment("narrow", 1, context_tokens=100), deployment("wide", 1, context_tokens=400)]
    tiers = registry(small, [deployment("l", 10, context_tokens=10_000)])

    def held(words: int) -> Plan:
        pin = Pin("narrow", held_tier="small")
        return make_plan(declared(chat("word " * words)), policy(), EASY, Standing(), tiers, pin=pin)

    assert (held(1).reason, names(held(1))[0]) == (Reason.SESSION, "narrow")
    assert (held(200).reason, names(held(200))) == (Reason.SESSION, ["wide", "l"])
    assert (held(800).reason, names(held(800))) == (Reason.GUARD_CONTEXT, ["l"])


def test_a_rule_waives_the_measured_range_as_it_does_every_guard_but_the_window() -> None:
    short = deployment("s", 1, context_tokens=8_000, abilities=Abilities(measured_context_tokens=100))
    made = plan(
        chat("word " * 200), policy(RuledTarget("mail", "small")), tiers=registry([short], [deployment("l", 10)])
    )
    assert (made.tier, made.reason) == ("small", Reason.RULE)


def test_a_rule_of_deployments_that_are_all_gone_is_told() -> None:
    with pytest.raises(ModelNotFound):
        plan(rules=policy(RuledTarget("mail", ("gone",))))


@pytest.mark.parametrize(
    ("abilities", "request_"),
    [
        (Abilities(tools=True), chat(tools=[{"type": "function"}])),
        (Abilities(json=True), chat(response_format={"type": "json_object"})),
        (Abilities(scripts=("latin", "cyrillic")), chat("Какой город является столицей Франции?")),
    ],
)
def test_a_small_tier_takes_what_it_was_measured_on(abilities: Abilities, request_: ChatRequest) -> None:
    able = registry([deployment("s", 1_000, abilities=abilities)], [deployment("l", 10_000)])
    assert plan(request_, tiers=able).tier == "small"
    assert plan(request_).tier == "large"


def test_a_tier_is_able_by_one_of_its_deployments_which_then_goes_first() -> None:
    able = deployment("able", 1_000, abilities=Abilities(tools=True))
    made = plan(chat(tools=[{"type": "function"}]), tiers=registry([deployment("s"), able], [deployment("l", 10_000)]))
    assert (made.tier, names(made)[0]) == ("small", "able")


def test_a_prompt_beyond_the_measured_range_goes_up_though_the_window_holds_it() -> None:
    short = deployment("s", 1_000, context_tokens=8_000, abilities=Abilities(measured_context_tokens=100))
    made = plan(chat("word " * 200), tiers=registry([short], [deployment("l", 10_000)]))
    assert (made.tier, made.reason) == ("large", Reason.GUARD_CONTEXT)


def test_the_dearest_tier_still_prefers_the_deployment_whose_window_holds_a_request_with_tools() -> None:
    large = [deployment("narrow", 10_000, context_tokens=50), deployment("wide", 10_000)]
    made = plan(chat("word " * 200, tools=[{"type": "function"}]), tiers=registry([deployment("s")], large))
    assert (made.reason, names(made)) == (Reason.GUARD_TOOLS, ["wide"])
