"""How long requests wait for the budget store while it is killed, hung and started again, in each outage mode.

    python -m benchmarks.store_outage --json benchmarks/results/store_outage.json

A real Redis, leased slices and admission as `gateway/parts/redis_stores.py` opens them; 50 callers ask for admission
and a hold and settle it, over and over, while the server is killed, restarted, hung (SIGSTOP) and resumed. Every
call's wait is measured, next to the longest stall of the event loop in the same second, since a stall delays every
answer.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import uvloop
from rich.console import Console
from rich.table import Table

from core.clock import SystemClock
from core.errors import HeadgateError
from core.identity import Caller
from core.rules import Budget, CacheRules, Limits, OnStoreOutage, Routing, TenantPolicy
from policies.admission import Admission
from policies.ledger_redis import RedisLedger
from policies.rates_redis import RedisRates
from policies.redis_scripts import TIMEOUT_S
from policies.redis_wire import Wire
from policies.reservation import drain, hold
from policies.slices import SlicedLedger
from tests.redis_server import BINARY, WHY_NOT, RedisServer

MODES: tuple[OnStoreOutage, ...] = ("closed", "open", "local_share")
CALLERS = 50
COST_NANO_USD = 1_000
PACE_S = 0.02


@dataclass(slots=True)
class Waits:
    """What the callers of one mode saw; seconds."""

    reserve_s: list[float] = field(default_factory=list)
    served: int = 0
    refused: int = 0
    charged_nano_usd: int = 0


@dataclass(slots=True)
class Lag:
    """The longest stall of the event loop so far, seconds."""

    worst_s: float = 0.0

    async def watch(self) -> None:
        """Sleep briefly over and over and note how late the loop is."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.worst_s = max(self.worst_s, time.perf_counter() - before - 0.001)


def policy_of(mode: OnStoreOutage) -> TenantPolicy:
    """Return a tenant with an ample budget and the outage mode."""
    budget = Budget("month", ZoneInfo("UTC"), 10**15, "reject")
    return TenantPolicy(
        tenant=mode, version="bench", models={}, tiers=("small",), deployments=frozenset(), budgets=(budget,),
        limits=Limits(concurrency=10_000), service_class="interactive", sla={}, routing=Routing(), cache=CacheRules(),
        max_output_tokens=None, on_store_outage=mode, when_loading="small", fallback=True,
    )  # fmt: skip


async def ask(mode: OnStoreOutage, n: int, admission: Admission, ledger: SlicedLedger, waits: Waits) -> None:
    """Admit, hold and settle once, timing what a request waits before it could be dispatched."""
    policy, caller = policy_of(mode), Caller(mode, "key")
    before = time.perf_counter()
    try:
        async with (
            admission.admit(caller, policy, 100),
            hold(
                ledger, f"{mode}-{n}-{before}", caller, policy, 2 * COST_NANO_USD, frozenset({"small"})
            ) as reservation,
        ):
            waits.reserve_s.append(time.perf_counter() - before)
            reservation.charge(COST_NANO_USD)
        waits.served += 1
        waits.charged_nano_usd += COST_NANO_USD
    except HeadgateError:
        waits.reserve_s.append(time.perf_counter() - before)
        waits.refused += 1


async def load(
    mode: OnStoreOutage, admission: Admission, ledger: SlicedLedger, waits: Waits, until: asyncio.Event
) -> None:
    """Run one caller until told to stop."""
    n = 0
    while not until.is_set():
        n += 1
        await ask(mode, n, admission, ledger, waits)
        await asyncio.sleep(PACE_S)


async def outages(server: RedisServer, seconds: float) -> None:
    """Kill and restart the server, then hang and resume it."""
    await asyncio.sleep(seconds)
    server.kill()
    await asyncio.sleep(seconds)
    await asyncio.to_thread(server.start)
    await asyncio.sleep(seconds)
    server.pause()
    await asyncio.sleep(seconds)
    server.resume()
    await asyncio.sleep(seconds)


async def run(
    server: RedisServer, seconds: float
) -> tuple[dict[OnStoreOutage, Waits], dict[OnStoreOutage, int], float]:
    """Load all modes through the outages and return their waits, what the books say, and the worst stall."""
    clock, lag, stop = SystemClock(), Lag(), asyncio.Event()
    waits: dict[OnStoreOutage, Waits] = {mode: Waits() for mode in MODES}
    async with Wire(server.url, TIMEOUT_S) as wire:
        inner = RedisLedger(wire, clock, replicas=1)
        async with (
            SlicedLedger(inner, server.url, clock).running() as ledger,
            RedisRates(inner, clock).running() as rates,
        ):
            admission = Admission(ledger, clock, rates)
            watching = asyncio.create_task(lag.watch())
            callers = [
                asyncio.create_task(load(mode, admission, ledger, waits[mode], stop))
                for mode in MODES
                for _ in range(CALLERS // len(MODES))
            ]
            await outages(server, seconds)
            stop.set()
            await asyncio.gather(*callers)
            watching.cancel()
            await drain(5.0)
            while ledger.waiting_settlements:
                await ledger.reap()
                await asyncio.sleep(0.05)
            await ledger.give_back()
            spent: dict[OnStoreOutage, int] = {}
            for mode in MODES:
                (balance,) = await inner.balances(policy_of(mode))
                spent[mode] = balance.spent_nano_usd + balance.reserved_nano_usd - balance.unconfirmed_nano_usd
    return waits, spent, lag.worst_s


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> int:
    """Run the benchmark; exit code 1 when a wait above 100 ms is not explained by a stall, or the books are off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="between two events (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    arguments = parser.parse_args()
    if BINARY is None:
        print(WHY_NOT, file=sys.stderr)
        return 2
    server = RedisServer()
    server.start()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            waits, spent, worst_lag_s = runner.run(run(server, arguments.seconds))
    finally:
        server.close()
    rows = [
        {
            "mode": mode,
            "requests": len(seen.reserve_s),
            "served": seen.served,
            "refused": seen.refused,
            "wait_p50_ms": round(percentile(seen.reserve_s, 0.5) * 1000, 2),
            "wait_p99_ms": round(percentile(seen.reserve_s, 0.99) * 1000, 2),
            "wait_max_ms": round(max(seen.reserve_s) * 1000, 2),
            "waits_over_100_ms": sum(wait > 0.1 for wait in seen.reserve_s),
            "charged_nano_usd": seen.charged_nano_usd,
            "books_nano_usd": spent[mode],
        }
        for mode, seen in waits.items()
    ]
    table = Table(title=f"waits for the store through two outages; worst stall of the loop {worst_lag_s * 1000:.0f} ms")
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="left" if column == "mode" else "right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
    if arguments.json:
        document = {
            "benchmark": "store_outage",
            "command": "python -m benchmarks.store_outage --json benchmarks/results/store_outage.json",
            "hardware": f"{os.cpu_count()} cores, {platform.machine()}",
            "python": platform.python_version(),
            "worst_loop_stall_ms": round(worst_lag_s * 1000, 1),
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    late = any(row["wait_max_ms"] > 100 + worst_lag_s * 1000 for row in rows)  # type: ignore[operator]
    off = any(row["charged_nano_usd"] != row["books_nano_usd"] for row in rows)
    return 1 if late or off else 0


if __name__ == "__main__":
    sys.exit(main())
