"""Instructions executed for one request and one frame, which other work on the machine does not change.

    python -m benchmarks.hot_path_instructions --threads

Valgrind's callgrind counts them (Debian: apt-get install valgrind) in the gateway of `benchmarks.hot_path_layers`, by
thread, after a warm-up. Two runs of the same code differ by 2 % at most, by when Python collects garbage; versions of
Python and machines differ by more, so compare on one.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.hot_path_layers import Client, run
from benchmarks.overhead_upstream import FRAMES
from gateway.running import Gateway

WARM_UP = 200
REQUESTS = 200
STREAMS = 64
LEAST = 1_000
SLOWEST_S = 600.0
LOADED_S = 300.0
TOTAL = re.compile(rb"^(?:totals|summary): (\d+)", re.MULTILINE)


class CallgrindMissing(Exception):
    """Valgrind is not installed."""


@dataclass(frozen=True, slots=True)
class Instructions:
    """Instructions of one request: of the event loop's thread, and of the others (writers), largest first."""

    main: int
    others: tuple[int, ...]

    @property
    def all(self) -> int:
        """Return those of all threads."""
        return self.main + sum(self.others)


def instructions(model: str, requests: int) -> Instructions:
    """Count in a process of its own, half a minute or more.

    Raises:
        CallgrindMissing: it is not installed.
        subprocess.SubprocessError: the gateway failed, or took more than `SLOWEST_S` seconds.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise CallgrindMissing("valgrind is not installed (Debian: apt-get install valgrind)")
    with tempfile.TemporaryDirectory(prefix="callgrind-") as temporary:
        out = Path(temporary)
        tool = (valgrind, "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes")
        counted = (sys.executable, "-m", "benchmarks.hot_path_instructions", "--counted", model, str(requests))
        with (out / "log").open("wb") as log:
            command = (*tool, f"--callgrind-out-file={out}/threads", *counted)
            subprocess.run(command, stdout=log, stderr=log, timeout=SLOWEST_S, check=True)
        threads = {int(file.name.rsplit("-", 1)[1]): _total(file) // requests for file in out.glob("threads-*")}
    return Instructions(
        threads.pop(1), tuple(sorted((count for count in threads.values() if count >= LEAST), reverse=True))
    )


def figures() -> dict[str, float]:
    """Return what is kept of a version: thousands of instructions per request, and per frame of fast streams."""
    plain, burst = instructions("plain", REQUESTS), instructions("burst", STREAMS)
    return {
        "kilo_instructions_per_request": round(plain.all / 1000),
        "kilo_instructions_of_the_main_thread": round(plain.main / 1000),
        "kilo_instructions_per_frame": round((burst.main - plain.main) / FRAMES / 1000, 1),
    }


def _total(file: Path) -> int:
    return max((int(found) for found in TOTAL.findall(file.read_bytes())), default=0)


async def _counted(gateway: Gateway, client: Client, requests: int) -> dict[str, Any]:
    """Count `requests` inside callgrind, and leave at once: a process that ends in peace is slow there."""
    async with gateway.running():
        await gateway.wait_ready(LOADED_S)
        await client.several(WARM_UP)
        _switch("on")
        await client.several(requests)
        _switch("off")
        os._exit(0)


def _switch(to: str) -> None:
    subprocess.run(("callgrind_control", "-i", to, str(os.getpid())), check=True)


def main() -> None:
    """Count, print and keep."""
    parser = argparse.ArgumentParser(prog="hot_path_instructions", description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--model", default="plain", choices=("plain", "paced", "burst"))
    parser.add_argument("--threads", action="store_true", help="a line for each thread")
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.add_argument("--counted", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.counted is not None:
        run(options.counted[0], int(options.counted[1]), _counted)
        return
    found = instructions(options.model, options.requests)
    if options.json:
        print(json.dumps(asdict(found) | {"all": found.all}))
        return
    table = Table(title=f"{options.model}: {found.all / 1000:,.0f} thousand instructions")
    table.add_column("thread")
    table.add_column("thousands", justify="right")
    table.add_row("event loop", f"{found.main / 1000:,.0f}")
    others = found.others if options.threads else (sum(found.others),)
    for count in others:
        table.add_row("a thread beside it" if options.threads else "threads beside it", f"{count / 1000:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
