"""What one request was promised: its deadline from the tenant's SLA and its own wishes, and who goes first in a queue.

A batch tenant is promised no first token. An interactive one without limits for a tier still has a goal: half a second
in all, where the tier can do that. The goal orders the queue and cuts nothing.
"""

import msgspec

from backends.registry import Registry
from backends.tries import Afford, Errand, Verify
from backends.waiting_lines import Claim
from core.chat import ChatRequest
from core.deadline import Deadline
from core.identity import Caller
from core.plan import LatencyForecast, Plan, RegistrySnapshot
from core.rules import NO_SLA, EffectivePolicy, Priority, TenantPolicy
from gateway.trace_draft import TraceDraft
from router.cascade import refused

INTERACTIVE_GOAL_MS = 500.0
LONG_PREFIX_BYTES = 1_024
WEIGHTS: dict[Priority, float] = {"high": 64.0, "normal": 8.0, "low": 1.0}


def errand_of(
    plan: Plan,
    policy: EffectivePolicy,
    draft: TraceDraft,
    afford: Afford,
    snapshot: RegistrySnapshot,
    registry: Registry,
) -> Errand:
    """Return what dispatch is asked to do for one request; batch is never hedged.

    Args:
        plan: what to try.
        policy: whose SLA holds.
        draft: the request and when it arrived.
        afford: holds the cost of one more attempt.
        snapshot: what the plan was made from; it forecasts what the first deployment needs.
        registry: knows how long answers usually are.
    """
    deadline = promised(plan, policy, draft.request, draft.received_s)
    return Errand(  # by position: see `core.trace`
        plan,
        draft.request,
        deadline,
        draft.attempts,  # log
        draft.received_s,
        draft.traceparent,
        draft.caller.tenant,
        afford,
        policy.tenant_policy.service_class != "batch",  # may_hedge
        claim_of(deadline, plan, policy.tenant_policy, draft, snapshot, registry),  # claim
        verification(draft.request, policy.tenant_policy) if plan.escalates_to is not None else None,  # verify
    )


def claim_of(
    deadline: Deadline,
    plan: Plan,
    rules: TenantPolicy,
    draft: TraceDraft,
    snapshot: RegistrySnapshot,
    registry: Registry,
) -> Claim:
    """Return the request's place among others; it must start early enough to be done in time as forecast."""
    request, step = draft.request, plan.steps[0]
    tokens, forecast = request.estimated_input_tokens(), snapshot.deployments[step.deployment].forecast
    limit_s, needed_ms = deadline.end_at_s, 0.0
    if request.stream and deadline.first_token_at_s is not None:
        limit_s = deadline.first_token_at_s
        needed_ms = 0.0 if forecast is None else forecast.ttft_ms(tokens) - forecast.queue_ms
    elif forecast is not None and limit_s is not None:
        output_tokens = min(step.max_tokens, registry.usual_output_tokens(step.deployment))
        needed_ms = forecast.total_ms(tokens, output_tokens) - forecast.queue_ms
    return Claim(  # by position: see `core.trace`
        draft.caller.tenant,
        WEIGHTS[rules.priority],  # weight
        rules.service_class == "batch",  # is_batch
        due_s(deadline, rules, forecast, tokens, draft.received_s),  # due_s
        None if limit_s is None else limit_s - needed_ms / 1000,  # start_by_s
        rules.sla.get(step.tier, NO_SLA).when_late,
    )


def verification(request: ChatRequest, policy: TenantPolicy) -> Verify:
    """Return what judges a small tier's whole answer; one that cannot even be read will not do."""

    def verify(body: bytes) -> str | None:
        rules = policy.routing.cascade
        try:
            return refused(body, request.fields.get("response_format"), request.max_tokens, rules)
        except (msgspec.DecodeError, IndexError):
            return "unreadable"

    return verify


def affinity_of(caller: Caller, request: ChatRequest) -> bytes | None:
    """Return what requests that should meet the same engine have in common: the session, or the first long message.

    Short prompts are computed faster than it pays to follow them.
    """
    if request.demands.session is not None:
        return f"{caller.tenant}\0{request.demands.session}".encode()
    if request.prompt_bytes < LONG_PREFIX_BYTES or not request.messages:
        return None
    return caller.tenant.encode() + b"\0" + bytes(request.messages[0].content)[:LONG_PREFIX_BYTES]


def promised(plan: Plan, policy: EffectivePolicy, request: ChatRequest, received_s: float) -> Deadline:
    """Return the deadline of a request: the SLA of the planned tier, tightened by the client's own limit.

    Only streams have a first token to await, gaps and a pace.
    """
    rules = policy.tenant_policy
    last_tier = plan.tier if plan.escalates_to is None else plan.steps[plan.escalates_to].tier
    sla = rules.sla.get(last_tier, NO_SLA)
    is_awaited = request.stream and rules.service_class != "batch"
    deadline = Deadline(
        received_s + sla.ttft_ms / 1000 if is_awaited and sla.ttft_ms is not None else None,
        None if sla.total_ms is None else received_s + sla.total_ms / 1000,
        idle_s=sla.idle_ms / 1000 if request.stream and sla.idle_ms is not None else None,
        min_output_tokens_per_s=sla.min_output_tokens_per_s if request.stream else None,
    )
    wish_ms, read_ms = request.demands.deadline_ms, None if request.stream else request.demands.read_timeout_ms
    if read_ms is not None and (wish_ms is None or read_ms < wish_ms):
        wish_ms = read_ms
    return deadline if wish_ms is None else deadline.tightened_by_caller(received_s + wish_ms / 1000)


def due_s(
    deadline: Deadline, rules: TenantPolicy, forecast: LatencyForecast | None, input_tokens: int, received_s: float
) -> float | None:
    """Return the moment by which a request should have begun to be served well, None when nobody waits for it.

    Args:
        deadline: what was promised.
        rules: the tenant's policy.
        forecast: of the deployment that goes first.
        input_tokens: the estimated prompt.
        received_s: when the request arrived, on the monotonic clock.
    """
    first_at_s, end_at_s = deadline.first_token_at_s, deadline.end_at_s
    if first_at_s is not None and (end_at_s is None or first_at_s < end_at_s):
        return first_at_s
    if end_at_s is not None:
        return end_at_s
    if rules.service_class == "batch":
        return None
    can = forecast is None or forecast.base_ms + forecast.ms_per_input_token * input_tokens <= INTERACTIVE_GOAL_MS
    return received_s + INTERACTIVE_GOAL_MS / 1000 if can else None
