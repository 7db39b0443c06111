"""Three times as many requests as a deployment can serve: goodput, who keeps the SLA, how fast refusals are, recovery.

    python -m benchmarks.overload --json benchmarks/results/overload.json

One gateway process in front of a scripted upstream that takes `SLOTS` requests at a time for about a second each. Three
tenants send Poisson arrivals: `gold` (priority high) a quarter of the capacity throughout, `plain` and `night` (batch)
the rest. First the load is raised in steps to find the peak of goodput, then it is three times the capacity, then half.
Goodput is answers within the SLA per second.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.latency_run import Row, deployment, keep, show, start_gateway
from benchmarks.load_client import Result, ask, percentile
from benchmarks.process_cost import rss_mib
from tests.e2e.gateway_process import RunningGateway
from tests.upstream.process import run_upstream

SLOTS = 12
SERVICE = "ttft=400;n=5;gap=150"
SERVICE_S = 1.0
CAPACITY_PER_S = SLOTS / SERVICE_S
TOTAL_MS = 4_000
GOLD_SHARE = 0.25
STEPS = (0.5, 0.75, 1.0, 1.25)
SLA = f"sla: {{small: {{total_ms: {TOTAL_MS}}}}}\n"
TENANTS = {"gold": SLA + "priority: high", "plain": SLA, "night": SLA + "service_class: batch"}


@dataclass(slots=True)
class Phase:
    """What one phase of the load saw, by tenant."""

    factor: float
    seconds: float
    results: dict[str, list[Result]] = field(default_factory=lambda: {name: [] for name in TENANTS})

    def good(self, *tenants: str) -> list[Result]:
        """Return the answers within the SLA."""
        seen = [one for tenant in tenants or TENANTS for one in self.results[tenant]]
        return [one for one in seen if one.is_done and one.total_ms <= TOTAL_MS]


async def drive(gateway: RunningGateway, keys: dict[str, str], phase: Phase, rng: random.Random) -> None:
    """Send the load of one phase and wait for its answers."""
    gold_per_s = GOLD_SHARE * CAPACITY_PER_S
    rest_per_s = max(0.0, phase.factor * CAPACITY_PER_S - gold_per_s)
    rates = {"gold": gold_per_s, "plain": rest_per_s * 0.7, "night": rest_per_s * 0.3}

    async def send(tenant: str) -> None:
        tasks, ends_s = [], time.monotonic() + phase.seconds
        next_s = time.monotonic() + rng.expovariate(rates[tenant])
        while next_s < ends_s:
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
            text = f"{tenant} {rng.random()}"
            tasks.append(asyncio.create_task(ask(gateway.base_url, keys[tenant], "small", text)))
            next_s += rng.expovariate(rates[tenant])
        phase.results[tenant] += await asyncio.gather(*tasks)

    await asyncio.gather(*(send(tenant) for tenant in TENANTS if rates[tenant] > 0))


def row_of(phase: Phase, rss: float) -> Row:
    """Return the figures of one phase; batch is told apart, since it may wait long to be refused."""
    every = [one for results in phase.results.values() for one in results]
    refused = {
        kind: [one.total_ms for tenant in tenants for one in phase.results[tenant] if one.status == 503]
        for kind, tenants in (("interactive", ("gold", "plain")), ("batch", ("night",)))
    }
    row: Row = {
        "load_per_capacity": phase.factor,
        "requests": len(every),
        "goodput_per_s": round(len(phase.good()) / phase.seconds, 2),
        "within_sla_ratio": {tenant: _share(phase, tenant) for tenant in TENANTS},
    }
    for kind, waited_ms in refused.items():
        row[f"{kind}_refused"] = len(waited_ms)
        row[f"{kind}_refusal_ms"] = _quantiles(waited_ms)
    row["late_or_failed"] = len(every) - sum(map(len, refused.values())) - len(phase.good())
    row["rss_mib"] = rss
    return row


def _quantiles(values: Sequence[float]) -> dict[str, float | None]:
    return {name: percentile(values, q) for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}


def _share(phase: Phase, tenant: str) -> float | None:
    results = phase.results[tenant]
    return round(len(phase.good(tenant)) / len(results), 4) if results else None


def recovery_s(phase: Phase) -> float:
    """Return the seconds into a phase after which everything of interactive tenants that arrived was within the SLA."""
    began_s = min(one.sent_s for results in phase.results.values() for one in results)
    bad = [
        one.sent_s - began_s
        for tenant in ("gold", "plain")
        for one in phase.results[tenant]
        if not (one.is_done and one.total_ms <= TOTAL_MS)
    ]
    return round(max(bad, default=0.0), 1)


async def run(seconds: float, seed: int) -> list[Row]:
    """Drive all phases against one gateway."""
    rng = random.Random(seed)
    with ExitStack() as stack:
        upstream = stack.enter_context(run_upstream(SERVICE))
        only = {"one": deployment(upstream.base_url, more=f"max_concurrency: {SLOTS}")}
        gateway = start_gateway(stack, {"small": ["one"]}, only, TENANTS)
        keys = {name: gateway.key(name) for name in TENANTS}
        rows = []
        for factor, lasts_s in (*((step, seconds / 2) for step in STEPS), (3.0, seconds), (0.5, seconds / 2)):
            phase = Phase(factor, lasts_s)
            await drive(gateway, keys, phase, rng)
            rows.append(row_of(phase, round(rss_mib([gateway.process.pid]), 1)))
        rows[-1]["recovery_s"] = recovery_s(phase)
        return rows


def main() -> None:
    """Run, print a table and write the JSON."""
    parser = argparse.ArgumentParser(prog="overload", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=40.0, help="length of the overload; the steps take half of it")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = asyncio.run(run(options.seconds, options.seed))
    peak = max(float(str(row["goodput_per_s"])) for row in rows[: len(STEPS)])
    kept = float(str(rows[len(STEPS)]["goodput_per_s"])) / peak
    show(f"Goodput at three times capacity: {kept:.0%} of its peak", rows)
    facts: Row = {
        "capacity_per_s": CAPACITY_PER_S,
        "sla_total_ms": TOTAL_MS,
        "peak_goodput_per_s": peak,
        "goodput_at_three_per_peak": round(kept, 3),
    }
    keep(options.json, "overload", f"--seconds {options.seconds:g} --seed {options.seed}", facts, rows)


if __name__ == "__main__":
    main()
