"""How one request would fare under a policy: what its model name means, the plans that could follow, what they hold."""

from dataclasses import dataclass
from pathlib import Path

from core.chat import ChatRequest, parse_chat_request
from core.errors import ConfigurationError, InvalidRequest, ModelNotFound
from core.identity import Caller
from core.plan import Complexity, Plan, RegistrySnapshot, Standing
from core.rules import (
    AutoTarget,
    DeploymentTarget,
    EffectivePolicy,
    RuledTarget,
    Target,
    TenantPolicy,
    TierTarget,
)
from policies.explaining import budget_text
from policies.loading import PolicySet
from policies.resolution import resolve, visible_models
from router.facts import facts_of
from router.planner import make_plan
from router.rules import ruled

PATH = "/v1/chat/completions"
EASY, HARD = Complexity(1.0, "explain"), Complexity(0.0, "explain")


@dataclass(frozen=True, slots=True)
class PlanPreview:
    """One plan that could be made with everything ready and money left; `judged` is empty where nothing is judged."""

    judged: str
    tier: str
    deployments: tuple[str, ...]
    reason: str
    hold_nano_usd: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class RulePreview:
    """One rule that applies to the request: its key in the policy, and what it says."""

    path: tuple[str | int, ...]
    says: str


@dataclass(frozen=True, slots=True)
class RequestPreview:
    """What a request means and what could happen to it."""

    model: str
    target: str
    input_tokens: int
    plans: tuple[PlanPreview, ...]
    rules: tuple[RulePreview, ...]


def read_request(path: Path) -> ChatRequest:
    """Read a chat request from a file.

    Raises:
        ConfigurationError: the file cannot be read or holds no chat request.
    """
    try:
        return parse_chat_request(path.read_bytes(), "explain")
    except OSError as problem:
        reason = problem.strerror or "cannot be read"
        raise ConfigurationError(str(path), "", reason, "name a file with a chat request as JSON") from problem
    except InvalidRequest as problem:
        mend = "write the JSON that an app would send to /v1/chat/completions"
        raise ConfigurationError(str(path), problem.param or "", problem.message.rstrip("."), mend) from problem


def meaning_of(policies: PolicySet, tenant: str, request: ChatRequest) -> EffectivePolicy:
    """Return what the request's model name means for the tenant, without any limit of a key.

    Raises:
        ConfigurationError: it means nothing.
    """
    caller = Caller(tenant, "explain", user=request.user)
    try:
        return resolve(policies, caller, request.model)
    except ModelNotFound as problem:
        names = ", ".join(visible_models(policies, caller)[:20])
        mend = f"use one of {names}; or add it to the tenant's `models`"
        raise ConfigurationError("request", "model", f"{request.model[:80]!r} means nothing here", mend) from problem


def preview(policies: PolicySet, tenant: str, request: ChatRequest, registry: RegistrySnapshot) -> RequestPreview:
    """Resolve and plan `request` for the tenant without any limit of a key.

    Raises:
        ConfigurationError: the model's name means nothing for this tenant.
    """
    effective = ruled(meaning_of(policies, tenant, request), facts_of(request, PATH))
    plans = [("easy", _plan(request, effective, EASY, registry)), ("hard", _plan(request, effective, HARD, registry))]
    if _shown("", plans[0][1]) == _shown("", plans[1][1]):
        plans = [("", plans[0][1])]
    tiers = {step.tier for _, plan in plans for step in plan.steps}
    return RequestPreview(
        model=request.model,
        target=_target_text(effective.target),
        input_tokens=request.estimated_input_tokens(),
        plans=tuple(_shown(judged, plan) for judged, plan in plans),
        rules=tuple(_rules(effective.tenant_policy, tiers, request)),
    )


def _plan(request: ChatRequest, effective: EffectivePolicy, judged: Complexity, registry: RegistrySnapshot) -> Plan:
    return make_plan(facts_of(request, PATH), effective, judged, Standing(), registry)


def _shown(judged: str, plan: Plan) -> PlanPreview:
    return PlanPreview(
        judged=judged,
        tier=plan.tier,
        deployments=tuple(step.deployment for step in plan.steps),
        reason=plan.reason.value,
        hold_nano_usd=plan.worst_case_nano_usd,
        max_tokens=plan.steps[0].max_tokens,
    )


def _target_text(target: Target) -> str:
    match target:
        case AutoTarget():
            return "auto: the router decides"
        case TierTarget(tier):
            return f"the tier {tier}"
        case DeploymentTarget(deployment):
            return f"the deployment {deployment}"
        case RuledTarget(rule, use):
            return f"auto: the rule {rule!r} sends it to {use if isinstance(use, str) else ', '.join(use)}"


def _rules(policy: TenantPolicy, tiers: set[str], request: ChatRequest) -> list[RulePreview]:
    """Return the budgets, limits and SLAs that count this request."""
    rules = []
    for at, budget in enumerate(policy.budgets):
        if budget.tier is not None and budget.tier not in tiers:
            continue
        whose = f", counted for the user {request.user!r}" if budget.per == "user" and request.user else ""
        rules.append(RulePreview(("budgets", at), budget_text(budget) + whose))
    limits = policy.limits
    for name, limit, unit in (
        ("requests_per_minute", limits.requests_per_minute, "requests per minute"),
        ("tokens_per_minute", limits.tokens_per_minute, "tokens per minute"),
        ("concurrency", limits.concurrency, "requests at the same time"),
    ):
        if limit is not None:
            rules.append(RulePreview(("limits", name), f"{limit} {unit}"))
    for tier, sla in policy.sla.items():
        if tier not in tiers:
            continue
        if sla.ttft_ms is not None and request.stream:
            rules.append(RulePreview(("sla", tier, "ttft_ms"), f"first content within {sla.ttft_ms} ms on {tier}"))
        if sla.total_ms is not None:
            rules.append(RulePreview(("sla", tier, "total_ms"), f"the whole answer within {sla.total_ms} ms on {tier}"))
    return rules
