"""Arize Phoenix, which is not ours, takes the spans and maps them onto its own names; opt in with its program.

It is no dependency (its licence is ELv2): `python -m venv phoenix && phoenix/bin/pip install arize-phoenix`, then
`HEADGATE_LAB_PHOENIX=phoenix/bin/phoenix pytest tests/integration/test_phoenix.py`.
"""

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.money import Usage
from gateway.settings.telemetry_settings import TelemetryEntry, telemetry_settings
from gateway.telemetry.exporting import Spans
from gateway.telemetry.otlp import span_exporter
from tests.traces import a_trace, an_attempt
from tests.upstream.process import unused_port

PHOENIX = os.environ.get("HEADGATE_LAB_PHOENIX")
pytestmark = pytest.mark.skipif(PHOENIX is None, reason="an outside check: set HEADGATE_LAB_PHOENIX to its program")
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
START_S = 120.0


@pytest.fixture
def phoenix(tmp_path: Path) -> Iterator[str]:
    """Run Phoenix on this machine alone, in an environment that says nothing else."""
    port = unused_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PHOENIX_WORKING_DIR": str(tmp_path),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(unused_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }
    with (tmp_path / "phoenix.log").open("wb") as log:
        process = subprocess.Popen([str(PHOENIX), "serve"], env=environment, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: httpx.get(f"{url}/healthz", trust_env=False).is_success, process, tmp_path / "phoenix.log")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def wait_for(is_so: Any, process: "subprocess.Popen[bytes]", log: Path) -> None:
    tick, waited_s = threading.Event(), 0.0
    while waited_s < START_S:
        assert process.poll() is None, log.read_text()[-2_000:]
        try:
            if is_so():
                return
        except httpx.TransportError:
            pass
        tick.wait(0.5)
        waited_s += 0.5
    pytest.fail(log.read_text()[-2_000:])


def test_phoenix_shows_a_request_with_its_attempts_under_its_own_names(phoenix: str) -> None:
    sink = Spans(span_exporter(telemetry_settings(TelemetryEntry(otlp_endpoint=phoenix), "f", {})))
    attempts = (an_attempt(n=1), an_attempt(n=2, usage=Usage(20, 5)))
    sink.record(a_trace(attempts=attempts, traceparent=f"00-{TRACE_ID}-00f067aa0ba902b7-01", total_ms=200.0))
    sink.close()
    assert sink.dropped == 0
    spans: list[dict[str, Any]] = []
    tick = threading.Event()
    for _ in range(60):
        answer = httpx.get(f"{phoenix}/v1/projects/default/spans", params={"limit": 10}, trust_env=False)
        spans = answer.json()["data"] if answer.is_success else []
        if len(spans) == 3:
            break
        tick.wait(0.5)
    assert {span["context"]["trace_id"] for span in spans} == {TRACE_ID}
    (server,) = [span for span in spans if "headgate.request.id" in span["attributes"]]
    calls = [span for span in spans if span is not server]
    assert [span["parent_id"] for span in calls] == [server["context"]["span_id"]] * 2
    assert all(span["attributes"]["llm.model_name"] == "s1-model" for span in calls)
    assert all(span["attributes"]["llm.token_count.prompt"] == 20 for span in calls)
