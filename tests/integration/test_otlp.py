"""Spans leave by OTLP over HTTP and decode at an independent receiver."""

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.telemetry.spans import Spans
from tests.receiving import receiver
from tests.traces import a_trace, an_attempt

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_request_is_one_server_span_with_a_client_span_per_attempt() -> None:
    trace = a_trace(attempts=(an_attempt(n=1), an_attempt(n=2)), traceparent=f"00-{TRACE_ID}-00f067aa0ba902b7-01")
    with receiver() as (endpoint, posts):
        sink = Spans(OTLPSpanExporter(endpoint=endpoint))
        sink.record(trace)
        sink.close()
    requests = [ExportTraceServiceRequest.FromString(post.body) for post in posts]
    spans = [
        span
        for one in requests
        for resource in one.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    by_kind = {
        kind: [span for span in spans if span.kind == kind] for kind in (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    }
    (server,) = by_kind[Span.SPAN_KIND_SERVER]
    assert server.trace_id.hex() == TRACE_ID
    assert [span.parent_span_id for span in by_kind[Span.SPAN_KIND_CLIENT]] == [server.span_id] * 2
    attributes = {pair.key: pair.value for pair in server.attributes}
    assert attributes["headgate.request.id"].string_value == trace.request_id
    assert attributes["gen_ai.operation.name"].string_value == "chat"
