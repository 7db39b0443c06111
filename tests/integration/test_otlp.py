"""Spans and metrics leave by OTLP, over HTTP and gRPC, and decode at an independent receiver."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.settings.telemetry_settings import Semconv, TelemetryEntry, telemetry_settings
from gateway.telemetry.exporting import Spans
from gateway.telemetry.genai_metrics import GenAiMetrics
from gateway.telemetry.otlp import metric_exporter, span_exporter
from tests.receiving import receiver
from tests.traces import a_hit, a_trace, an_attempt

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TWO_ATTEMPTS = a_trace(
    attempts=(an_attempt(n=1), an_attempt(n=2)), traceparent=f"00-{TRACE_ID}-00f067aa0ba902b7-01", total_ms=200.0
)


def spans_of(requests: list[ExportTraceServiceRequest]) -> list[Span]:
    resources = [resource for one in requests for resource in one.resource_spans]
    return [span for resource in resources for scope in resource.scope_spans for span in scope.spans]


def judge(spans: list[Span]) -> None:
    by_kind = {
        kind: [span for span in spans if span.kind == kind] for kind in (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    }
    (server,) = by_kind[Span.SPAN_KIND_SERVER]
    assert server.trace_id.hex() == TRACE_ID
    assert [span.parent_span_id for span in by_kind[Span.SPAN_KIND_CLIENT]] == [server.span_id] * 2
    attributes = {pair.key: pair.value for pair in server.attributes}
    assert attributes["headgate.request.id"].string_value == TWO_ATTEMPTS.request_id
    assert attributes["gen_ai.operation.name"].string_value == "chat"
    assert [event.name for event in server.events] == ["headgate.cache", "headgate.decision", "headgate.budget"]


def test_spans_leave_by_http() -> None:
    with receiver() as (endpoint, posts):
        settings = telemetry_settings(TelemetryEntry(otlp_endpoint=endpoint), "f", {})
        sink = Spans(span_exporter(settings))
        sink.record(TWO_ATTEMPTS)
        sink.close()
    judge(spans_of([ExportTraceServiceRequest.FromString(post.body) for post in posts]))


def test_spans_leave_by_grpc() -> None:
    with grpc_receiver() as (endpoint, received):
        settings = telemetry_settings(TelemetryEntry(otlp_endpoint=endpoint, otlp_protocol="grpc"), "f", {})
        sink = Spans(span_exporter(settings))
        sink.record(TWO_ATTEMPTS)
        sink.close()
    judge(spans_of(received))


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (
            "v1.41",
            {
                "gen_ai.client.operation.duration", "gen_ai.client.operation.time_to_first_chunk",
                "gen_ai.client.operation.time_per_output_chunk", "gen_ai.client.token.usage",
            },
        ),
        (
            "latest",
            {
                "gen_ai.client.inference.duration", "gen_ai.client.inference.time_to_first_chunk",
                "gen_ai.client.inference.time_per_output_chunk", "gen_ai.client.inference.usage.input_tokens",
                "gen_ai.client.inference.usage.output_tokens",
            },
        ),
    ],
)  # fmt: skip
def test_metrics_of_generative_ai_leave_under_either_set_of_names(version: Semconv, expected: set[str]) -> None:
    metrics = exported_metrics(version)
    assert set(metrics) == expected | {"gen_ai.server.request.duration", "gen_ai.server.time_to_first_token"}
    (duration,) = metrics[next(name for name in expected if name.endswith("duration"))].histogram.data_points
    assert (duration.count, round(duration.sum, 6), sum(duration.bucket_counts)) == (2, 0.2, 2)
    labels = {pair.key: pair.value.string_value for pair in duration.attributes}
    assert labels == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "s1",
        "gen_ai.request.model": "s1-model",
    }
    (server,) = metrics["gen_ai.server.request.duration"].histogram.data_points
    assert server.count == 2  # the hit is a request and no attempt
    if version == "latest":
        (tokens,) = metrics["gen_ai.client.inference.usage.input_tokens"].sum.data_points
        assert tokens.as_int == 40
    else:
        points = metrics["gen_ai.client.token.usage"].histogram.data_points
        assert sorted(point.sum for point in points) == [10, 40]


def exported_metrics(version: Semconv) -> dict[str, Metric]:
    """Return what arrives of one request with two attempts and one hit."""
    with receiver() as (endpoint, posts):
        entry = TelemetryEntry(otlp_endpoint=endpoint, otlp_metrics=True)
        sink = GenAiMetrics(metric_exporter(telemetry_settings(entry, "f", {})), version)
        sink.record(TWO_ATTEMPTS)
        sink.record(a_hit())
        sink.close()
    (request,) = [ExportMetricsServiceRequest.FromString(post.body) for post in posts]
    ((scope,),) = [resource.scope_metrics for resource in request.resource_metrics]
    return {metric.name: metric for metric in scope.metrics}


@contextmanager
def grpc_receiver() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    received: list[ExportTraceServiceRequest] = []

    class Collector(TraceServiceServicer):
        def Export(self, request: ExportTraceServiceRequest, context: object) -> Message:  # noqa: N802 - protobuf's name
            received.append(request)
            return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(1))
    add_TraceServiceServicer_to_server(Collector(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", received
    finally:
        server.stop(None).wait()
