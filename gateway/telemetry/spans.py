"""OpenTelemetry spans from finished traces: one SERVER span a request, one CLIENT span an attempt, with true times.

Which traces are kept is decided when the request is over, before anything is made or encoded; spans are made by the
thread that exports them. Their ids are known from the request's (`core.trace_context`), so that engines of ours could
be told them when they were called.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from core.money import NANO_PER_USD, Usage
from core.trace import Attempt, AttemptKind, AttemptOutcome, RequestTrace
from core.trace_context import SERVER_SPAN, span_id, trace_context
from gateway.telemetry import semconv
from gateway.telemetry.content import input_messages, output_messages

Value = str | int | float | bool | Sequence[str]
Attributes = dict[str, Value | None]
NO_FAULT = (AttemptOutcome.COMPLETE, AttemptOutcome.CLIENT_GONE, AttemptOutcome.OUTRUN)
SERVER_ERROR = 500
_SCOPE = InstrumentationScope("headgate")
_ERROR = Status(StatusCode.ERROR)
_UNSET = Status(StatusCode.UNSET)


@dataclass(frozen=True, slots=True)
class Keeping:
    """Which traces are exported: errors, SLA misses and dear requests always, of the others a share.

    Attributes:
        sample_ratio: the share of the others, in [0, 1], which is a function of the trace's id.
        dear_nano_usd: a request that cost at least so much is dear.
    """

    sample_ratio: float = 1.0
    dear_nano_usd: int = 50_000_000

    def keeps(self, trace: RequestTrace) -> bool:
        """Decide on a finished trace; what the caller refused to sample is kept only when it is worth a look anyway."""
        is_notable = trace.status >= SERVER_ERROR or trace.sla_violated or trace.cost_nano_usd >= self.dear_nano_usd
        return is_notable or trace_context(trace.request_id, trace.traceparent).is_within(self.sample_ratio)


def resource(service_name: str = "headgate") -> Resource:
    """Return who speaks: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win over the given name."""
    named = Resource.create()
    is_named = not str(named.attributes.get("service.name", "unknown_service")).startswith("unknown_service")
    return named if is_named else named.merge(Resource({"service.name": service_name}))


def spans_of(trace: RequestTrace, of: Resource) -> list[ReadableSpan]:
    """Return the request's span and those of its attempts."""
    context = trace_context(trace.request_id, trace.traceparent)
    own = _context(context.trace_id, span_id(trace.request_id, SERVER_SPAN))
    parent = None
    if context.parent_span_id is not None:
        parent = SpanContext(context.trace_id, context.parent_span_id, True, TraceFlags(TraceFlags.SAMPLED))
    operation = semconv.operation_of(trace.path)
    server = ReadableSpan(
        name=f"{operation} {trace.model_alias}".rstrip(),
        context=own,
        parent=parent,
        resource=of,
        attributes=_present(_request_attributes(trace, operation)),
        events=_events(trace),
        kind=SpanKind.SERVER,
        instrumentation_scope=_SCOPE,
        status=_UNSET if trace.error_code is None else _ERROR,
        start_time=_nanoseconds(trace.received_at, 0.0),
        end_time=_nanoseconds(trace.received_at, trace.total_ms),
    )
    return [server, *(_client(trace, attempt, own, of, operation) for attempt in trace.attempts)]


def _client(trace: RequestTrace, attempt: Attempt, parent: SpanContext, of: Resource, operation: str) -> ReadableSpan:
    return ReadableSpan(
        name=f"{operation} {attempt.model}",
        context=_context(parent.trace_id, span_id(trace.request_id, attempt.n)),
        parent=parent,
        resource=of,
        attributes=_present(_attempt_attributes(trace, attempt, operation)),
        kind=SpanKind.CLIENT,
        instrumentation_scope=_SCOPE,
        status=_UNSET if attempt.outcome in NO_FAULT else Status(StatusCode.ERROR, attempt.error),
        start_time=_nanoseconds(trace.received_at, attempt.started_ms),
        end_time=_nanoseconds(trace.received_at, attempt.ended_ms),
    )


def _events(trace: RequestTrace) -> tuple[Event, ...]:
    """Return what was decided; without times of their own, the decisions are dated to when they were all made."""
    decided_ms = trace.attempts[0].started_ms if trace.attempts else trace.total_ms
    at = _nanoseconds(trace.received_at, decided_ms)
    cache: Attributes = {
        semconv.CACHE_OUTCOME: trace.cache,
        semconv.CACHE_DETAIL: trace.cache_detail or None,
        semconv.CACHE_SIMILARITY: trace.similarity,
        semconv.CACHE_AGE_S: trace.cache_age_s,
    }
    decision: Attributes = {
        semconv.ROUTE_TIER: trace.tier,
        semconv.ROUTE_REASON: trace.reason,
        semconv.ROUTE_SCORE: trace.p_small_suffices,
        semconv.ROUTE_CANDIDATES: trace.candidates or None,
        semconv.ROUTE_DEGRADED_FROM: trace.degraded_from,
    }
    budget: Attributes = {
        semconv.BUDGET_RESERVED_USD: trace.reserved_nano_usd / NANO_PER_USD,
        semconv.BUDGET_REMAINING_USD: _usd(trace.free_nano_usd),
    }
    told = [(semconv.EVENT_CACHE, cache), (semconv.EVENT_DECISION, decision), (semconv.EVENT_BUDGET, budget)]
    if trace.reason is None:
        del told[1]
    return tuple(Event(name, _present(attributes), at) for name, attributes in told)


def _request_attributes(trace: RequestTrace, operation: str) -> Attributes:
    content = trace.content
    baseline = trace.baseline_nano_usd
    saved = trace.saved_nano_usd if baseline is None else baseline - trace.cost_nano_usd
    return {
        semconv.OPERATION_NAME: operation,
        semconv.PROVIDER_NAME: semconv.PROVIDER,
        semconv.REQUEST_MODEL: trace.model_alias or None,
        semconv.REQUEST_STREAM: trace.stream,
        semconv.REQUEST_MAX_TOKENS: trace.max_tokens,
        semconv.CONVERSATION_ID: trace.session_id,
        semconv.HTTP_STATUS: trace.status,
        semconv.ERROR_TYPE: trace.error_code,
        semconv.TENANT: trace.tenant,
        semconv.REQUEST_ID: trace.request_id,
        semconv.POLICY_VERSION: trace.policy_version,
        semconv.CACHE_OUTCOME: trace.cache,
        semconv.ROUTE_TIER: trace.tier,
        semconv.ROUTE_DEPLOYMENT: trace.deployment,
        semconv.ROUTE_REASON: trace.reason,
        semconv.SLA_TTFT_MS: trace.sla_ttft_ms,
        semconv.SLA_TOTAL_MS: trace.sla_total_ms,
        semconv.SLA_VIOLATED: trace.sla_violated,
        semconv.COST_USD: trace.cost_nano_usd / NANO_PER_USD,
        semconv.COST_BASELINE_USD: _usd(baseline),
        semconv.COST_SAVED_USD: saved / NANO_PER_USD,
        semconv.INPUT_MESSAGES: None if content is None else input_messages(content),
        semconv.OUTPUT_MESSAGES: None if content is None else output_messages(content),
    }


def _attempt_attributes(trace: RequestTrace, attempt: Attempt, operation: str) -> Attributes:
    first_ms, usage = attempt.first_byte_ms, attempt.usage or Usage(0, 0)
    is_complete = attempt.outcome is AttemptOutcome.COMPLETE
    finish = trace.content.finish_reason if trace.content is not None and is_complete else None
    return {
        semconv.OPERATION_NAME: operation,
        semconv.PROVIDER_NAME: attempt.deployment,
        semconv.REQUEST_MODEL: attempt.model,
        semconv.RESPONSE_MODEL: (attempt.other_model or attempt.model) if first_ms is not None else None,
        semconv.FINISH_REASONS: (finish,) if finish else None,
        semconv.TIME_TO_FIRST_CHUNK: None if first_ms is None else (first_ms - attempt.started_ms) / 1000,
        semconv.HTTP_STATUS: attempt.http_status,
        semconv.ERROR_TYPE: None if attempt.outcome in NO_FAULT else attempt.outcome.value,
        semconv.ATTEMPT_N: attempt.n,
        semconv.ATTEMPT_TIER: attempt.tier,
        semconv.ATTEMPT_OUTCOME: attempt.outcome.value,
        semconv.ATTEMPT_KIND: attempt.kind.value,
        semconv.ATTEMPT_HEDGED: attempt.kind is AttemptKind.HEDGE or None,
        semconv.ATTEMPT_WON: is_complete,
        semconv.COST_AMOUNT: attempt.cost_nano_usd / NANO_PER_USD,
        semconv.COST_CURRENCY: "USD",
        semconv.COST_SOURCE: "local",
        semconv.INPUT_TOKENS: None if attempt.usage is None else usage.input_tokens,
        semconv.OUTPUT_TOKENS: None if attempt.usage is None else usage.output_tokens,
        semconv.CACHE_READ_TOKENS: usage.cached_input_tokens or None,
        semconv.REASONING_TOKENS: usage.reasoning_tokens or None,
    }


def _present(attributes: Attributes) -> dict[str, Value]:
    return {name: value for name, value in attributes.items() if value is not None}


def _usd(nano_usd: int | None) -> float | None:
    return None if nano_usd is None else nano_usd / NANO_PER_USD


def _context(trace_id: int, own_id: int) -> SpanContext:
    return SpanContext(trace_id, own_id, False, TraceFlags(TraceFlags.SAMPLED))


def _nanoseconds(start: datetime, offset_ms: float) -> int:
    return int((start + timedelta(milliseconds=offset_ms)).timestamp() * 1_000_000) * 1_000
