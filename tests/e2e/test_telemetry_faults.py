"""Requests are answered while nobody reads the log, the collector hangs, and metrics are asked for."""

import os
import socket
from pathlib import Path

import httpx

from tests.e2e.gateway_process import REMOTE, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream

REQUESTS = 300


def test_neither_a_hanging_collector_nor_an_unread_log_touches_a_request(
    upstream: RunningUpstream, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as collector:  # connections wait in its backlog for ever
        endpoint = f"http://127.0.0.1:{collector.getsockname()[1]}"
        operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
        operator += f"telemetry: {{otlp_endpoint: '{endpoint}', otlp_metrics: true, log_level: debug}}\n"
        write_configuration(tmp_path, operator, {"acme": "tenant: acme\ncache: {enabled: false}\n"})
        with run_gateway(tmp_path, log_to=writing) as gateway:
            headers = {"authorization": f"Bearer {gateway.key('acme')}"}
            body = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}
            with httpx.Client(base_url=gateway.base_url, headers=headers, trust_env=False) as client:
                statuses = {client.post("/chat/completions", json=body).status_code for _ in range(REQUESTS)}
            assert statuses == {200}
            assert "headgate_requests_total" in gateway.metrics()
            assert len(gateway.request_rows(REQUESTS)) == REQUESTS
    os.close(writing)
    os.close(reading)
