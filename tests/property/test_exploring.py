"""Whatever the request, policy and state: propensities sum to one, and only what may answer is ever drawn."""

from dataclasses import replace

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from core.chat import ChatRequest
from core.errors import HeadgateError
from core.plan import Complexity, Readiness, Reason, RegistrySnapshot, Standing
from core.rules import AutoTarget, EffectivePolicy
from core.weighing import Steering
from router.decision import Decision, Inputs, decide
from router.receipt import Decided, encode_receipt, examine, receipt_of
from tests.planning import declared
from tests.property.test_planner import BUDGETS, COMPLEXITIES, MODES, REQUESTS, policies, registries
from tests.property.test_router_receipt import AT

DRAWS = st.one_of(st.floats(0, 1, exclude_max=True), st.just(0.0), st.just(1.0 - 2**-53))


def attempted(inputs: Inputs) -> Decision | str:
    try:
        return decide(inputs)
    except HeadgateError as refusal:
        return refusal.code


@settings(max_examples=300, deadline=None)
@given(REQUESTS, policies(), COMPLEXITIES, BUDGETS, MODES, registries(), st.floats(0, 1), DRAWS, st.floats(0.001, 0.1))
def test_exploring_stays_inside_what_is_allowed(
    request: ChatRequest,
    rules: EffectivePolicy,
    complexity: Complexity,
    free: int,
    mode: str,
    snapshot: RegistrySnapshot,
    floor: float,
    draw: float,
    ratio: float,
) -> None:
    tenant = rules.tenant_policy
    exploring = replace(rules, tenant_policy=replace(tenant, routing=replace(tenant.routing, explore_ratio=ratio)))
    standing = Standing(free, mode)  # type: ignore[arg-type]
    inputs = Inputs(declared(request), exploring, complexity, standing, snapshot, Steering(floor, "share"), None, draw)
    made, plain = attempted(inputs), attempted(msgspec.structs.replace(inputs, draw=None))
    if isinstance(made, str) or isinstance(plain, str):
        assert made == plain
        return
    if not made.propensities:
        assert made.plan == plain.plan
        return
    assert isinstance(rules.target, AutoTarget)
    assert abs(sum(probability for _, probability in made.propensities) - 1.0) < 1e-9
    assert all(probability > 0.0 for _, probability in made.propensities)
    assert made.greedy_tier == plain.plan.tier
    assert made.plan.tier in dict(made.propensities)
    assert made.plan.tier in tenant.tiers
    first = made.plan.steps[0]
    assert snapshot.deployments[first.deployment].readiness is Readiness.READY
    assert made.plan.worst_case_nano_usd <= max(free, 0)
    assert (made.plan.reason is Reason.EXPLORE) == (made.plan.tier != plain.plan.tier)
    content = encode_receipt(receipt_of(Decided("req_1", AT, "", inputs, made), "w@1", "1.0"))
    assert examine(content, None).identical
