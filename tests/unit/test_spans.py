"""One SERVER span a request and one CLIENT span an attempt, with true times."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec.structs import replace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from core.money import Usage
from core.trace import AttemptKind, AttemptOutcome, Content, RequestTrace
from core.trace_context import Propagation
from gateway.telemetry import semconv
from gateway.telemetry.exporting import Spans
from gateway.telemetry.spans import Keeping
from tests.traces import RECEIVED_AT, a_hit, a_refusal, a_trace, an_attempt

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def exported(*traces: RequestTrace) -> tuple[ReadableSpan, ...]:
    return kept(Keeping(), *traces)


def kept(keeping: Keeping, *traces: RequestTrace) -> tuple[ReadableSpan, ...]:
    exporter = InMemorySpanExporter()
    spans = Spans(exporter, keeping)
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
    said = attributes(server(exported(a_trace(session_id="5e55", sla_total_ms=2000, baseline_nano_usd=4_000_000_000))))
    assert said[semconv.TENANT] == "acme"
    assert said[semconv.REQUEST_ID] == "req_1"
    assert said[semconv.REQUEST_MODEL] == "auto"
    assert said[semconv.HTTP_STATUS] == 200
    assert said[semconv.CACHE_OUTCOME] == "miss"
    assert said[semconv.ROUTE_TIER] == "small"
    assert said[semconv.CONVERSATION_ID] == "5e55"
    assert said[semconv.SLA_TOTAL_MS] == 2000
    assert (said[semconv.COST_USD], said[semconv.COST_SAVED_USD]) == (1.5, 2.5)
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
    assert exported(a_trace(traceparent=f"00-{TRACE_ID}-{PARENT_ID}-00", cost_nano_usd=1)) == ()


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


def test_the_events_tell_the_look_up_the_decision_and_the_budget() -> None:
    hit = server(exported(a_hit(cache_age_s=12.5)))
    (cache,) = [event for event in hit.events if event.name == semconv.EVENT_CACHE]
    assert dict(cache.attributes or {}) == {"headgate.cache.outcome": "semantic", "headgate.cache.similarity": 0.97,
                                            "headgate.cache.entry_age_s": 12.5}  # fmt: skip
    span = server(exported(a_trace(candidates=("s1", "l1"), degraded_from="large", free_nano_usd=3_000_000_000)))
    said = {event.name: dict(event.attributes or {}) for event in span.events}
    assert said[semconv.EVENT_DECISION][semconv.ROUTE_CANDIDATES] == ("s1", "l1")
    assert said[semconv.EVENT_DECISION][semconv.ROUTE_SCORE] == 0.9
    assert said[semconv.EVENT_DECISION][semconv.ROUTE_DEGRADED_FROM] == "large"
    assert said[semconv.EVENT_BUDGET] == {"headgate.budget.reserved_usd": 2.0, "headgate.budget.remaining_usd": 3.0}


def test_errors_sla_misses_and_dear_requests_are_kept_when_the_rest_is_not() -> None:
    nothing = Keeping(sample_ratio=0.0, dear_nano_usd=1_000)
    cheap = a_trace(cost_nano_usd=999, attempts=())
    assert not nothing.keeps(cheap)
    assert not nothing.keeps(replace(cheap, status=429, error_code="insufficient_quota"))
    assert nothing.keeps(replace(cheap, status=502, error_code="upstream_error"))
    assert nothing.keeps(replace(cheap, sla_violated=True))
    assert nothing.keeps(replace(cheap, cost_nano_usd=1_000))
    refused = f"00-{TRACE_ID}-{PARENT_ID}-00"
    assert nothing.keeps(replace(cheap, sla_violated=True, traceparent=refused))
    assert kept(nothing, cheap) == ()


def test_the_rest_is_sampled_by_the_traces_id() -> None:
    half = Keeping(sample_ratio=0.5)
    traces = [a_trace(request_id=f"req_{n}", cost_nano_usd=1) for n in range(400)]
    share = sum(half.keeps(trace) for trace in traces) / len(traces)
    assert 0.4 < share < 0.6
    assert [half.keeps(trace) for trace in traces] == [half.keeps(trace) for trace in traces]


def test_an_engine_is_told_the_span_of_its_attempt() -> None:
    callers = f"00-{TRACE_ID}-{PARENT_ID}-01"
    header = Propagation(1.0).traceparent("req_1", callers, 2)
    (span,) = clients(exported(a_trace(attempts=(an_attempt(n=2),), traceparent=callers)))
    assert header == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"
    alone = Propagation(1.0).traceparent("req_1", None, 2)
    (span,) = clients(exported(a_trace(attempts=(an_attempt(n=2),))))
    assert alone == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"


def test_an_engine_records_what_the_gateway_samples() -> None:
    assert str(Propagation(0.0).traceparent("req_1", None, 1)).endswith("-00")
    assert Propagation(None).traceparent("req_1", "as it came", 1) == "as it came"


def test_a_collector_that_raises_or_refuses_is_survived_and_what_is_lost_is_counted() -> None:
    class Broken(InMemorySpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            raise RuntimeError("not today")

    spans = Spans(Broken())
    spans.record(a_trace())
    spans.record(a_trace())
    spans.close()
    assert spans.dropped == 2


def test_content_is_recorded_where_the_trace_carries_it_without_secrets() -> None:
    messages = b'[{"role":"user","content":"my key is sk-live-' + b"a" * 30 + b' ok?"},{"role":"tool","content":null}]'
    content = Content(messages, "fine", "stop")
    spans = exported(a_trace(content=content))
    said = attributes(server(spans))
    shown = json.loads(str(said[semconv.INPUT_MESSAGES]))
    assert shown[0] == {"role": "user", "parts": [{"type": "text", "content": "my key is [redacted] ok?"}]}
    assert json.loads(str(said[semconv.OUTPUT_MESSAGES])) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "fine"}], "finish_reason": "stop"}
    ]
    assert attributes(clients(spans)[0])[semconv.FINISH_REASONS] == ("stop",)
    assert semconv.INPUT_MESSAGES not in attributes(server(exported(a_trace())))


def test_long_content_is_cut_and_what_cannot_be_read_left_out() -> None:
    long = Content(b'[{"role":"user","content":"' + b"x" * 20_000 + b'"}]', None, None)
    said = attributes(server(exported(a_trace(content=long))))
    assert len(str(said[semconv.INPUT_MESSAGES])) < 9_000
    assert semconv.OUTPUT_MESSAGES not in said
    assert semconv.INPUT_MESSAGES not in attributes(server(exported(a_trace(content=Content(b"", "a", None)))))


def test_the_names_are_those_of_the_golden_file() -> None:
    """Whoever changes a name changes what backends and dashboards of others look for."""
    full = a_trace(
        content=Content(b"[]", "a", "stop"), session_id="s", sla_ttft_ms=1, sla_total_ms=2, baseline_nano_usd=1,
        free_nano_usd=1, candidates=("a",), cache_age_s=1.0, similarity=0.5, cache_detail="near:time",
        degraded_from="large", max_tokens=9, error_code="upstream_error",
        attempts=(an_attempt(kind=AttemptKind.HEDGE, usage=Usage(9, 9, 1, 1)),
                  an_attempt(n=2, outcome=AttemptOutcome.FAILED)),
    )  # fmt: skip
    spans = exported(full)
    names = {
        "server": sorted(attributes(server(spans))),
        "client": sorted({name for span in clients(spans) for name in attributes(span)}),
        "events": {event.name: sorted(event.attributes or {}) for event in server(spans).events},
        "metrics": {version: asdict(names) for version, names in semconv.NAMES.items()},
        "server_metrics": [semconv.SERVER_DURATION, semconv.SERVER_TTFT],
    }
    assert names == json.loads((Path(__file__).parent / "semconv.golden.json").read_text())
