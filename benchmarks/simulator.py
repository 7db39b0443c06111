"""Is `headgate simulate` right about what it has not seen? Policy B is simulated from A's log, then run for real.

    python -m benchmarks.simulator [--requests 900] [--json benchmarks/results/simulator.json]

Seeded traffic (the same prompts at the same moments, open loop; the upstream draws lengths and times anew in each run)
goes through a real gateway under policy A, then through a fresh one under each policy B. Aimed at: cost within 5 %,
shares within 2 points, SLA attainment within 3 points, or inside the printed 95 % interval.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from tests.e2e.gateway_process import REMOTE, RunningGateway, headgate, run_gateway, write_configuration
from tests.upstream.process import unused_port

COMMON = """
tenant: acme
fallback: false
sla: {{small: {{total_ms: 1000}}, large: {{total_ms: 2000}}}}
cache: {{semantic: false{cache}}}
routing: {{sessions: {{enabled: false}}, {routing}}}
{more}
"""
BUDGET = 'budgets: [{window: day, limit_usd: "%s"%s}]'


@dataclass(frozen=True, slots=True)
class PolicyUnderTest:
    """A tenant's policy by what is said of it."""

    name: str
    routing: str
    cache: str = ""
    more: str = ""

    @property
    def text(self) -> str:
        return COMMON.format(routing=self.routing, cache=self.cache, more=self.more)


LOGGED = PolicyUnderTest("half the requests large", "max_large_share: 0.5")


def candidates(requests: int) -> list[PolicyUnderTest]:
    """Return the policies B; budgets are made for so many requests."""
    return [
        PolicyUnderTest("a fifth large", "max_large_share: 0.2"),
        PolicyUnderTest("four fifths large", "max_large_share: 0.8"),
        PolicyUnderTest("everything small", "quality: 0"),
        PolicyUnderTest("no cache", "max_large_share: 0.5", cache=", enabled: false"),
        PolicyUnderTest(
            "a budget of two thirds", "max_large_share: 0.5", more=BUDGET % (f"{requests * 0.0011:.4f}", "")
        ),
        PolicyUnderTest("a budget that runs out", "quality: 0", more=BUDGET % (f"{requests * 0.00008:.5f}", "")),
        PolicyUnderTest("half a holdout", "quality: 0, holdout_ratio: 0.5"),
    ]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run came to."""

    cost_nano_usd: int
    large_share: float
    sla_attainment: float
    hits: int
    refused: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure of one policy: predicted with its interval, real, and whether it is as near as was aimed at."""

    policy: str
    figure: str
    logged: float
    predicted: float
    low: float | None
    high: float | None
    real: float
    near: bool
    inside: bool


def main() -> int:
    """Run all policies; 1 when a figure is neither near nor inside its interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=900)
    parser.add_argument("--per-s", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", type=int, default=100, help="so many policies, for a try")
    arguments = parser.parse_args()
    told = Console(stderr=True)
    traffic = list(seeded_traffic(arguments.requests, arguments.per_s))
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory() as name:
        logged = Path(name) / "logged"
        told.print(f"for real: {LOGGED.name}")
        then = carried(logged, LOGGED, traffic, seed=1)
        for n, policy in enumerate(candidates(arguments.requests)[: arguments.only]):
            told.print(f"simulated, then for real: {policy.name}")
            file = Path(name) / "candidate.yaml"
            file.write_text(policy.text)
            simulated = headgate("simulate", "--policy", str(file), "--json", folder=logged, check=False)
            if simulated.returncode:
                raise SystemExit(simulated.stderr)
            told_now = json.loads(simulated.stdout)
            real = carried(Path(name) / f"real-{n}", policy, traffic, seed=100 + n)
            verdicts += judged(policy, then, told_now["tenants"][0]["now"], real)
    show(verdicts)
    if arguments.json is not None:
        result = {
            "command": f"python -m benchmarks.simulator --requests {arguments.requests}",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "logged_policy": LOGGED.name,
            "figures": [asdict(verdict) for verdict in verdicts],
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if all(verdict.near or verdict.inside for verdict in verdicts) else 1


def seeded_traffic(requests: int, per_s: float, seed: int = 7) -> Iterator[tuple[float, str]]:
    """Yield (seconds since the start, prompt): plain questions and hard ones, one in five asked before."""
    draw = random.Random(seed)
    easy = ("What is the capital of {}?", "Translate {} into French.", "Spell the word {}.", "Define {} in one line.")
    hard = (
        "Prove that the number of {} in every finite {} is even, and state each lemma that you use.",
        "Design a distributed algorithm that keeps {} and {} consistent under partitions, and analyse its complexity.",
        "Derive the expected cost of {} under a random {} policy and compare it with the optimal one step by step.",
    )
    nouns = (
        "rivers",
        "ledgers",
        "graphs",
        "violins",
        "queues",
        "harbours",
        "matrices",
        "lanterns",
        "orchards",
        "seals",
    )
    asked: list[str] = []
    at_s = 0.0
    for n in range(requests):
        at_s += draw.expovariate(per_s)
        if asked and draw.random() < 0.2:
            yield at_s, draw.choice(asked)
            continue
        form = draw.choice(easy if draw.random() < 0.5 else hard)
        asked.append(form.format(f"{draw.choice(nouns)} {n}", draw.choice(nouns)))
        yield at_s, asked[-1]


def carried(folder: Path, policy: PolicyUnderTest, traffic: list[tuple[float, str]], seed: int) -> Figures:
    """Send the traffic through a fresh gateway and return what its own log says."""
    with running_upstream(seed) as url:
        write_configuration(folder, REMOTE.format(base_url=url, small="fast", large="deep"), {"acme": policy.text})
        with run_gateway(folder) as gateway:
            asyncio.run(_send(gateway, gateway.key("acme"), traffic))
            gateway.request_rows(len(traffic))
            rows = [row for row in gateway.request_rows(len(traffic)) if not row["path"].startswith("shadow:")]
    answered = [row for row in rows if row["status"] == 200 and row["cache"] in ("miss", "bypass")]
    judged_rows = [row for row in rows if row["status"] == 200 or row["sla_violated"]]
    return Figures(
        cost_nano_usd=sum(row["cost_nano_usd"] for row in rows),
        large_share=sum(row["tier"] == "large" for row in answered) / max(1, len(answered)),
        sla_attainment=1 - sum(row["sla_violated"] for row in judged_rows) / len(judged_rows),
        hits=sum(row["cache"] in ("exact", "semantic", "joined") for row in rows),
        refused=sum(row["status"] == 429 for row in rows),
    )


async def _send(gateway: RunningGateway, key: str, traffic: list[tuple[float, str]]) -> None:
    headers = {"authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(
        base_url=gateway.url, headers=headers, timeout=60, trust_env=False, limits=limits
    ) as to:
        started_s = time.monotonic()

        async def ask(at_s: float, prompt: str) -> None:
            await asyncio.sleep(max(0.0, started_s + at_s - time.monotonic()))
            body = {"model": "auto", "messages": [{"role": "user", "content": prompt}], "max_tokens": 400}
            await to.post("/v1/chat/completions", json=body)

        await asyncio.gather(*(ask(*one) for one in traffic))


@contextmanager
def running_upstream(seed: int) -> Iterator[str]:
    """Run the paced upstream in a process of its own."""
    port = unused_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.paced_upstream", str(port), str(seed)])
    try:
        give_up_at_s = time.monotonic() + 30
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False).raise_for_status()
                break
            except httpx.TransportError:
                if time.monotonic() > give_up_at_s:
                    raise
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(10)


def judged(policy: PolicyUnderTest, then: Figures, now: dict, real: Figures) -> Iterator[Verdict]:  # type: ignore[type-arg]
    """Yield the figures of one policy."""
    large = now["shares"].get("large", {"value": 0.0, "low": 0.0, "high": 0.0})
    figures = (
        ("cost, nano-USD", then.cost_nano_usd, now["cost_nano_usd"], real.cost_nano_usd, 0.05 * real.cost_nano_usd),
        ("share of large", then.large_share, large, real.large_share, 0.02),
        ("SLA attainment", then.sla_attainment, now["sla_attainment"], real.sla_attainment, 0.03),
        ("hits", then.hits, now["hits"], real.hits, 0.05 * max(1, real.hits)),
        ("refused", then.refused, now["refused"], real.refused, 0.05 * max(1, real.refused)),
    )
    for name, logged, predicted, was, within in figures:
        near = abs(predicted["value"] - was) <= within
        inside = predicted["low"] is not None and predicted["low"] <= was <= predicted["high"]
        yield Verdict(
            policy.name, name, logged, predicted["value"], predicted["low"], predicted["high"], was, near, inside
        )


def show(verdicts: list[Verdict]) -> None:
    """Print all figures."""
    table = Table(title="simulated from the log of another policy, and run for real")
    for column in ("policy", "figure", "logged", "predicted", "95 % interval", "real", ""):
        table.add_column(column, justify="left" if column in ("policy", "figure", "") else "right")
    for one in verdicts:
        verdict = "near" if one.near else "inside" if one.inside else "[bold red]off[/]"
        span = "-" if one.low is None else f"{one.low:,.4g} to {one.high:,.4g}"
        numbers = (f"{one.logged:,.4g}", f"{one.predicted:,.4g}", span, f"{one.real:,.4g}")
        table.add_row(one.policy, one.figure, *numbers, verdict)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
