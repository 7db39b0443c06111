"""The longest callbacks of the gateway's event loop, by CPU time, under each kind of work.

    python -m benchmarks.callbacks --json benchmarks/results/callbacks.json

A callback that computes for long delays every other request. The gateway runs with classifier and semantic look-up on;
for each kind of work the longest callbacks are told by name. CPU time of the loop's own thread is counted, so other
work on the machine changes little.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.gateway_overhead import hardware
from benchmarks.overhead_load import wrk
from benchmarks.overhead_targets import Place, Running, running, upstream
from tests.upstream.process import unused_port

MOST_MS = 5.0
LARGE_BYTES = 64 * 1024
WRITTEN_S = 10.0
TOPICS = ("harbours", "rivers", "bridges", "mountains", "gardens", "engines")


def asked_by_meaning(target: Running) -> None:
    """Ask short questions, sixteen at a time, which are embedded, classified and looked up."""

    async def ask() -> None:
        limits = httpx.Limits(max_connections=16)
        async with httpx.AsyncClient(limits=limits, trust_env=False, timeout=60) as client:
            await asyncio.gather(*(_ask(client, target) for _ in range(400)))

    asyncio.run(ask())


async def _ask(client: httpx.AsyncClient, target: Running) -> None:
    text = f"Which {random.choice(TOPICS)} are the longest in region {random.randrange(60)}?"
    body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    answer = await client.post(target.aim.url, headers=target.aim.all_headers(), json=body)
    answer.raise_for_status()


def reloaded(target: Running) -> None:
    """Have the policies read again while requests come."""
    assert target.pid is not None
    for _ in range(5):
        os.kill(target.pid, signal.SIGHUP)
        wrk(target.aim, "plain", 8, 1.0, None)


WORK: dict[str, Callable[[Running], object]] = {
    "semantic and classifier, 16 at once": asked_by_meaning,
    "plain, 64 connections": lambda target: wrk(target.aim, "plain", 64, 4.0, None),
    "streams, 64 at once": lambda target: wrk(target.aim, "paced", 64, 4.0, None),
    "64 KiB asked, 256 KiB answered": lambda target: wrk(target.aim, "large", 8, 4.0, None, LARGE_BYTES),
    "policies read again": reloaded,
}


def measured() -> dict[str, dict[str, object]]:
    """Run every kind of work on one gateway, and return what its loop told."""
    results: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(prefix="callbacks-") as temporary:
        folder, port = Path(temporary), unused_port()
        file = folder / "told.json"
        command = (sys.executable, "-m", "benchmarks.callback_gateway", str(file))
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
        place = Place(folder / "gateway", port, command=command)
        with upstream(port, folder), running("headgate-semantic", place) as target:
            assert target.pid is not None
            os.kill(target.pid, signal.SIGUSR2)
            for name, work in WORK.items():
                work(target)
                os.kill(target.pid, signal.SIGUSR2)
                results[name] = _written(file)
    return results


def _written(file: Path) -> dict[str, object]:
    give_up_at_s = time.monotonic() + WRITTEN_S
    while not file.exists() and time.monotonic() < give_up_at_s:
        time.sleep(0.05)
    told: dict[str, object] = json.loads(file.read_text())
    file.unlink()
    return told


def main() -> None:
    """Run, print a table and write the JSON."""
    parser = argparse.ArgumentParser(prog="callbacks", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = measured()
    heads = ("work", "callbacks", "collections: CPU share", "longest callback", "CPU ms")
    table = Table(*heads, title=f"At most {MOST_MS:g} ms is meant")
    for name, told in results.items():
        longest, collections = told["longest_ms"], told["collections"]
        assert isinstance(longest, dict)
        assert isinstance(collections, dict)
        collected = f"{collections['count']}: {collections['share']:.1%}"
        for place, (callback, took_ms) in enumerate(list(longest.items())[:3]):
            cells = (name, str(told["callbacks"]), collected) if place == 0 else ("", "", "")
            table.add_row(*cells, callback, f"{took_ms:.2f}")
    Console().print(table)
    if options.json is not None:
        report = {
            "benchmark": "callbacks",
            "command": "python -m benchmarks.callbacks",
            "measured_at": time.strftime("%Y-%m-%d", time.gmtime()),
            "hardware": hardware(),
            "python": sys.version.split()[0],
            "work": results,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
