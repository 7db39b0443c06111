"""What the pipeline's stages returned, written down as they return it and frozen once at the end.

Stages never read it; it exists so that a refusal at any stage leaves as complete a trace as a success.
"""

from datetime import datetime

import msgspec

from backends.attempt import LiveAnswer
from backends.tries import AttemptLog
from core.cached import Bypass, ExactHit, Found, NearHit, SemanticHit
from core.chat import ChatRequest
from core.errors import HeadgateError
from core.facts import RequestFacts
from core.identity import Caller
from core.money import Price, Usage
from core.plan import Complexity, Plan
from core.rules import NO_SLA, EffectivePolicy
from core.trace import Attempt, AttemptOutcome, CacheOutcome, Content, RequestTrace, Trial
from gateway.answer import AnswerHead, AnswerTail
from gateway.counterfactual import lost_prefix_nano_usd
from router.context import Context
from router.decision import Decision, Inputs
from router.sessions import Session

OK = 200
MAX_CONTENT_BYTES = 32 * 1024
"""Longer conversations are not recorded, and longer answers are cut."""


class TraceDraft(msgspec.Struct):
    """The values of one request so far; `received_s` and `first_sent_s` are monotonic seconds."""

    caller: Caller
    request: ChatRequest
    path: str
    received_at: datetime
    received_s: float
    traceparent: str | None
    policy: EffectivePolicy | None = None
    facts: RequestFacts | None = None
    session: Session | None = None
    inputs: Inputs | None = None
    decision: Decision | None = None
    found: Found | None = None
    complexity: Complexity | None = None
    context: Context | None = None
    plan: Plan | None = None
    attempts: AttemptLog = msgspec.field(default_factory=AttemptLog)
    first_sent_s: float | None = None
    degraded_from: str | None = None
    joined: AnswerHead | None = None
    joined_tail: AnswerTail | None = None
    error: HeadgateError | None = None
    baseline_price: Price | None = None
    live: LiveAnswer | None = None
    trial: Trial | None = None

    @property
    def is_held_out(self) -> bool:
        """Tell whether the request takes the baseline path, for comparison."""
        return self.trial is not None and self.trial.held_out

    @property
    def cache(self) -> CacheOutcome:
        """Return the token of `x-headgate-cache`."""
        return "joined" if self.joined is not None else cache_outcome(self.found)

    def freeze(self, now_s: float) -> RequestTrace:
        """Return the finished record."""
        total_ms = (now_s - self.received_s) * 1000
        ttft_ms = None if self.first_sent_s is None else (self.first_sent_s - self.received_s) * 1000
        found, plan, error, inputs = self.found, self.plan, self.error, self.inputs
        rules = None if self.policy is None else self.policy.tenant_policy
        attempts = tuple(self.attempts.attempts)
        hit = found if isinstance(found, ExactHit | SemanticHit) else None
        last = attempts[-1] if attempts else None
        by = self.joined or (last if hit is None else hit.entry.answer)
        weighing = None if plan is None else plan.weighing
        limit_ttft_ms, limit_total_ms = self._limits_ms()
        usage, saved_nano_usd = self._given(last)
        return RequestTrace(  # by position: see `core.trace`
            self.request.request_id,
            self.received_at,
            self.caller.tenant,
            self.caller.key_id,
            self.path,
            "" if rules is None else self.request.model,  # model_alias
            self.request.stream,
            OK if error is None else error.http_status,  # status
            None if error is None else error.code,  # error_code
            self.cache,
            "" if hit else cache_detail(found),  # cache_detail
            found.similarity if isinstance(found, SemanticHit | NearHit) else None,  # similarity
            None if by is None else by.tier,
            None if by is None else by.deployment,
            "cache" if hit or self.joined else (None if plan is None else str(plan.reason)),  # reason
            self.degraded_from or (None if plan is None else plan.degraded_from),  # degraded_from
            None if self.complexity is None else self.complexity.p_small_suffices,
            None if self.complexity is None else self.complexity.source,  # complexity_source
            None if rules is None else rules.version,  # policy_version
            attempts,
            usage,
            self.attempts.cost_nano_usd,
            saved_nano_usd,
            0 if plan is None else plan.worst_case_nano_usd,  # reserved_nano_usd
            ttft_ms,
            total_ms,
            max(0.0, total_ms - self.attempts.waited_ms()),  # overhead_ms
            plan is not None and _violated(ttft_ms, total_ms, limit_ttft_ms, limit_total_ms, last),  # sla_violated
            self.traceparent,
            self.attempts.queued_s * 1000,  # queued_ms
            None if usage is None or self.baseline_price is None else self.baseline_price.cost_nano_usd(usage),
            None if weighing is None else weighing.shadow_price_per_usd,
            limit_ttft_ms,  # sla_ttft_ms
            limit_total_ms,  # sla_total_ms
            None if inputs is None else inputs.standing.free_nano_usd,
            () if weighing is None else tuple([one.deployment for one in weighing.candidates]),  # candidates
            None if self.session is None else self.session.id,  # session_id
            None if hit is None else hit.age_s,  # cache_age_s
            self.request.max_tokens,
            self._content() if rules is not None and rules.record_content else None,  # content
            (  # lost_prefix_nano_usd
                0
                if last is None or inputs is None or inputs.session is None
                else lost_prefix_nano_usd(inputs, last.deployment)
            ),
            self.trial,
        )

    def _given(self, last: Attempt | None) -> tuple[Usage | None, int]:
        """Return the tokens of the answer that was given, whoever paid for it, and what it had cost if given again."""
        if isinstance(self.found, ExactHit | SemanticHit):
            answer = self.found.entry.answer
            return answer.usage, answer.cost_nano_usd
        if self.joined_tail is not None:
            return self.joined_tail.usage, self.joined_tail.cost_nano_usd
        return None if last is None else last.usage, 0

    def _limits_ms(self) -> tuple[float | None, float | None]:
        """Return the SLA that the plan was held to: the first token of streams that somebody awaits, and the whole."""
        if self.policy is None or self.plan is None:
            return None, None
        sla = self.policy.tenant_policy.sla.get(self.plan.tier, NO_SLA)
        is_awaited = self.request.stream and self.policy.tenant_policy.service_class != "batch"
        return sla.ttft_ms if is_awaited else None, sla.total_ms

    def _content(self) -> Content | None:
        """Return what was said; only where the tenant's policy lets it be recorded."""
        if "messages" not in self.request.fields:
            return None
        messages = bytes(self.request.fields["messages"])
        messages = messages if len(messages) <= MAX_CONTENT_BYTES else b""
        if isinstance(self.found, ExactHit | SemanticHit):
            answer = self.found.entry.answer
            return Content(messages, answer.content[:MAX_CONTENT_BYTES], answer.finish_reason)
        captured = None if self.live is None else self.live.captured()
        if captured is None or not captured.plain:
            return Content(messages, None, None)
        return Content(messages, captured.content[:MAX_CONTENT_BYTES], captured.finish_reason)


def _violated(
    ttft_ms: float | None,
    total_ms: float,
    limit_ttft_ms: float | None,
    limit_total_ms: float | None,
    last: Attempt | None,
) -> bool:
    if limit_total_ms is not None and total_ms > limit_total_ms:
        return True
    if limit_ttft_ms is not None and (total_ms if ttft_ms is None else ttft_ms) > limit_ttft_ms:
        return True
    return last is not None and last.outcome is AttemptOutcome.TIMED_OUT  # it was cut


def cache_outcome(found: Found | None) -> CacheOutcome:
    """Return the token of `x-headgate-cache`; a request refused before the look-up counts as bypass."""
    if isinstance(found, ExactHit):
        return "exact"
    if isinstance(found, SemanticHit):
        return "semantic"
    return "bypass" if found is None or isinstance(found, Bypass) else "miss"


def cache_detail(found: Found | None) -> str:
    """Return why nothing was served: the bypass reason, or the veto of a near-hit."""
    if isinstance(found, Bypass):
        return found.why
    return f"near:{found.veto}" if isinstance(found, NearHit) else ""
