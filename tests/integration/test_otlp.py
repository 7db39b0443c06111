"""Spans leave by OTLP over HTTP and decode at an independent receiver."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.telemetry.spans import Spans
from tests.traces import a_trace, an_attempt

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@contextmanager
def receiver() -> Iterator[tuple[str, list[Span]]]:
    """Listen as a collector does, and collect every span that arrives."""
    spans: list[Span] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Stay silent."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_request_is_one_server_span_with_a_client_span_per_attempt() -> None:
    trace = a_trace(attempts=(an_attempt(n=1), an_attempt(n=2)), traceparent=f"00-{TRACE_ID}-00f067aa0ba902b7-01")
    with receiver() as (endpoint, spans):
        sink = Spans(OTLPSpanExporter(endpoint=endpoint))
        sink.record(trace)
        sink.close()
    by_kind = {
        kind: [span for span in spans if span.kind == kind] for kind in (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    }
    (server,) = by_kind[Span.SPAN_KIND_SERVER]
    assert server.trace_id.hex() == TRACE_ID
    assert [span.parent_span_id for span in by_kind[Span.SPAN_KIND_CLIENT]] == [server.span_id] * 2
    attributes = {pair.key: pair.value for pair in server.attributes}
    assert attributes["headgate.request.id"].string_value == trace.request_id
    assert attributes["gen_ai.operation.name"].string_value == "chat"
