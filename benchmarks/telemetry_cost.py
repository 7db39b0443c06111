"""What watching costs: CPU of the trace record, the metrics and the logs per request, and memory over many requests.

    python -m benchmarks.telemetry_cost --json benchmarks/results/telemetry_cost.json

Every figure is CPU time of the whole process, writer threads included, less what making the traces costs. `record` is
what freezing the trace costs; `together` that and all sinks behind the fan-out, as the gateway does without an
exporter; `spans` hands what is kept to an exporter that does nothing, or encodes it and throws the bytes away. Requests
come as fast as they are taken, so that the log writes groups of 500; at 500 requests a second its groups are of 100,
and it wakes for each, which costs more per request. Memory is resident memory after each 20,000 requests; growth
compares the last with the second: only then is the log at its retention and everything warm.
"""

import argparse
import gc
import itertools
import json
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from rich.console import Console
from rich.progress import track
from rich.table import Table

from backends.tries import AttemptLog
from benchmarks.request_log import BUSY_PER_S, START, traces
from core.identity import Caller
from core.plan import Plan, PlannedStep, Reason
from core.trace import RequestTrace, TraceSink
from gateway.settings.retention import Retention
from gateway.telemetry.exporting import MAX_QUEUED, Spans
from gateway.telemetry.fan_out import FanOut
from gateway.telemetry.genai_metrics import GenAiMetrics
from gateway.telemetry.log_line import LogLine, configure_logging, dropped_lines
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.request_log import RequestLog
from gateway.telemetry.spans import Keeping
from gateway.trace_draft import TraceDraft
from tests.planning import chat, policy
from tests.traces import an_attempt

ROUNDS = 5
SAMPLE = 20_000
WARM_UP = 1_000
PACED = 3_000
PACE_PER_S = 500
LIMIT_US = 40.0
LIMIT_GROWTH = 0.02
PAGE = os.sysconf("SC_PAGE_SIZE")


class NullExporter(SpanExporter):
    """Takes spans, and encodes them when it is told to."""

    def __init__(self, *, encodes: bool) -> None:
        self._encodes = encodes

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._encodes:
            encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


class Freezing:
    """Freezes one and the same draft into a record for each request: what tracing costs before any sink."""

    def __init__(self) -> None:
        self._draft = TraceDraft(Caller("acme", "key"), chat(stream=True), "/v1/chat/completions", START, 100.0, None)
        self._draft.policy = policy()
        self._draft.plan = Plan((PlannedStep("s1", "small", 10, None, 77, 7),), Reason.SCORE, "small")
        self._draft.attempts = AttemptLog([an_attempt()])

    def record(self, trace: RequestTrace) -> None:
        self._draft.freeze(101.0)


class NullMetricExporter:
    """Takes metrics; they are sent once a minute, so what matters is what summing costs."""

    def export(self, metrics_data: object, timeout_millis: float = 0, **_: object) -> None:
        """Take a report."""

    def shutdown(self, timeout_millis: float = 0, **_: object) -> None:
        """Have nothing to end."""


def main() -> int:
    """Measure, print, and keep the results where asked; the exit code says whether the limits were kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=240_000, help="for the growth of memory")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sinks = parts(folder)
        costs_us = {what: cost_us(what, open_sinks) for what, open_sinks in sinks.items()}
        paced_us = {what: cost_us(what, sinks[what], PACE_PER_S) for what in ("request log", "together")}
        resident = memory(arguments.requests, folder)
    growth = resident[-1] / resident[1] - 1
    show({**costs_us, **{f"{what}, at {PACE_PER_S}/s": cost for what, cost in paced_us.items()}}, resident, growth)
    if arguments.json is not None:
        result = {
            "command": f"python -m benchmarks.telemetry_cost --requests {arguments.requests}",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "requests_a_round": SAMPLE,
            "rounds": ROUNDS,
            "cpu_us_per_request": {what: round(cost, 1) for what, cost in costs_us.items()},
            f"cpu_us_per_request_at_{PACE_PER_S}_per_s": {what: round(cost, 1) for what, cost in paced_us.items()},
            "resident_mib": [round(one / 2**20, 1) for one in resident],
            "requests_between_them": SAMPLE,
            "memory_growth_ratio": round(growth, 4),
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if costs_us["together"] <= LIMIT_US and growth <= LIMIT_GROWTH else 1


Open = Callable[[], tuple[TraceSink, Callable[[], None]]]


def parts(folder: Path) -> dict[str, Open]:
    """Return what is measured by name; each opens a sink and says how to close it."""
    numbers = itertools.count()

    def metrics() -> tuple[TraceSink, Callable[[], None]]:
        return Metrics(lambda _: True, [0.3, 1.5, 5.0, 30.0]), lambda: None

    def log() -> tuple[TraceSink, Callable[[], None]]:
        opened = RequestLog(folder / f"{next(numbers)}.db", now_s=START.timestamp)
        return opened, opened.close

    def lines() -> tuple[TraceSink, Callable[[], None]]:
        configure_logging("info", os.open(os.devnull, os.O_WRONLY))
        return LogLine(), close_lines

    def together() -> tuple[TraceSink, Callable[[], None]]:
        opened, close_log = log()

        def close() -> None:
            close_log()
            close_lines()

        return FanOut([Freezing(), metrics()[0], opened, lines()[0]]), close

    def spans(ratio: float, *, encodes: bool) -> tuple[TraceSink, Callable[[], None]]:
        opened = Spans(NullExporter(encodes=encodes), Keeping(ratio, dear_nano_usd=10**18))
        return opened, opened.close

    def genai() -> tuple[TraceSink, Callable[[], None]]:
        opened = GenAiMetrics(NullMetricExporter())  # type: ignore[arg-type]
        return opened, opened.close

    return {
        "record": lambda: (Freezing(), lambda: None),
        "metrics": metrics,
        "request log": log,
        "log line": lines,
        "together": together,
        "spans, 1 of 10 kept, not encoded": lambda: spans(0.1, encodes=False),
        "spans, 1 of 10 kept, encoded": lambda: spans(0.1, encodes=True),
        "spans, all kept, encoded": lambda: spans(1.0, encodes=True),
        "metrics of generative AI": genai,
    }


def close_lines() -> None:
    """Wait for the lines that are not written yet."""
    for handler in logging.getLogger().handlers:
        handler.close()
    if dropped_lines():
        raise SystemExit(f"{dropped_lines()} lines were dropped; the figures would be wrong")


def cost_us(what: str, open_sink: Open, per_s: int | None = None) -> float:
    """Return the least CPU microseconds of one request over the rounds: whatever disturbs can only add."""
    return min(_round_us(open_sink, per_s) for _ in track(range(ROUNDS), what, console=Console(stderr=True)))


def _round_us(open_sink: Open, per_s: int | None = None) -> float:
    made = list(_traffic(WARM_UP + (SAMPLE if per_s is None else PACED)))
    sink, close = open_sink()
    for trace in made[:WARM_UP]:
        sink.record(trace)
    gc.collect()
    gc.freeze()  # a gateway does not hold the traces to come, so the collector must not walk through them
    started_s, began_s = time.perf_counter(), time.process_time()
    for n, trace in enumerate(made[WARM_UP:]):
        sink.record(trace)
        if per_s is not None and n % (per_s // 20) == 0:
            time.sleep(max(0.0, started_s + n / per_s - time.perf_counter()))
        elif n % 500 == 0:
            time.sleep(0.002)  # let the writers take their groups, as they do between requests
    close()
    gc.unfreeze()
    return (time.process_time() - began_s) / (len(made) - WARM_UP) * 1e6


def _traffic(requests: int) -> Iterator[RequestTrace]:
    return traces(requests, timedelta(seconds=requests / BUSY_PER_S))


def memory(requests: int, folder: Path) -> list[int]:
    """Return the resident bytes after each `SAMPLE` requests through everything that keeps anything."""
    newest = [START]  # the log's clock goes with its rows, as it does live
    log = RequestLog(folder / "memory.db", Retention(max_rows=SAMPLE), now_s=lambda: newest[0].timestamp())
    spans = Spans(NullExporter(encodes=True), Keeping(0.1))
    genai = GenAiMetrics(NullMetricExporter())  # type: ignore[arg-type]
    configure_logging("info", os.open(os.devnull, os.O_WRONLY))
    sink = FanOut([Metrics(lambda _: True), log, LogLine(), spans, genai])
    resident = []
    for n, trace in enumerate(track(_traffic(requests), "memory", requests, console=Console(stderr=True)), 1):
        newest[0] = trace.received_at
        sink.record(trace)
        while n % 500 == 0 and (log.waiting > 500 or spans.waiting > MAX_QUEUED // 8):
            time.sleep(0.002)
        if n % SAMPLE == 0:
            gc.collect()
            resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE)
    for close in (log.close, spans.close, genai.close, close_lines):
        close()
    return resident


def show(costs_us: dict[str, float], resident: list[int], growth: float) -> None:
    """Print what was measured."""
    table = Table(title="CPU per request")
    table.add_column("what")
    table.add_column("µs", justify="right")
    for what, cost in costs_us.items():
        table.add_row(what, f"{cost:.1f}")
    console = Console()
    console.print(table)
    told = ", ".join(f"{one / 2**20:.1f}" for one in resident)
    console.print(f"resident MiB after each {SAMPLE:,} requests: {told}; growth {growth:+.2%}")


if __name__ == "__main__":
    sys.exit(main())
