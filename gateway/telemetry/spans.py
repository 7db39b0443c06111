"""OpenTelemetry spans from finished traces: one SERVER span a request, one CLIENT span an attempt.

Made only when an OTLP endpoint is configured, after the answer has left; exporting runs in the SDK's own thread.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from core.money import NANO_PER_USD
from core.trace import Attempt, AttemptOutcome, RequestTrace
from gateway.telemetry import semconv

Attributes = Mapping[str, str | int | float | bool]


class Spans:
    """A sink that emits spans through `exporter`."""

    def __init__(self, exporter: SpanExporter, service_name: str = "headgate") -> None:
        self._provider = TracerProvider(resource=Resource.create({"service.name": service_name}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("headgate")
        self._propagator = TraceContextTextMapPropagator()

    def record(self, trace: RequestTrace) -> None:
        """Emit the spans of one request with its true times."""
        carrier = {} if trace.traceparent is None else {"traceparent": trace.traceparent}
        span = self._tracer.start_span(
            f"{semconv.CHAT} {trace.model_alias}",
            context=self._propagator.extract(carrier, Context()),
            kind=SpanKind.SERVER,
            attributes=_request_attributes(trace),
            start_time=_nanoseconds(trace.received_at, 0.0),
        )
        if isinstance(span, Span):
            self._add_events(span, trace)
        if trace.error_code is not None:
            span.set_status(Status(StatusCode.ERROR))
        for attempt in trace.attempts:
            self._add_attempt(set_span_in_context(span, Context()), trace, attempt)
        span.end(_nanoseconds(trace.received_at, trace.total_ms))

    def close(self) -> None:
        """Flush what is queued and stop the exporter."""
        self._provider.shutdown()

    def _add_events(self, span: Span, trace: RequestTrace) -> None:
        """Add what was decided; without times of their own, the decisions are dated to when they were all made."""
        decided_ms = trace.attempts[0].started_ms if trace.attempts else trace.total_ms
        at = _nanoseconds(trace.received_at, decided_ms)
        span.add_event(semconv.EVENT_CACHE, {semconv.CACHE_OUTCOME: trace.cache}, at)
        if trace.reason is not None:
            span.add_event(semconv.EVENT_DECISION, {semconv.ROUTE_REASON: trace.reason}, at)
        span.add_event(semconv.EVENT_BUDGET, {semconv.BUDGET_RESERVED_USD: trace.reserved_nano_usd / NANO_PER_USD}, at)

    def _add_attempt(self, parent: Context, trace: RequestTrace, attempt: Attempt) -> None:
        span = self._tracer.start_span(
            f"{semconv.CHAT} {attempt.model}",
            context=parent,
            kind=SpanKind.CLIENT,
            attributes=_attempt_attributes(attempt),
            start_time=_nanoseconds(trace.received_at, attempt.started_ms),
        )
        if attempt.outcome not in (AttemptOutcome.COMPLETE, AttemptOutcome.CLIENT_GONE, AttemptOutcome.OUTRUN):
            span.set_status(Status(StatusCode.ERROR))
        span.end(_nanoseconds(trace.received_at, attempt.ended_ms))


def _request_attributes(trace: RequestTrace) -> Attributes:
    attributes: dict[str, str | int | float | bool | None] = {
        semconv.OPERATION_NAME: semconv.CHAT,
        semconv.PROVIDER_NAME: semconv.PROVIDER,
        semconv.REQUEST_MODEL: trace.model_alias,
        semconv.HTTP_STATUS: trace.status,
        semconv.ERROR_TYPE: trace.error_code,
        semconv.TENANT: trace.tenant,
        semconv.REQUEST_ID: trace.request_id,
        semconv.POLICY_VERSION: trace.policy_version,
        semconv.CACHE_OUTCOME: trace.cache,
        semconv.CACHE_SIMILARITY: trace.similarity,
        semconv.ROUTE_TIER: trace.tier,
        semconv.ROUTE_REASON: trace.reason,
        semconv.ROUTE_SCORE: trace.p_small_suffices,
        semconv.ROUTE_DEGRADED_FROM: trace.degraded_from,
        semconv.SLA_VIOLATED: trace.sla_violated,
        semconv.COST_USD: trace.cost_nano_usd / NANO_PER_USD,
        semconv.COST_SAVED_USD: trace.saved_nano_usd / NANO_PER_USD,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _attempt_attributes(attempt: Attempt) -> Attributes:
    attributes: dict[str, str | int | float | bool | None] = {
        semconv.OPERATION_NAME: semconv.CHAT,
        semconv.PROVIDER_NAME: attempt.deployment,
        semconv.REQUEST_MODEL: attempt.model,
        semconv.HTTP_STATUS: attempt.http_status,
        semconv.ATTEMPT_N: attempt.n,
        semconv.ATTEMPT_OUTCOME: attempt.outcome.value,
        semconv.ATTEMPT_KIND: attempt.kind.value,
        semconv.COST_AMOUNT: attempt.cost_nano_usd / NANO_PER_USD,
        semconv.COST_CURRENCY: "USD",
        semconv.COST_SOURCE: "local",
        semconv.INPUT_TOKENS: None if attempt.usage is None else attempt.usage.input_tokens,
        semconv.OUTPUT_TOKENS: None if attempt.usage is None else attempt.usage.output_tokens,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _nanoseconds(start: datetime, offset_ms: float) -> int:
    return int((start + timedelta(milliseconds=offset_ms)).timestamp() * 1_000_000) * 1_000
