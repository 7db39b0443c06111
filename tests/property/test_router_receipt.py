"""Any decision's record, decided again, is the same to the byte; and it holds no text of the request."""

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from core.chat import ChatRequest
from core.errors import HeadgateError
from core.plan import Complexity, RegistrySnapshot, Standing
from core.rules import CascadeRules, EffectivePolicy, RoutingRule, RuleCondition
from core.weighing import Steering
from router.decision import Decision, Inputs, decide
from router.receipt import Decided, ReceiptWriter, decode_receipt, encode_receipt, examine, receipt_of
from router.sessions import SessionState
from tests.planning import declared
from tests.property.test_planner import BUDGETS, COMPLEXITIES, MODES, REQUESTS, policies, registries

CASCADE = CascadeRules(enabled=True, from_p=0.2, max_cost_ratio=1.0)
AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
WRITER = ReceiptWriter("w@1", "1.0")
STATES = st.one_of(
    st.none(), st.builds(SessionState, st.sampled_from(["small", "large"]), st.sampled_from(["0-0", "1-0"]), BUDGETS)
)
RULES = st.sampled_from(
    [
        (),
        (RoutingRule("tools", RuleCondition(tools=True), "large"),),
        (RoutingRule("users", RuleCondition(users=("eve",), max_context_tokens=99), ("1-0", "0-0")),),
    ]
)


@settings(max_examples=150, deadline=None)
@given(REQUESTS, policies(), COMPLEXITIES, BUDGETS, MODES, registries(), STATES, RULES, st.floats(0, 1))
def test_a_record_decided_again_is_the_same_to_the_byte(
    request: ChatRequest,
    rules: EffectivePolicy,
    complexity: Complexity,
    free: int,
    mode: str,
    snapshot: RegistrySnapshot,
    state: SessionState | None,
    routing_rules: tuple[RoutingRule, ...],
    floor: float,
) -> None:
    tenant = rules.tenant_policy
    state = None if state is None or state.tier not in tenant.tiers else state
    policy = replace(
        rules, tenant_policy=replace(tenant, routing=replace(tenant.routing, rules=routing_rules, cascade=CASCADE))
    )
    standing = Standing(free, mode)  # type: ignore[arg-type]
    facts = msgspec.structs.replace(declared(request), user="eve")
    inputs = Inputs(facts, policy, complexity, standing, snapshot, Steering(floor, "share", 3.0), state)
    try:
        decided: Decision | HeadgateError = decide(inputs)
    except HeadgateError as refusal:
        decided = refusal
    made = Decided("req_1", AT, "", inputs, decided)
    content = encode_receipt(receipt_of(made, "w@1", "1.0"))
    assert WRITER.content(made) == WRITER.content(made) == content
    assert examine(content, None).differs == ()
    assert examine(content, None).identical
    assert encode_receipt(decode_receipt(content)) == content
    assert (b'"eve"' in content) == any(rule.when.users for rule in routing_rules)
