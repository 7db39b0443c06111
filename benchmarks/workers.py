"""What a second worker is worth: the same gateway on Redis with one worker and with two, before the same upstream.

    python -m benchmarks.workers --rounds 5 --json benchmarks/results/workers.json

Nothing is pinned: with one worker the gateway has a core to itself, with two it shares both with the load, the upstream
and Redis, which take what they need. So two figures are told: what was served, and what the gateway's own processes
spent on a request, of which the capacity of two cores follows: two workers serve 2 x spent by one / spent by two times
as much, less what an uneven spread of connections leaves idle.
"""

import argparse
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.gateway_overhead import CONNECTIONS, Figures, hardware
from benchmarks.overhead_load import wrk
from benchmarks.overhead_targets import Place, running, upstream
from benchmarks.process_cost import cpu_us, rss_mib
from tests.upstream.process import unused_port

NAMES = {"headgate-redis": 1, "headgate-workers": 2}
SECONDS = 5.0
COUNTED = re.compile(r'^headgate_requests_total\{(?:worker="(\d+)",)?.*\} (\S+)$', re.MULTILINE)


def measured(name: str, place: Place) -> Figures:
    """Return the figures of one start."""
    with running(name, place) as target:
        wrk(target.aim, "plain", CONNECTIONS, 1.0, None)
        pids = target.pids()
        before, began_us = counted(place.folder, target.admin_url), cpu_us(pids)
        load = wrk(target.aim, "plain", CONNECTIONS, SECONDS, None)
        spent_us = cpu_us(pids) - began_us
        after = counted(place.folder, target.admin_url)
        served = [after[worker] - before.get(worker, 0.0) for worker in after]
        if load.errors or not load.requests:
            raise RuntimeError(f"{load.errors} of {load.requests} answers were errors")
        return {
            "per_s": load.requests / load.seconds,
            "cpu_us": spent_us / load.requests,
            "cores_used": spent_us / 1e6 / load.seconds,
            "largest_share": max(served) / sum(served),
            "rss_mib": rss_mib(pids),
        }


def counted(folder: Path, admin_url: str) -> dict[str, float]:
    """Return how many requests each worker has finished."""
    key = (folder / "var" / "admin.key").read_text().strip()
    page = httpx.get(f"{admin_url}/metrics", headers={"authorization": f"Bearer {key}"}, trust_env=False).text
    found: dict[str, float] = {}
    for worker, value in COUNTED.findall(page):
        found[worker] = found.get(worker, 0.0) + float(value)
    return found


def told(results: dict[str, list[Figures]]) -> dict[str, float]:
    """Return the medians over rounds of the ratios of two workers to one."""
    pairs = list(zip(results["headgate-redis"], results["headgate-workers"], strict=True))
    capacity = [2 * one["cpu_us"] / two["cpu_us"] for one, two in pairs]
    spread = [2 * one["cpu_us"] / two["cpu_us"] * 0.5 / two["largest_share"] for one, two in pairs]
    return {
        "served_ratio": round(statistics.median(two["per_s"] / one["per_s"] for one, two in pairs), 2),
        "capacity_ratio": round(statistics.median(capacity), 2),
        "capacity_ratio_as_spread": round(statistics.median(spread), 2),
    }


def rounds(count: int) -> dict[str, list[Figures]]:
    """Measure both in random order, `count` times."""
    results: dict[str, list[Figures]] = {name: [] for name in NAMES}
    order = [name for _ in range(count) for name in random.sample(list(NAMES), len(NAMES))]
    with tempfile.TemporaryDirectory(prefix="workers-") as temporary:
        folder, port = Path(temporary), unused_port()
        with upstream(port, folder):
            for n, name in enumerate(track(order, "Measuring", console=Console(stderr=True))):
                results[name].append(measured(name, Place(folder / f"{n}", port)))
    return results


def main() -> None:
    """Run, print a table and write the JSON."""
    parser = argparse.ArgumentParser(prog="workers", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = rounds(options.rounds)
    table = Table("workers", "requests/s", "CPU µs/request", "cores used", "largest share", "RSS MiB")
    medians = {
        name: {key: round(statistics.median(one[key] for one in each), 3) for key in each[0]}
        for name, each in results.items()
    }
    for name, workers in NAMES.items():
        table.add_row(str(workers), *(f"{value:.2f}" for value in medians[name].values()))
    console = Console()
    console.print(table)
    console.print(told(results))
    if options.json is not None:
        report = {
            "benchmark": "workers",
            "command": f"python -m benchmarks.workers --rounds {options.rounds}",
            "measured_at": time.strftime("%Y-%m-%d", time.gmtime()),
            "hardware": hardware(),
            "cores": os.cpu_count(),
            "python": sys.version.split()[0],
            "connections": CONNECTIONS,
            "ratios": told(results),
            "medians": {str(workers): medians[name] for name, workers in NAMES.items()},
            "rounds": {
                str(workers): [{key: round(value, 3) for key, value in one.items()} for one in results[name]]
                for name, workers in NAMES.items()
            },
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
