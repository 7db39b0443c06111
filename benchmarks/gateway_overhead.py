"""What a gateway costs per request: ours in production configuration, nginx, and other gateways, side by side.

    python -m benchmarks.gateway_overhead --rounds 5 --peers ../peers --json benchmarks/results/gateway_overhead.json

All stand before the same upstream, one at a time, in rounds of random order. The figure to trust is the CPU time of the
gateway's processes as the scheduler counts it, divided by answered requests, and its ratio to nginx in the same round:
other work on the machine changes it little. Requests per second and p99 say more about the machine than about the
gateway. With two cores or more the gateway has one to itself, upstream and client share the other.

Every request has a prompt of its own: our cache is asked, answers none, and stores each.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.overhead_load import Load, first_frame_ms, idle_connections, wrk
from benchmarks.overhead_targets import Place, Running, missing, running, upstream, version_of
from benchmarks.overhead_upstream import FRAMES
from benchmarks.process_cost import cpu_us, pin, rss_mib
from tests.upstream.process import unused_port

TARGETS = ("direct", "nginx", "headgate", "tensorzero", "portkey", "litellm")
PROFILES = ("headgate-semantic", "headgate-redis", "headgate-idle", "headgate-large", "nginx-large")
CONNECTIONS = 64
FILE_WIDTH = 150
IDLE = 200
LARGE_PROMPT_BYTES = 64 * 1024
GATEWAY_CORE, LOAD_CORE = 0, 1
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Measuring:
    """How long and where one measurement runs; cores are None where there is only one."""

    seconds: float
    gateway_core: int | None
    load_core: int | None

    def loaded(self, target: Running, model: str, connections: int, prompt_bytes: int = 400) -> tuple[Load, float]:
        """Return what the load did, and the CPU microseconds of the target's processes for each answer.

        Raises:
            RuntimeError: more than one answer in a hundred was an error: such a figure means nothing.
        """
        before = target.pids()
        began_us = cpu_us(before)
        load = wrk(target.aim, model, connections, self.seconds, self.load_core, prompt_bytes)
        spent_us = cpu_us(before | target.pids()) - began_us
        if load.errors * 100 > load.requests or not load.requests:
            raise RuntimeError(f"{load.errors} of {load.requests} answers were errors")
        return load, spent_us / load.requests


def measured(name: str, target: Running, how: Measuring) -> Figures:
    """Return the figures of one round of one target."""
    model = "large" if name.endswith("-large") else "plain"
    prompt_bytes = LARGE_PROMPT_BYTES if name.endswith("-large") else 400
    wrk(target.aim, model, 8, 1.0, how.load_core, prompt_bytes)
    if name.endswith("-idle"):
        asyncio.run(idle_connections(target.aim, "paced", IDLE))
    connections = 1 if name.endswith("-idle") else CONNECTIONS
    full, cpu = how.loaded(target, model, connections, prompt_bytes)
    figures = {"cpu_us": cpu, "per_s": full.requests / full.seconds, "p99_ms": full.p99_ms}
    alone, cpu_alone = how.loaded(target, model, 1, prompt_bytes)
    figures |= {"p50_alone_ms": alone.p50_ms, "cpu_alone_us": cpu_alone, "rss_mib": rss_mib(target.pids())}
    return figures if "-" in name else figures | streamed(target, how)


def streamed(target: Running, how: Measuring) -> Figures:
    """Return what streams cost: frames 5 ms apart, frames back to back, and the time to the first."""
    figures: Figures = {}
    for model in ("paced", "burst"):
        try:
            _, cpu = how.loaded(target, model, CONNECTIONS)
        except RuntimeError:
            continue
        figures |= {f"{model}_stream_us": cpu, f"{model}_frame_us": cpu / FRAMES}
        figures[f"{model}_ttft_ms"] = statistics.median(first_frame_ms(target.aim, model, 20))
    return figures


def rounds(names: list[str], count: int, how: Measuring, peers: Path | None) -> dict[str, list[Figures]]:
    """Measure every target `count` times, in random order within each round."""
    results: dict[str, list[Figures]] = {name: [] for name in names}
    order = [name for _ in range(count) for name in random.sample(names, len(names))]
    with tempfile.TemporaryDirectory(prefix="overhead-") as temporary:
        port, folder = unused_port(), Path(temporary)
        with upstream(port, folder) as upstream_pid:
            if how.load_core is not None:
                pin([upstream_pid], how.load_core)
            for n, name in enumerate(track(order, "Measuring", console=Console(stderr=True))):
                base = "nginx" if name.startswith("nginx") else name
                try:
                    with running(base, Place(folder / f"{n}-{name}", port, peers)) as target:
                        if how.gateway_core is not None:
                            pin(target.pids(), how.gateway_core)
                        results[name].append(measured(name, target, how))
                except RuntimeError as problem:
                    results[name].append({})  # no figure rather than one over errors
                    Console(stderr=True).print(f"{name}: a round without figures: {str(problem)[-300:]}")
    return results


def medians(results: dict[str, list[Figures]]) -> dict[str, Figures]:
    """Return the median of each figure, and of its ratio to nginx of the same round."""
    told: dict[str, Figures] = {}
    for name, each in results.items():
        keys = sorted({key for figures in each for key in figures})
        told[name] = {key: round(statistics.median([one[key] for one in each if key in one]), 3) for key in keys}
        floor = "nginx-large" if name.endswith("-large") else "nginx"
        for key in ("cpu_us", "paced_frame_us", "burst_frame_us"):
            pairs = zip(each, results.get(floor, []), strict=False)
            ratios = [one[key] / nginx[key] for one, nginx in pairs if key in one and nginx.get(key)]
            if ratios and not name.endswith("-idle"):
                told[name][f"{key.removesuffix('_us')}_to_nginx"] = round(statistics.median(ratios), 2)
    return told


COLUMNS: tuple[tuple[str, str], ...] = (
    ("CPU µs/request", "cpu_us"),
    ("× nginx", "cpu_to_nginx"),
    ("p50 ms, 1 conn", "p50_alone_ms"),
    ("µs/frame, 5 ms apart", "paced_frame_us"),
    ("× nginx", "paced_frame_to_nginx"),
    ("µs/frame, back to back", "burst_frame_us"),
    ("TTFT ms", "paced_ttft_ms"),
    ("requests/s", "per_s"),
    ("RSS MiB", "rss_mib"),
)


def table(told: dict[str, Figures], title: str) -> Table:
    """Return the medians as a table, cheapest first."""
    made = Table(title=title)
    for heading in ("", *(heading for heading, _ in COLUMNS)):
        made.add_column(heading, justify="right" if heading else "left", no_wrap=not heading)
    for name, figures in sorted(told.items(), key=lambda item: item[1].get("cpu_us", 0.0)):
        made.add_row(name, *(f"{figures[key]:.2f}" if key in figures else "-" for _, key in COLUMNS))
    return made


def hardware() -> str:
    """Return what this machine is, in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{os.cpu_count()} cores, {model or platform.machine()}, shared with other work"


def report(results: dict[str, list[Figures]], peers: Path | None, options: argparse.Namespace) -> dict[str, object]:
    """Return what is kept of a run."""
    return {
        "benchmark": "gateway_overhead",
        "command": f"python -m benchmarks.gateway_overhead --rounds {options.rounds} --seconds {options.seconds:g}",
        "measured_at": time.strftime("%Y-%m-%d", time.gmtime()),
        "hardware": hardware(),
        "python": platform.python_version(),
        "versions": {name: version_of(name, peers) for name in results},
        "connections": CONNECTIONS,
        "medians": medians(results),
        "rounds": {
            name: [{key: round(v, 3) for key, v in one.items()} for one in each] for name, each in results.items()
        },
    }


def main() -> None:
    """Run, print a table and write the JSON."""
    parser = argparse.ArgumentParser(prog="gateway_overhead", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of load for each figure")
    parser.add_argument("--only", help="targets, comma-separated; all that can run by default")
    parser.add_argument("--peers", type=Path, help="folder of installed peers")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    peers = None if options.peers is None else options.peers.resolve()
    chosen = [*TARGETS, *PROFILES] if options.only is None else options.only.split(",")
    console, can_run = Console(width=None if sys.stdout.isatty() else FILE_WIDTH), []
    for name in chosen:
        why_not = missing(name, peers)
        if why_not is None:
            can_run.append(name)
        else:
            console.print(f"{name}: left out, {why_not}")
    cores = (GATEWAY_CORE, LOAD_CORE) if (os.cpu_count() or 1) > 1 else (None, None)
    results = rounds(can_run, options.rounds, Measuring(options.seconds, *cores), peers)
    console.print(table(medians(results), f"Medians of {options.rounds} rounds, {hardware()}"))
    if options.json is not None:
        options.json.write_text(json.dumps(report(results, peers, options), indent=1) + "\n")


if __name__ == "__main__":
    main()
