"""What a reservation costs: pairs of reserve and settle per second, and CPU per pair, for every ledger.

    python -m benchmarks.ledger [--pairs 30000] [--json benchmarks/results/ledger.json]

Each ledger runs in a process of its own under uvloop, with 64 requests in flight, a month and a day budget per tenant.
CPU is that of the gateway's process (all threads); that of the Redis server stands beside it. The rows on growth touch
every tenant or key once before they measure, then pick at random; `keys` share one tenant and have a budget each. Most
of those are too rare to be worth a slice.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import uvloop

from core.clock import SystemClock
from core.identity import Caller
from core.rules import Budget, CacheRules, Limits, Routing, TenantPolicy
from policies.admission import Admission
from policies.ledger import BudgetLedger, Cost, Hold
from policies.ledger_memory import MemoryLedger
from policies.ledger_redis import RedisLedger
from policies.ledger_sqlite import SqliteLedger
from policies.rates import LimitStore
from policies.rates_memory import MemoryRates
from policies.rates_redis import RedisRates
from policies.redis_scripts import connect
from policies.redis_wire import Wire
from policies.slices import SlicedLedger
from tests.redis_server import RedisServer

IN_FLIGHT = 64
TIERS = frozenset({"small", "large"})
AMOUNT = 1000
NEVER_WAITS = ("memory", "sqlite", "slices")
LEDGERS = ("memory", "sqlite", "redis", "redis-py", "slices")


@dataclass(frozen=True, slots=True)
class Setting:
    """What one measurement runs on."""

    ledger: str
    tenants: int = 1
    keys: int = 1
    rolling: bool = False
    admit: bool = False
    in_flight: int = IN_FLIGHT

    @property
    def label(self) -> str:
        """Return the row's name."""
        more = [
            f"{self.tenants:,} tenants" if self.tenants > 1 else "", f"{self.keys:,} keys" if self.keys > 1 else "",
            "rolling hour" if self.rolling else "", "admission" if self.admit else "",
            "one at a time" if self.in_flight == 1 else "",
        ]  # fmt: skip
        return ", ".join([self.ledger, *(text for text in more if text)])


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured; microseconds per pair."""

    pairs: int
    pairs_per_s: float
    cpu_us: float
    server_cpu_us: float | None


def policy(tenant: str, setting: Setting) -> TenantPolicy:
    """Return a policy with budgets that never run out."""
    limit, zone = 10**15, ZoneInfo("Europe/Berlin")
    budgets = [Budget("month", zone, limit, "reject"), Budget("day", zone, limit, "reject")]
    if setting.keys > 1:
        budgets.append(Budget("day", zone, limit, "reject", per="key"))
    if setting.rolling:
        budgets.append(Budget("hour", zone, limit, "reject", rolling=True))
    limits = Limits(10**9, 10**12, 10**6) if setting.admit else Limits()
    return TenantPolicy(
        tenant=tenant, version="bench", models={}, tiers=tuple(TIERS), deployments=frozenset(), budgets=tuple(budgets),
        limits=limits, service_class="interactive", sla={}, routing=Routing(), cache=CacheRules(),
        max_output_tokens=None, on_store_outage="closed", when_loading="small", fallback=True,
    )  # fmt: skip


@asynccontextmanager
async def opened(name: str, folder: Path, url: str) -> AsyncIterator[tuple[BudgetLedger, LimitStore]]:
    """Open a ledger by its name, and the store of limits that goes with it."""
    clock = SystemClock()
    if name == "memory":
        memory = MemoryLedger(clock)
        yield memory, MemoryRates(memory, clock)
    elif name == "sqlite":
        sqlite = SqliteLedger(folder / "ledger.db", clock)
        yield sqlite, MemoryRates(sqlite, clock)
        await sqlite.flush()
        sqlite.close()
    elif name == "redis-py":
        async with connect(url, timeout_s=5.0) as client:
            plain = RedisLedger(client, clock, timeout_s=5.0)
            yield plain, RedisRates(plain, clock)
    else:
        async with Wire(url, timeout_s=5.0) as wire:
            inner = RedisLedger(wire, clock, timeout_s=5.0)
            async with RedisRates(inner, clock).running() as rates:
                if name == "redis":
                    yield inner, rates
                else:
                    async with SlicedLedger(inner, url, clock).running() as sliced:
                        yield sliced, rates


async def measure(setting: Setting, pairs: int, folder: Path, url: str) -> Figures:
    """Measure one setting."""
    policies = [policy(f"tenant-{number}", setting) for number in range(setting.tenants)]
    async with opened(setting.ledger, folder, url) as (ledger, rates):
        admission = Admission(ledger, SystemClock(), rates)
        everyone = [(one, Caller(one.tenant, f"key-{number}")) for one in policies for number in range(setting.keys)]
        numbers = iter(range(10**9))

        async def request(rules: TenantPolicy, caller: Caller) -> None:
            hold = Hold(f"req_{next(numbers):032x}", caller, rules, AMOUNT, TIERS)
            if setting.admit:
                async with admission.admit(caller, rules, 500):
                    await ledger.reserve(hold)
                    await ledger.settle(hold, Cost(AMOUNT // 3))
            else:
                await ledger.reserve(hold)
                await ledger.settle(hold, Cost(AMOUNT // 3))

        async def work(count: int, pick: Callable[[], tuple[TenantPolicy, Caller]]) -> None:
            for _ in range(count):
                await request(*pick())
                if setting.ledger != "redis":
                    await asyncio.sleep(
                        0
                    )  # a request lets others go on, which ledgers without a wait do not by themselves

        touched = iter(everyone)
        each = -(-len(everyone) // setting.in_flight)
        await asyncio.gather(*(_touch(touched, each, request) for _ in range(setting.in_flight)))
        chance = random.Random(1)
        pick = (lambda: everyone[0]) if len(everyone) == 1 else (lambda: everyone[int(chance.random() * len(everyone))])
        await asyncio.gather(*(work(pairs // setting.in_flight // 10, pick) for _ in range(setting.in_flight)))
        server_s = await _server_cpu_s(url, setting)
        began_s, cpu_s = time.perf_counter(), time.process_time()
        await asyncio.gather(*(work(pairs // setting.in_flight, pick) for _ in range(setting.in_flight)))
        cpu_s, took_s = time.process_time() - cpu_s, time.perf_counter() - began_s
        after_s = await _server_cpu_s(url, setting)
        idle_us = await _loop_turn_us(setting)
    made = pairs // setting.in_flight * setting.in_flight
    server_us = None if server_s is None or after_s is None else round((after_s - server_s) / made * 1e6, 1)
    return Figures(made, round(made / took_s), round(cpu_s / made * 1e6 - idle_us, 1), server_us)


async def _touch(everyone: Any, most: int, request: Callable[..., Any]) -> None:
    for _ in range(most):
        one = next(everyone, None)
        if one is None:
            return
        await request(*one)


async def _loop_turn_us(setting: Setting) -> float:
    """Return the CPU of giving way once, which is the benchmark's own and taken off."""
    if setting.ledger not in NEVER_WAITS:
        return 0.0

    async def turns() -> None:
        for _ in range(500):
            await asyncio.sleep(0)

    began_s = time.process_time()
    await asyncio.gather(*(turns() for _ in range(setting.in_flight)))
    return (time.process_time() - began_s) / (500 * setting.in_flight) * 1e6


async def _server_cpu_s(url: str, setting: Setting) -> float | None:
    if setting.ledger in ("memory", "sqlite"):
        return None
    async with Wire(url, timeout_s=5.0) as wire:
        text = (await wire.execute_command("INFO", "cpu")).decode()
    values = dict(line.split(":") for line in text.split() if ":" in line)
    return float(values["used_cpu_user"]) + float(values["used_cpu_sys"])


def settings() -> list[Setting]:
    """Return what is measured."""
    plain = [Setting(name) for name in LEDGERS]
    alone = [Setting(name, in_flight=1) for name in ("redis", "slices")]
    more = [Setting("memory", rolling=True), Setting("redis", rolling=True), Setting("redis", admit=True)]
    more.append(Setting("slices", admit=True))
    tenants = [Setting(name, tenants=count) for name in LEDGERS if name != "redis-py" for count in (100, 10_000)]
    keys = [Setting(name, keys=count) for name in LEDGERS if name != "redis-py" for count in (1000, 100_000)]
    return plain + alone + more + tenants + keys


def alone(at: int, pairs: int) -> dict[str, Any]:
    """Measure one setting in a process of its own, on an empty store."""
    command = [sys.executable, "-m", "benchmarks.ledger", "--only", str(at), "--pairs", str(pairs)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, stdin=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def only(at: int, pairs: int) -> None:
    """Measure one setting and print its figures."""
    setting = settings()[at]
    server = RedisServer()
    server.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            figures = uvloop.run(measure(setting, pairs, Path(folder), server.url))
    finally:
        server.close()
    row = {"what": setting.label} | {name: getattr(figures, name) for name in Figures.__slots__}
    print(json.dumps(row))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=30_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only is not None:
        only(options.only, options.pairs)
        return
    rows = []
    print(f"{'ledger':32}{'pairs/s':>10}{'CPU us/pair':>13}{'server us':>11}")
    for at in range(len(settings())):
        row = alone(at, options.pairs)
        rows.append(row)
        server = "" if row["server_cpu_us"] is None else row["server_cpu_us"]
        print(f"{row['what']:32}{row['pairs_per_s']:>10,.0f}{row['cpu_us']:>13}{server:>11}", flush=True)
    if options.json is not None:
        found = {
            "command": f"python -m benchmarks.ledger --pairs {options.pairs}",
            "machine": {
                "cpus": os.cpu_count(), "processor": platform.processor() or platform.machine(),
                "python": platform.python_version(), "load_before": round(os.getloadavg()[0], 2),
            },
            "rows": rows,
        }  # fmt: skip
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
