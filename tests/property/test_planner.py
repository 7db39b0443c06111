"""Properties of the planner over random ladders, policies, budgets and health."""

from dataclasses import replace

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from core.chat import ChatRequest
from core.errors import BudgetExhausted, ModelNotFound, Unavailable
from core.plan import Complexity, DeploymentSnapshot, LatencyForecast, Plan, Readiness, RegistrySnapshot, Standing
from core.rules import AutoTarget, DeploymentTarget, EffectivePolicy, Sla, Target, TierTarget, WhenExhausted, Wish
from core.weighing import UNSTEERED, Pin, Steering
from router.planner import make_plan
from tests.planning import chat, declared, deployment, policy, registry

TIERS = ("small", "large", "huge")
MODES: st.SearchStrategy[WhenExhausted] = st.sampled_from(["reject", "small_only", "cache_only"])
READINESS = st.sampled_from([*[Readiness.READY] * 3, Readiness.LOADING, Readiness.DOWN])
PARTS = st.integers(0, 10).map(lambda tenths: tenths / 10)
TOKENS = st.none() | st.tuples(st.integers(1, 500), st.integers(1, 500))
COMPLEXITIES = st.builds(Complexity, PARTS, st.just("model:x@1"), TOKENS)
FORECASTS = st.none() | st.builds(LatencyForecast, st.sampled_from([0.0, 40.0, 400.0, 4_000.0]))
PRICES = st.sampled_from([0.0, 0.0, 0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0])
STEERINGS = st.builds(Steering, st.none() | PARTS, st.sampled_from(["quality", "share", "cost"]), PRICES)
SLAS: st.SearchStrategy[dict[str, Sla]] = st.dictionaries(
    st.sampled_from(TIERS), st.builds(Sla, st.none(), st.sampled_from([None, 50, 500]))
)
WISHES: tuple[Wish, ...] = ("quality", "cost", "latency")
PINS = st.none() | st.builds(Pin, st.sampled_from(["0-0", "1-0", "1-1", "2-0"]), st.integers(0, 10_000))
BUDGETS = st.one_of(st.integers(-10, 10), st.floats(3.0, 8.0).map(lambda power: int(10**power)))


@st.composite
def registries(draw: st.DrawFn) -> RegistrySnapshot:
    """Draw one to three tiers, each dearer than the one below, as the configuration's order promises."""
    tiers: list[list[DeploymentSnapshot]] = []
    for rung in range(draw(st.integers(1, 3))):
        members = draw(st.lists(st.tuples(st.integers(1, 9), READINESS), min_size=1, max_size=3))
        windows = draw(st.lists(st.sampled_from([None, None, 40, 4_000]), min_size=3, max_size=3))
        tiers.append(
            [
                deployment(
                    f"{rung}-{n}",
                    factor * 10_000 * 10**rung,
                    readiness,
                    context_tokens=windows[n],
                    forecast=draw(FORECASTS),
                    local=draw(st.booleans()),
                )
                for n, (factor, readiness) in enumerate(members)
            ]
        )
    return registry(*tiers, names=TIERS)


@st.composite
def policies(draw: st.DrawFn) -> EffectivePolicy:
    targets = st.one_of(
        st.just(AutoTarget()),
        st.just(AutoTarget()),
        st.sampled_from(TIERS).map(TierTarget),
        st.sampled_from(["0-0", "1-0", "2-1"]).map(DeploymentTarget),
    )
    target: Target = draw(targets)
    return policy(
        target,
        quality=draw(st.none() | PARTS),
        tiers=tuple(draw(st.sets(st.sampled_from(TIERS), min_size=draw(st.integers(0, 2))))),
        deployments=frozenset(draw(st.sets(st.sampled_from(["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"])))),
        when_loading=draw(st.sampled_from(["small", "remote", "remote", "wait", "refuse"])),
        fallback=draw(st.booleans()),
        sla=draw(SLAS),
        give_way=tuple(draw(st.permutations(WISHES))),
    )


REQUESTS = st.builds(
    lambda words, cap, tools: chat("word " * words, max_tokens=cap, tools=[{"type": "function"}] if tools else None),
    st.integers(1, 100),
    st.one_of(st.none(), st.integers(1, 200)),
    st.sampled_from([False, False, True]),
)


thorough = settings(max_examples=250)


def planned(
    request: ChatRequest,
    rules: EffectivePolicy,
    complexity: Complexity | None,
    standing: Standing,
    snapshot: RegistrySnapshot,
    steering: Steering = UNSTEERED,
    pin: Pin | None = None,
) -> Plan | None:
    try:
        return make_plan(declared(request), rules, complexity, standing, snapshot, steering, pin)
    except (BudgetExhausted, ModelNotFound, Unavailable):
        return None


@thorough
@given(REQUESTS, policies(), COMPLEXITIES, BUDGETS, MODES, registries(), STEERINGS, PINS)
def test_a_plan_never_exceeds_the_free_budget(
    request: ChatRequest,
    rules: EffectivePolicy,
    complexity: Complexity,
    free: int,
    mode: WhenExhausted,
    snapshot: RegistrySnapshot,
    steering: Steering,
    pin: Pin | None,
) -> None:
    plan = planned(request, rules, complexity, Standing(free, mode), snapshot, steering, pin)
    if plan is not None:
        assert plan.worst_case_nano_usd <= free


@thorough
@given(REQUESTS, policies(), COMPLEXITIES, st.floats(0.3, 1.2), MODES, registries())
def test_a_plan_never_exceeds_a_budget_near_its_own_cost(
    request: ChatRequest,
    rules: EffectivePolicy,
    complexity: Complexity,
    share: float,
    mode: WhenExhausted,
    snapshot: RegistrySnapshot,
) -> None:
    unlimited = planned(request, rules, complexity, Standing(), snapshot)
    if unlimited is not None:
        free = int(unlimited.steps[0].worst_case_nano_usd * share)
        plan = planned(request, rules, complexity, Standing(free, mode), snapshot)
        assert plan is None or plan.worst_case_nano_usd <= free


@thorough
@given(REQUESTS, policies(), COMPLEXITIES, registries(), STEERINGS, PINS)
def test_a_plan_holds_only_what_the_policy_grants(
    request: ChatRequest,
    rules: EffectivePolicy,
    complexity: Complexity,
    snapshot: RegistrySnapshot,
    steering: Steering,
    pin: Pin | None,
) -> None:
    plan = planned(request, rules, complexity, Standing(), snapshot, steering, pin)
    if plan is None:
        return
    granted = {name for tier in rules.tenant_policy.tiers for name in snapshot.tiers.get(tier, ())}
    granted |= rules.tenant_policy.deployments
    match rules.target:
        case TierTarget(tier):
            granted |= set(snapshot.tiers[tier])
        case DeploymentTarget(named):
            granted.add(named)
    steps = [step.deployment for step in plan.steps]
    assert set(steps) <= granted
    assert len(set(steps)) == len(steps)
    assert Readiness.DOWN not in {snapshot.deployments[name].readiness for name in steps}


@thorough
@given(REQUESTS, policies(), COMPLEXITIES, PARTS, PARTS, st.none() | BUDGETS, MODES, registries(), PRICES)
def test_a_higher_floor_never_gives_a_cheaper_tier(
    request: ChatRequest,
    rules: EffectivePolicy,
    complexity: Complexity,
    one: float,
    other: float,
    free: int | None,
    mode: WhenExhausted,
    snapshot: RegistrySnapshot,
    price_per_usd: float,
) -> None:
    def tier_at(quality: float) -> int | None:
        steering = Steering(quality, "share", price_per_usd)
        plan = planned(request, rules, complexity, Standing(free, mode), snapshot, steering)
        return None if plan is None or plan.tier == "direct" else TIERS.index(plan.tier)

    low, high = tier_at(min(one, other)), tier_at(max(one, other))
    if low is not None and high is not None:
        assert low <= high


@thorough
@given(REQUESTS, policies(), COMPLEXITIES, BUDGETS, BUDGETS, MODES, registries())
def test_a_tighter_budget_never_gives_a_dearer_first_step(
    request: ChatRequest,
    rules: EffectivePolicy,
    complexity: Complexity,
    one: int,
    other: int,
    mode: WhenExhausted,
    snapshot: RegistrySnapshot,
) -> None:
    tight = planned(request, rules, complexity, Standing(min(one, other), mode), snapshot)
    loose = planned(request, rules, complexity, Standing(max(one, other), mode), snapshot)
    if tight is not None and loose is not None:
        assert tight.steps[0].worst_case_nano_usd <= loose.steps[0].worst_case_nano_usd


@thorough
@given(REQUESTS, policies(), COMPLEXITIES, PRICES, PRICES, st.none() | BUDGETS, MODES, registries(), PINS)
def test_a_higher_shadow_price_never_gives_a_dearer_choice(
    request: ChatRequest,
    rules: EffectivePolicy,
    complexity: Complexity,
    one: float,
    other: float,
    free: int | None,
    mode: WhenExhausted,
    snapshot: RegistrySnapshot,
    pin: Pin | None,
) -> None:
    """Dearer by what is weighed: expected cost and what leaving the session's deployment costs."""

    def chosen(price_per_usd: float) -> int | None:
        steering = Steering(None, "quality", price_per_usd)
        plan = planned(request, everything_ready, complexity, Standing(free, mode), ready, steering, pin)
        if plan is None or plan.weighing is None:
            return None
        return plan.weighing.of(plan.steps[0].deployment, plan.tier).expected_nano_usd

    everything_ready = replace(rules, target=AutoTarget())
    deployments = {
        name: msgspec.structs.replace(one, readiness=Readiness.READY) for name, one in snapshot.deployments.items()
    }
    ready = RegistrySnapshot(deployments, snapshot.tiers)
    cheap, dear = chosen(max(one, other)), chosen(min(one, other))
    if cheap is not None and dear is not None:
        assert cheap <= dear


@thorough
@given(REQUESTS, policies(), COMPLEXITIES, BUDGETS, MODES, registries(), STEERINGS, PINS)
def test_equal_input_gives_equal_plans(
    request: ChatRequest,
    rules: EffectivePolicy,
    complexity: Complexity,
    free: int,
    mode: WhenExhausted,
    snapshot: RegistrySnapshot,
    steering: Steering,
    pin: Pin | None,
) -> None:
    standing = Standing(free, mode)
    assert planned(request, rules, complexity, standing, snapshot, steering, pin) == planned(
        request, rules, complexity, standing, snapshot, steering, pin
    )


@thorough
@given(REQUESTS, policies(), COMPLEXITIES, registries(), STEERINGS, PINS)
def test_the_first_step_is_a_candidate_that_nothing_but_a_wish_speaks_against(
    request: ChatRequest,
    rules: EffectivePolicy,
    complexity: Complexity,
    snapshot: RegistrySnapshot,
    steering: Steering,
    pin: Pin | None,
) -> None:
    plan = planned(request, rules, complexity, Standing(), snapshot, steering, pin)
    if plan is None:
        return
    assert plan.weighing is not None
    found = plan.weighing.of(plan.steps[0].deployment, plan.tier)
    assert found.worst_case_nano_usd == plan.steps[0].worst_case_nano_usd
    if isinstance(rules.target, AutoTarget):
        assert found.excluded_by in (None, "quality", "latency", "cost", "loading")
