"""What a row of the request log costs to write and to keep, and how long pages wait for a million of them.

    python -m benchmarks.request_log [--rows 1000000] [--json benchmarks/results/request_log.json]

Thirty days of traffic of twelve tenants, two tiers, one request in four a hit and one in fifty refused. CPU is that of
the whole process with its writer thread, less that of making the traces, at 500 requests a second (spread over days,
a group of rows would touch hundreds of sums, as it never does live). Pages are timed as their data are loaded: the
median and the slowest of seven.
"""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from backends.registry import Registry
from core.clock import SystemClock
from core.identity import new_request_id
from core.money import Usage
from core.trace import RequestTrace
from gateway.admin.insight_routes import Insight
from gateway.reporting.sla_report import sla_report
from gateway.settings.retention import Retention
from gateway.telemetry.log_reader import Filter, LogReader, Window
from gateway.telemetry.request_log import RequestLog
from policies.loading import PolicySet
from tests.traces import a_hit, a_refusal, a_trace, an_attempt

START = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 30
TENANTS = tuple(f"tenant-{n:02d}" for n in range(12))
ROUNDS = 7
BUSY_ROWS = 100_000
BUSY_PER_S = 500


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds that a page's data take."""

    page: str
    median_ms: float
    slowest_ms: float


def main() -> int:
    """Write, read, print, and keep the results where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requests.db"
        cpu_us = write(
            Path(folder) / "busy.db", min(arguments.rows, BUSY_ROWS), timedelta(seconds=BUSY_ROWS / BUSY_PER_S)
        )
        write(path, arguments.rows, timedelta(days=DAYS))
        bytes_per_row = path.stat().st_size / arguments.rows
        timings = [timed(page, load) for page, load in pages(LogReader(path))]
    show(arguments.rows, cpu_us, bytes_per_row, timings)
    if arguments.json is not None:
        result = {
            "command": f"python -m benchmarks.request_log --rows {arguments.rows}",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "rows": arguments.rows,
            "cpu_us_per_row": round(cpu_us, 1),
            "bytes_per_row": round(bytes_per_row, 1),
            "pages": [asdict(timing) for timing in timings],
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def write(path: Path, rows: int, during: timedelta) -> float:
    """Return the CPU microseconds of one row."""
    newest = [START]  # the log's clock goes with its rows, as it does live
    made_s = time.process_time()
    for _ in traces(rows, during):
        pass
    made_s = time.process_time() - made_s
    log = RequestLog(path, Retention(max_rows=rows), now_s=lambda: newest[0].timestamp())
    started_s = time.process_time()
    for n, trace in enumerate(track(traces(rows, during), "rows", rows, console=Console(stderr=True))):
        newest[0] = trace.received_at
        log.record(trace)
        while n % 1_000 == 0 and log.waiting > 5_000:
            time.sleep(0.005)
    log.close()
    if log.dropped:
        raise SystemExit(f"{log.dropped} rows were dropped; the figures would be wrong")
    return (time.process_time() - started_s - made_s) / rows * 1e6


def traces(rows: int, during: timedelta, seed: int = 1) -> Iterator[RequestTrace]:
    """Yield traces in the order of their time."""
    draw = random.Random(seed)
    for n in range(rows):
        at = START + during * (n / rows)
        tier, deployment = ("large", "large-full") if draw.random() < 0.3 else ("small", "small-int4")
        total_ms = draw.lognormvariate(6, 0.6)
        common = {
            "request_id": new_request_id(),
            "received_at": at,
            "tenant": TENANTS[min(int(draw.expovariate(0.4)), 11)],
            "key_id": f"{draw.randrange(64):016x}",
            "policy_version": "9a2dc897d1f4",
            "baseline_nano_usd": 2_000_000,
        }
        kind = draw.random()
        if kind < 0.02:
            yield a_refusal(**common)
        elif kind < 0.27:
            yield a_hit(**common, tier=tier, deployment=deployment, total_ms=draw.uniform(0.2, 6.0))
        else:
            usage = Usage(draw.randrange(20, 800), draw.randrange(5, 400))
            attempt = an_attempt(
                deployment=deployment, tier=tier, usage=usage, cost_nano_usd=700_000, ended_ms=total_ms
            )
            yield a_trace(
                **common, tier=tier, deployment=deployment, usage=usage, cost_nano_usd=700_000, attempts=(attempt,),
                total_ms=total_ms, ttft_ms=total_ms / 4, sla_violated=draw.random() < 0.01, sla_total_ms=2_000.0,
            )  # fmt: skip


def pages(log: LogReader) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what each page loads."""
    insight = Insight(log, SystemClock(), Registry({}, {}, SystemClock()))
    end_s = (START + timedelta(days=DAYS)).timestamp()
    some = log.page(Filter(), limit=1).rows[0].columns["request_id"]
    for name, seconds in (("1 hour", 3_600), ("24 hours", 86_400), ("7 days", 604_800), ("30 days", 2_592_000)):
        yield f"overview, {name}", partial(insight.glance, Window.between(end_s - seconds, end_s), None)
    yield "tenant, 30 days", partial(insight.glance, Window.between(end_s - 2_592_000, end_s), TENANTS[0])
    for name, seconds in (("7 days", 604_800), ("30 days", 2_592_000)):
        window = Window.between(end_s - seconds, end_s)
        yield f"SLA report, {name}", partial(sla_report, log, PolicySet.of({}), window, end_s, None)
    yield "requests, newest", lambda: log.page(Filter())
    yield "requests of a rare tenant", lambda: log.page(Filter(tenant=TENANTS[-1]))
    yield "requests that no row fits", lambda: log.page(Filter(reason="nothing"))
    yield "one request", lambda: log.request(str(some))


def timed(page: str, load: Callable[[], object]) -> Timing:
    """Load a page several times."""
    times_ms = []
    for _ in range(ROUNDS):
        started_s = time.perf_counter()
        load()
        times_ms.append((time.perf_counter() - started_s) * 1000)
    return Timing(page, round(statistics.median(times_ms), 1), round(max(times_ms), 1))


def show(rows: int, cpu_us: float, bytes_per_row: float, timings: list[Timing]) -> None:
    """Print what was measured."""
    table = Table(title=f"{rows:,} rows: {bytes_per_row:.0f} bytes and {cpu_us:.1f} µs of CPU each")
    for name in ("page", "median ms", "slowest ms"):
        table.add_column(name, justify="left" if name == "page" else "right")
    for timing in timings:
        table.add_row(timing.page, f"{timing.median_ms:.1f}", f"{timing.slowest_ms:.1f}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
