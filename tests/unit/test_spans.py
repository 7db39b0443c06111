"""One SERVER span a request and one CLIENT span an attempt, with true times."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from core.trace import AttemptOutcome, RequestTrace
from gateway.telemetry import semconv
from gateway.telemetry.spans import Spans
from tests.traces import RECEIVED_AT, a_hit, a_refusal, a_trace, an_attempt

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def exported(*traces: RequestTrace) -> tuple[ReadableSpan, ...]:
    exporter = InMemorySpanExporter()
    spans = Spans(exporter)
    for trace in traces:
        spans.record(trace)
    spans.close()
    return exporter.get_finished_spans()


def server(spans: Iterable[ReadableSpan]) -> ReadableSpan:
    (found,) = [span for span in spans if span.kind is SpanKind.SERVER]
    return found


def clients(spans: Iterable[ReadableSpan]) -> list[ReadableSpan]:
    return [span for span in spans if span.kind is SpanKind.CLIENT]


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def moment(nanoseconds: int | None) -> datetime:
    assert nanoseconds is not None
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=nanoseconds // 1000)


def test_a_request_is_one_server_span_with_its_true_times() -> None:
    span = server(exported(a_trace()))
    assert span.name == "chat auto"
    assert moment(span.start_time) == RECEIVED_AT
    assert moment(span.end_time) == RECEIVED_AT + timedelta(milliseconds=112.25)
    assert span.status.status_code is StatusCode.UNSET


def test_a_request_span_carries_who_what_and_how_much() -> None:
    said = attributes(server(exported(a_trace(similarity=0.5, degraded_from="large"))))
    assert said[semconv.TENANT] == "acme"
    assert said[semconv.REQUEST_ID] == "req_1"
    assert said[semconv.REQUEST_MODEL] == "auto"
    assert said[semconv.HTTP_STATUS] == 200
    assert said[semconv.CACHE_OUTCOME] == "miss"
    assert said[semconv.ROUTE_TIER] == "small"
    assert said[semconv.ROUTE_SCORE] == 0.9
    assert said[semconv.ROUTE_DEGRADED_FROM] == "large"
    assert said[semconv.COST_USD] == 1.5
    assert semconv.ERROR_TYPE not in said


def test_each_attempt_is_a_client_span_below_the_request() -> None:
    failed = an_attempt(outcome=AttemptOutcome.FAILED, http_status=None, usage=None, cost_nano_usd=0, ended_ms=20.0)
    spans = exported(a_trace(attempts=(failed, an_attempt(n=2, started_ms=21.0))))
    parent = server(spans)
    first, second = clients(spans)
    assert first.parent is not None
    assert first.parent.span_id == parent.context.span_id
    assert first.context.trace_id == second.context.trace_id == parent.context.trace_id
    assert (first.status.status_code, second.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert moment(second.start_time) == RECEIVED_AT + timedelta(milliseconds=21)
    assert moment(second.end_time) == RECEIVED_AT + timedelta(milliseconds=110)
    assert attributes(second)[semconv.OUTPUT_TOKENS] == 5
    assert attributes(second)[semconv.COST_AMOUNT] == 1.5
    assert {semconv.OUTPUT_TOKENS, semconv.HTTP_STATUS}.isdisjoint(attributes(first))


def test_a_client_that_went_away_is_no_error_of_the_deployment() -> None:
    (span,) = clients(exported(a_trace(attempts=(an_attempt(outcome=AttemptOutcome.CLIENT_GONE),))))
    assert span.status.status_code is StatusCode.UNSET
    assert attributes(span)[semconv.ATTEMPT_OUTCOME] == "client_gone"


def test_a_refusal_is_an_error_with_its_code() -> None:
    span = server(exported(a_refusal()))
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)[semconv.ERROR_TYPE] == "insufficient_quota"


def test_a_span_continues_the_callers_trace() -> None:
    span = server(exported(a_trace(traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01")))
    assert f"{span.context.trace_id:032x}" == TRACE_ID
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT_ID


def test_a_trace_that_the_caller_does_not_sample_is_not_exported() -> None:
    assert exported(a_trace(traceparent=f"00-{TRACE_ID}-{PARENT_ID}-00")) == ()


def test_a_broken_traceparent_starts_a_trace_of_its_own() -> None:
    spans = exported(a_trace(traceparent="00-nonsense"), a_trace(request_id="req_2"))
    roots = [span for span in spans if span.kind is SpanKind.SERVER]
    assert [root.parent for root in roots] == [None, None]
    assert roots[0].context.trace_id != roots[1].context.trace_id


def test_the_decisions_are_events_within_the_span() -> None:
    for trace in (a_trace(), a_hit(), a_refusal()):
        span = server(exported(trace))
        names = [event.name for event in span.events]
        assert names == [semconv.EVENT_CACHE, *([semconv.EVENT_DECISION] if trace.reason else []), semconv.EVENT_BUDGET]
        assert span.start_time is not None
        assert span.end_time is not None
        assert all(span.start_time <= event.timestamp <= span.end_time for event in span.events)
