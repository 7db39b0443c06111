"""Two equal deployments, one of them ten times slower for 60 % of the time: the share of requests within the TTFT SLA.

    python -m benchmarks.sla_rescue --json benchmarks/results/sla_rescue.json

Two gateways run side by side, each as a process of its own in front of two scripted upstreams, and are sent the same
Poisson arrivals at the same time, so that both meet the same noise of the machine. `even` asks the two deployments in
turn, by name, and rescues nothing; `rescue` asks the tier with the default configuration.
"""

import argparse
import asyncio
import random
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.latency_run import Row, deployment, keep, show, start_gateway
from benchmarks.load_client import Result, ask, percentile
from gateway.telemetry.request_rows import attempts_decoder
from tests.e2e.gateway_process import RunningGateway
from tests.upstream.process import RunningUpstream, run_upstream

TTFT_MS = 3_000
FAST = "ttft=500;n=12;gap=20"
SLOW = "ttft=5000;n=12;gap=200"
SLOW_FROM, SLOW_UNTIL = 0.2, 0.8
NO_RESCUE = "rescue: {retry_ratio: 0, hedge_ratio: 0}"


@dataclass(frozen=True, slots=True)
class Arm:
    """One gateway with its upstreams; the second of them turns slow."""

    name: str
    models: tuple[str, ...]
    gateway: RunningGateway
    key: str
    upstreams: tuple[RunningUpstream, RunningUpstream]


def start(stack: ExitStack, name: str, *, is_rescued: bool) -> Arm:
    """Start one gateway in front of two upstreams; without rescue each is a tier by itself: nothing to turn to."""
    upstreams = (stack.enter_context(run_upstream(FAST)), stack.enter_context(run_upstream(FAST)))
    tiers = {"small": ["one", "two"]} if is_rescued else {"small": ["one"], "large": ["two"]}
    entries = {name: deployment(one.base_url) for name, one in zip(("one", "two"), upstreams, strict=True)}
    sla = ", ".join(f"{tier}: {{ttft_ms: {TTFT_MS}}}" for tier in tiers)
    policy = f"deployments: [one, two]\nfallback: {str(is_rescued).lower()}\nsla: {{{sla}}}"
    gateway = start_gateway(stack, tiers, entries, {"acme": policy}, "" if is_rescued else NO_RESCUE)
    return Arm(name, ("small",) if is_rescued else ("one", "two"), gateway, gateway.key("acme"), upstreams)


async def drive(arm: Arm, arrivals_s: list[float], text: str) -> list[Result]:
    """Send a request at each moment and return what they saw."""
    began_s, tasks = time.monotonic(), []
    for n, at_s in enumerate(arrivals_s):
        await asyncio.sleep(max(0.0, began_s + at_s - time.monotonic()))
        tasks.append(
            asyncio.create_task(ask(arm.gateway.base_url, arm.key, arm.models[n % len(arm.models)], f"{text} {n}"))
        )
    return await asyncio.gather(*tasks)


async def turn_slow(arms: list[Arm], seconds: float) -> None:
    """Slow the second upstream of every arm down, and let it recover."""
    for at_s, script in ((SLOW_FROM * seconds, SLOW), ((SLOW_UNTIL - SLOW_FROM) * seconds, FAST)):
        await asyncio.sleep(at_s)
        await asyncio.gather(*(asyncio.to_thread(arm.upstreams[1].obey, script) for arm in arms))


def row_of(arm: Arm, seed: int, results: list[Result]) -> Row:
    """Return an arm's figures; what did not answer is outside of the SLA."""
    times = [one.ttft_ms for one in results if one.status == 200 and one.ttft_ms is not None]
    attempts = [
        one for row in arm.gateway.request_rows(len(results)) for one in attempts_decoder.decode(row["attempts"])
    ]
    lost = sum(one.cost_nano_usd for one in attempts if one.outcome == "outrun")
    total = sum(one.cost_nano_usd for one in attempts)
    return {
        "arm": arm.name,
        "seed": seed,
        "requests": len(results),
        "within_ttft_sla_ratio": round(sum(value <= TTFT_MS for value in times) / len(results), 4),
        "statuses": {
            str(status): sum(one.status == status for one in results) for status in {one.status for one in results}
        },
        "complete_ratio": round(sum(one.is_done for one in results) / len(results), 4),
        "ttft_p50_ms": percentile(times, 0.5),
        "ttft_p95_ms": percentile(times, 0.95),
        "ttft_p99_ms": percentile(times, 0.99),
        "hedges": sum(one.kind == "hedge" for one in attempts),
        "extra_cost_ratio": round(lost / (total - lost), 4) if total > lost else 0.0,
        "requests_at_slow_deployment_ratio": round(sum(one.deployment == "two" for one in attempts) / len(attempts), 3),
    }


async def run(seconds: float, per_s: float, seed: int) -> list[Row]:
    """Run both arms side by side."""
    rng, arrivals_s, at_s = random.Random(seed), [], 0.0
    while at_s < seconds:
        at_s += rng.expovariate(per_s)
        arrivals_s.append(at_s)
    with ExitStack() as stack:
        arms = [start(stack, "even", is_rescued=False), start(stack, "rescue", is_rescued=True)]
        warm_up = [float(n) / per_s for n in range(20)]
        await asyncio.gather(*(drive(arm, warm_up, "warm up") for arm in arms))
        driving = asyncio.gather(*(drive(arm, arrivals_s, "hello there") for arm in arms))
        await turn_slow(arms, seconds)
        results = await driving
        return [row_of(arm, seed, seen) for arm, seen in zip(arms, results, strict=True)]


def main() -> None:
    """Run, print a table and write the JSON."""
    parser = argparse.ArgumentParser(prog="sla_rescue", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--per-s", type=float, default=6.0, help="arrivals per second at each gateway")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7], help="one run each, of --seconds")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [row for seed in options.seeds for row in asyncio.run(run(options.seconds, options.per_s, seed))]
    show("Share within the TTFT SLA", rows)
    facts: Row = {
        "ttft_sla_ms": TTFT_MS,
        "fast": FAST,
        "slow": SLOW,
        "slow_share_of_time": round(SLOW_UNTIL - SLOW_FROM, 2),
    }
    arguments = f"--seconds {options.seconds:g} --per-s {options.per_s:g} --seeds {' '.join(map(str, options.seeds))}"
    keep(options.json, "sla_rescue", arguments, facts, rows)


if __name__ == "__main__":
    main()
