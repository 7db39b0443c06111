"""What the path of a request costs in this version, in figures that other work on the machine hardly changes.

    python -m benchmarks.hot_path_guard --json benchmarks/results/hot_path_guard.json --check

Plain requests and then streams of frames 5 ms apart go, one at a time, to a gateway in production configuration.
Counted are the calls of its main thread, of Python functions and into C, for each request and for each frame: they
vary by a few percent from run to run, on any machine. Where valgrind is installed, the instructions are counted as well
(`benchmarks.hot_path_instructions`). The CPU time of a plain request as a multiple of nginx's in the
same run is kept beside them. The file has one entry per version; `--check` ends with 1 when a count grew by more than a
tenth since the last other version in it.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from benchmarks.gateway_overhead import CONNECTIONS, Measuring, hardware
from benchmarks.hot_path_instructions import figures as instructions_of_both
from benchmarks.overhead_load import first_frame_ms, wrk
from benchmarks.overhead_targets import Place, Running, running, upstream
from benchmarks.overhead_upstream import FRAMES
from tests.upstream.process import unused_port

SECONDS = 3.0
STREAMS = 20
MOST_GROWTH = 1.1
COUNTS = ("calls_per_request", "calls_per_frame")
INSTRUCTIONS = ("kilo_instructions_per_request", "kilo_instructions_per_frame")
WRITTEN_S = 10.0


def counted(target: Running, file: Path) -> dict[str, float]:
    """Return the calls for each plain request and for each frame of a stream beyond those of a plain request."""
    wrk(target.aim, "plain", 1, 1.0, None)
    assert target.pid is not None
    os.kill(target.pid, signal.SIGUSR2)
    requests = wrk(target.aim, "plain", 1, SECONDS, None).requests
    per_request = _written(target.pid, file) / requests
    os.kill(target.pid, signal.SIGUSR2)
    first_frame_ms(target.aim, "paced", STREAMS)
    per_stream = _written(target.pid, file) / STREAMS
    return {
        "calls_per_request": round(per_request),
        "calls_per_frame": round((per_stream - per_request) / FRAMES, 1),
    }


def _written(pid: int, file: Path) -> int:
    """Let the gateway write its count, and read it."""
    os.kill(pid, signal.SIGUSR2)
    give_up_at_s = time.monotonic() + WRITTEN_S
    while not file.exists() and time.monotonic() < give_up_at_s:
        time.sleep(0.05)
    time.sleep(0.05)
    count = int(file.read_text())
    file.unlink()
    return count


def measured() -> dict[str, float]:
    """Return the figures of this version."""
    how = Measuring(SECONDS, None, None)
    with tempfile.TemporaryDirectory(prefix="guard-") as temporary:
        folder, port = Path(temporary), unused_port()
        count = folder / "count"
        command = (sys.executable, "-m", "benchmarks.counting_gateway", str(count))
        with upstream(port, folder):
            with running("headgate", Place(folder / "counted", port, command=command)) as ours:
                figures = counted(ours, count)
            with running("nginx", Place(folder / "nginx", port)) as floor:
                _, floor_us = how.loaded(floor, "plain", CONNECTIONS)
            with running("headgate", Place(folder / "ours", port)) as ours:
                wrk(ours.aim, "plain", CONNECTIONS, 1.0, None)
                _, ours_us = how.loaded(ours, "plain", CONNECTIONS)
    return {**figures, "cpu_us": round(ours_us), "cpu_to_nginx": round(ours_us / floor_us, 1)}


def grown(before: dict[str, float], now: dict[str, float]) -> list[str]:
    """Return a line for each count that grew too much."""
    return [
        f"{name}: {before[name]:g} before, {now[name]:g} now"
        for name in COUNTS + INSTRUCTIONS
        if name in before and name in now and now[name] > MOST_GROWTH * before[name]
    ]


def main() -> None:
    """Measure, compare and keep."""
    parser = argparse.ArgumentParser(prog="hot_path_guard", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file of results, one entry per version")
    parser.add_argument("--check", action="store_true", help="end with 1 when a count grew by more than a tenth")
    options = parser.parse_args()
    known = [] if options.json is None or not options.json.exists() else json.loads(options.json.read_text())["entries"]
    name, figures = version("headgate"), measured()
    figures |= instructions_of_both() if shutil.which("valgrind") else {}
    console = Console()
    console.print_json(data=figures)
    earlier = [entry for entry in known if entry["version"] != name]
    if options.json is not None:
        entry = {"version": name, "measured_at": time.strftime("%Y-%m-%d", time.gmtime()), "hardware": hardware()}
        report = {"benchmark": "hot_path_guard", "entries": [*earlier, {**entry, **figures}]}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    problems = grown(earlier[-1], figures) if earlier else []
    for problem in problems:
        console.print(f"grown: {problem}")
    sys.exit(1 if problems and options.check else 0)


if __name__ == "__main__":
    main()
