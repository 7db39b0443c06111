"""A collector that hangs, a full disk and a reader that does not read lose rows and hold up nobody."""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from gateway.telemetry import exporting
from gateway.telemetry.exporting import Spans
from gateway.telemetry.log_line import MAX_QUEUED, BackgroundHandler, JsonFormatter
from tests.traces import a_trace

ROOT = Path(__file__).parents[2]
FULL_DISK = """
import json, resource, sys
from pathlib import Path
from core.identity import new_request_id
from gateway.telemetry.request_log import RequestLog
from tests.traces import a_trace

log = RequestLog(Path(sys.argv[1]) / "log.db")
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
for _ in range(9_000):
    log.record(a_trace(request_id=new_request_id()))
log.close()
print(json.dumps({"dropped": log.dropped, "waiting": log.waiting}))
"""


class Hanging(SpanExporter):
    """Takes a batch and never comes back, until it is shut down."""

    def __init__(self) -> None:
        self.taken = 0
        self._ended = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        self._ended.wait()
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._ended.set()


def test_a_collector_that_hangs_makes_traces_wait_and_then_go() -> None:
    exporter = Hanging()
    spans = Spans(exporter)
    asked = 2 * exporting.MAX_QUEUED
    for _ in range(asked):
        spans.record(a_trace())
    assert spans.waiting <= exporting.MAX_QUEUED
    assert spans.dropped >= asked - exporting.MAX_QUEUED - exporting.GROUP_TRACES
    spans.close()
    assert exporter.taken > 0
    assert spans.dropped + spans.waiting == asked


def test_a_full_disk_loses_rows_of_the_log_and_nothing_else(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert 0 < said["dropped"] < 9_000
    assert said["waiting"] == 0


@pytest.fixture
def unread() -> int:
    """A pipe that is full, whose reader does not read."""
    writing = os.pipe()[1]
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 65_536)
    except BlockingIOError:
        os.set_blocking(writing, True)
    return writing


def test_a_reader_that_does_not_read_makes_lines_wait_and_then_go(unread: int) -> None:
    handler = BackgroundHandler(unread)
    handler.setFormatter(JsonFormatter())
    record = logging.LogRecord("headgate.test", logging.INFO, "", 0, "hello", None, None)
    for _ in range(MAX_QUEUED + 1_000):
        handler.handle(record)
    assert handler.dropped > 0


def test_lines_arrive_whole_and_in_order_where_somebody_reads() -> None:
    reading, writing = os.pipe()
    handler = BackgroundHandler(writing)
    handler.setFormatter(JsonFormatter())
    for n in range(400):
        handler.handle(logging.LogRecord("headgate.test", logging.INFO, "", 0, f"line {n}", None, None))
    handler.close()
    os.close(writing)
    with open(reading) as end:
        lines = end.read().splitlines()
    assert [json.loads(line)["message"] for line in lines] == [f"line {n}" for n in range(400)]
    assert handler.dropped == 0
