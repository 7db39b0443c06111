"""Whether a request costs the same however many upstream connections, tenants and cache entries there are.

    python -m benchmarks.constancy --rounds 5 --json benchmarks/results/constancy.json

Each case is one gateway in production configuration per size, before the upstream of the overhead benchmark. Sixteen
clients ask; counted is the CPU time of the gateway's process for each request, beyond what it takes at rest (10,000
files of policies are looked at, and as many budgets read for the metrics), and its ratio to the same gateway at the
smallest size, measured in turns. Every request has a prompt of its own and comes from another of the tenants.
"""

import argparse
import asyncio
import json
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.gateway_overhead import hardware
from benchmarks.overhead_load import Aim, idle_connections
from benchmarks.overhead_targets import DEPLOYMENT, OPERATOR, TENANT, upstream
from benchmarks.process_cost import await_quiet, cpu_us, main_thread_us
from cache.sqlite_rows import INSERT, RowCodec
from cache.sqlite_store import SqliteEntryStore
from core.cached import CachedAnswer, Entry
from core.clock import SystemClock
from core.money import Usage
from policies.keys import create_key
from policies.keys_sqlite import SqliteKeyStore
from policies.pepper import load_pepper
from tests.e2e.gateway_process import RunningGateway, run_gateway, write_configuration
from tests.upstream.process import unused_port

CLIENTS = 16
REQUESTS = 1_500
SIZES = {"connections": (1, 200), "tenants": (1, 10_000), "entries": (0, 1_000_000)}
KEYS = 1_000
LIFE_S = 86_400.0
REST_S = 5.0
Cost = tuple[float, float]
Results = dict[str, dict[str, list[float]]]


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway of one size, and keys of its tenants."""

    gateway: RunningGateway
    keys: list[str]
    resting: float

    def cost_us(self) -> Cost:
        """Return the CPU microseconds of a request beyond what the gateway does at rest in the same time.

        The second figure is that of the event loop's thread alone, at rest included.
        """
        pid = self.gateway.process.pid
        began_us, loop_us, began_s = cpu_us([pid]), main_thread_us(pid), time.monotonic()
        asyncio.run(asked(self.gateway, self.keys, REQUESTS))
        spent_us = cpu_us([pid]) - began_us - 1e6 * self.resting * (time.monotonic() - began_s)
        return spent_us / REQUESTS, (main_thread_us(pid) - loop_us) / REQUESTS


def at_rest(pid: int) -> float:
    """Return how much of a core a gateway takes that nobody asks."""
    began_us = cpu_us([pid])
    time.sleep(REST_S)
    return (cpu_us([pid]) - began_us) / 1e6 / REST_S


async def asked(gateway: RunningGateway, keys: list[str], count: int) -> None:
    """Ask so many requests over sixteen connections.

    Raises:
        RuntimeError: one was not answered 200.
    """
    numbers = iter(range(count))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        for _ in numbers:
            text = f"Summarise text {random.random()}. " + "benchmark " * 40
            body = msgspec.json.encode({"model": "plain", "messages": [{"role": "user", "content": text}]})
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n"
                f"authorization: Bearer {random.choice(keys)}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer.decode())
            await reader.readexactly(int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        writer.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


@contextmanager
def target(folder: Path, port: int, *, tenants: int = 1, entries: int = 0) -> Iterator[Target]:
    """Run a gateway with so many tenants, and entries in the first one's cache."""
    names = [f"tenant-{number}" for number in range(tenants)]
    deployments = "".join(DEPLOYMENT.format(name=name, model=name, upstream=port) for name in ("plain", "paced"))
    deployments += DEPLOYMENT.format(name="dear", model="plain", upstream=port)
    operator = OPERATOR.format(state="sqlite:var/headgate.db", deployments=deployments)
    operator = operator.replace("[plain, paced, burst, large]", "[plain, paced]")
    operator += "cache: {entries_per_tenant: 5000000, mib_per_tenant: 100000}\n"
    policy = "\n".join(line for line in TENANT.splitlines() if "[burst]" not in line and "[large]" not in line)
    policy = policy.replace(", burst: auto, large: auto", "").replace("SEMANTIC", "false")
    write_configuration(folder, operator, {name: policy.replace("acme", name) for name in names})
    keys = made_keys(folder, random.sample(names, min(KEYS, tenants)))
    if entries:
        fill(folder / "var" / "headgate-cache.db", names[0], entries)
    with run_gateway(folder) as gateway:
        await_quiet(gateway.process.pid)
        yield Target(gateway, keys, at_rest(gateway.process.pid))


def made_keys(folder: Path, tenants: list[str]) -> list[str]:
    """Make a key for each tenant, in one transaction's time."""
    state = folder / "var"
    state.mkdir(exist_ok=True)
    pepper, clock, keys = load_pepper(state / "pepper.key"), SystemClock(), []
    with closing(SqliteKeyStore(state / "headgate.db")) as store:
        for tenant in tenants:
            text, record = create_key(tenant, pepper, clock)
            store.put(record)
            keys.append(text)
    return keys


def fill(file: Path, tenant: str, entries: int) -> None:
    """Write entries as the store does, without asking for each."""
    clock = SystemClock()
    asyncio.run(SqliteEntryStore(file, clock).close())
    now_s = datetime.now(UTC).timestamp()
    answer = CachedAnswer(
        content="lorem ipsum",
        finish_reason="stop",
        response_model="plain",
        tier="small",
        deployment="plain",
        usage=Usage(24, 64),
        cost_nano_usd=42_000,
    )
    codec = RowCodec()

    def rows() -> Iterator[tuple[object, ...]]:
        for number in range(entries):
            key = f"{number:032x}"
            yield codec.row(
                Entry(
                    entry_id=f"e{key}", tenant=tenant, scope="scope", exact_key=f"x{key}", normalised_key=f"n{key}",
                    prompt="lorem ipsum", vector=None, encoder="", answer=answer, created_at_s=now_s,
                    expires_at_s=now_s + LIFE_S,
                )
            )  # fmt: skip

    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executemany(INSERT, rows())


def connections(folder: Path, port: int, stack: ExitStack) -> dict[int, Callable[[], Cost]]:
    """Return what measures one gateway with few upstream connections, and another after 200 were open at once."""
    few, many = (stack.enter_context(target(folder / f"connections-{n}", port)) for n in SIZES["connections"])
    aim = Aim(f"{many.gateway.base_url}/chat/completions", many.keys[0])

    def with_idle() -> Cost:
        asyncio.run(idle_connections(aim, "paced", SIZES["connections"][1]))
        return many.cost_us()

    return {1: few.cost_us, 200: with_idle}


def tenants(folder: Path, port: int, stack: ExitStack) -> dict[int, Callable[[], Cost]]:
    """Return what measures a gateway for each number of tenants."""
    return {
        count: stack.enter_context(target(folder / f"tenants-{count}", port, tenants=count)).cost_us
        for count in SIZES["tenants"]
    }


def entries(folder: Path, port: int, stack: ExitStack) -> dict[int, Callable[[], Cost]]:
    """Return what measures a gateway for each number of cache entries."""
    return {
        count: stack.enter_context(target(folder / f"entries-{count}", port, entries=count)).cost_us
        for count in SIZES["entries"]
    }


CASES = {"connections": connections, "tenants": tenants, "entries": entries}


def measured(names: list[str], rounds: int) -> Results:
    """Measure each case: its sizes in turns, so that what else the machine does meets all of them."""
    results: Results = {}
    with tempfile.TemporaryDirectory(prefix="constancy-") as temporary:
        folder, port = Path(temporary), unused_port()
        with upstream(port, folder):
            for name in names:
                with ExitStack() as stack:
                    sizes = CASES[name](folder, port, stack)
                    for cost_us in sizes.values():
                        cost_us()
                    told: list[dict[str, list[float]]] = [{str(size): [] for size in sizes} for _ in range(2)]
                    for _ in range(rounds):
                        for size, cost_us in sizes.items():
                            for values, cost in zip(told, cost_us(), strict=True):
                                values[str(size)].append(cost)
                    results |= {name: told[0], f"{name}, event loop": told[1]}
    return results


def ratios(results: Results) -> dict[str, float]:
    """Return the median over rounds of the cost at the largest size as a multiple of that at the smallest."""
    told = {}
    for name, sizes in results.items():
        smallest, *_, largest = sizes.values()
        told[name] = round(statistics.median(b / a for a, b in zip(smallest, largest, strict=True)), 3)
    return told


def main() -> None:
    """Run, print a table and write the JSON."""
    parser = argparse.ArgumentParser(prog="constancy", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=tuple(CASES), action="append")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = measured(options.only or list(CASES), options.rounds)
    table, told = Table("of", "how many", "CPU µs/request", "ratio"), ratios(results)
    for name, sizes in results.items():
        for size, values in sizes.items():
            table.add_row(name, size, f"{statistics.median(values):.0f}", f"{told[name]:.3f}")
    Console().print(table)
    if options.json is not None:
        report = {
            "benchmark": "constancy",
            "command": f"python -m benchmarks.constancy --rounds {options.rounds}",
            "measured_at": time.strftime("%Y-%m-%d", time.gmtime()),
            "hardware": hardware(),
            "load_average": round(os.getloadavg()[0], 1),
            "python": sys.version.split()[0],
            "ratios": told,
            "cpu_us": {
                name: {size: [round(one, 1) for one in values] for size, values in sizes.items()}
                for name, sizes in results.items()
            },
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
