"""A policy tried on its own examples: which rule decides each, who would answer, and whether that was expected."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from core.chat import ChatRequest, Demands, parse_chat_request
from core.errors import HeadgateError
from core.facts import RequestFacts
from core.identity import Caller
from core.plan import Complexity, Plan, RegistrySnapshot, Standing
from core.rules import AutoTarget, PolicyExample, RuledTarget
from policies.checking import CheckedTenant
from policies.findings import Finding, warning
from policies.loading import PolicySet
from policies.resolution import resolve
from policies.routing_rules import NO_RULE
from router.facts import facts_of
from router.planner import make_plan
from router.rules import deciding_rule, ruled

PATH = "/v1/chat/completions"
Judge = Callable[[ChatRequest], Complexity]


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one example; `missed` says how it differs from what was expected, empty where it does not."""

    number: int
    tier: str | None
    deployment: str | None
    rule: str | None
    reason: str
    missed: tuple[str, ...]


def rules_without_example(tenant: CheckedTenant) -> Iterator[Finding]:
    """Yield a warning for each rule that decides none of the policy's examples, where there are examples."""
    policy = tenant.policy
    if not policy.examples:
        return
    deciding = {deciding_rule(policy.routing.rules, _facts(example)) for example in policy.examples}
    for at, rule in enumerate(policy.routing.rules):
        if rule not in deciding:
            message = f"the rule {rule.name!r} decides none of the policy's examples; add one that it should decide"
            yield warning("no-example", ("routing", "rules", at), message, tenant.wrote, tenant.file)


def try_examples(
    policies: PolicySet, tenant: CheckedTenant, registry: RegistrySnapshot, judge: Judge
) -> tuple[Tried, ...]:
    """Plan every example of a tenant with everything ready and money left.

    Args:
        policies: the policies in force.
        tenant: whose examples are tried.
        registry: the deployments as the planner sees them.
        judge: says how hard a request is; asked only where the score decides.
    """
    return tuple(
        _tried(number, example, policies, tenant.policy.tenant, registry, judge)
        for number, example in enumerate(tenant.policy.examples, start=1)
    )


def _tried(
    number: int, example: PolicyExample, policies: PolicySet, tenant: str, registry: RegistrySnapshot, judge: Judge
) -> Tried:
    request = _request(example)
    try:
        policy = resolve(policies, Caller(tenant, "example", user=request.user), request.model)
        facts = facts_of(request, PATH)
        policy = ruled(policy, facts)
        complexity = judge(request) if isinstance(policy.target, AutoTarget) else None
        plan = make_plan(facts, policy, complexity, Standing(), registry)
    except HeadgateError as refusal:
        return Tried(number, None, None, None, refusal.code, (refusal.message,))
    rule = policy.target.rule if isinstance(policy.target, RuledTarget) else None
    return Tried(
        number, plan.tier, plan.steps[0].deployment, rule, plan.reason.value, tuple(_missed(example, plan, rule))
    )


def _missed(example: PolicyExample, plan: Plan, rule: str | None) -> Iterator[str]:
    seen = (
        ("tier", example.tier, plan.tier),
        ("deployment", example.deployment, plan.steps[0].deployment),
        ("rule", example.rule, rule or NO_RULE),
        ("reason", example.reason, plan.reason.value),
    )
    for what, expected, found in seen:
        if expected not in (None, found):
            yield f"{what} {expected} was expected, it is {found}"


def _request(example: PolicyExample) -> ChatRequest:
    return parse_chat_request(example.body, "example", Demands(tags=example.tags))


def _facts(example: PolicyExample) -> RequestFacts:
    return facts_of(_request(example), PATH)
