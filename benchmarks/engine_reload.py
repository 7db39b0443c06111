"""Never cold: reloads every few seconds under load, and a large engine that loads for 30 seconds.

    python -m benchmarks.engine_reload --json benchmarks/results/engine_reload.json

`reload`: the bundled tiers on OpenVINO; clients stream from the large one for a minute while it is reloaded again and
again. `hot start`: a scripted large engine that listens only after `--load-s` seconds beside the bundled small one;
clients ask for the large tier from the first moment, with `when_loading: small`. Decoding is greedy and the scripted
engine counts, so a lost or doubled token would be another text.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console

from benchmarks.load_client import percentile
from tests.e2e.gateway_process import RunningGateway, run_gateway, write_configuration

FAKE = Path(__file__).resolve().parent.parent / "tests" / "integration" / "fake_engine.py"
QUESTION = "Sort these numbers: 7 3 9 1 8 2"
SLA_MS = 300.0
OPERATOR = """
listen: 127.0.0.1:8080
admin: {listen: 127.0.0.1:8081, key_file: var/admin.key}
state: sqlite:var/headgate.db
policies: tenants
tiers: {small: [small-int4], large: [large-one]}
deployments:
  small-int4: {recipe: bundled-small-int4}
  large-one: {recipe: LARGE}
"""
TENANT = f"tenant: acme\ncache: {{enabled: false}}\nwhen_loading: small\nsla: {{small: {{ttft_ms: {SLA_MS:g}}}}}\n"
SCRIPTED = """
engine: command
weights: .
precision: bf16
model: scripted
memory_bytes: 1000000
context_tokens: 1000
max_output_tokens: 100
price: {input_usd_per_m: 1, output_usd_per_m: 1}
prefix_caching: false
options:
  command: [PYTHON, FAKE, --port, "{port}", --model, scripted, --frames, "8", --gap-s, "0.01", --load-s, "SECONDS"]
"""


@dataclass(frozen=True, slots=True)
class Told:
    """One streamed answer; moments are seconds since the run began."""

    at_s: float
    status: int
    tier: str | None
    text: str
    is_done: bool
    ttft_ms: float


async def ask(client: httpx.AsyncClient, key: str, began_s: float) -> Told:
    """Ask the large tier for a stream and read it to its end."""
    body = {"model": "large", "stream": True, "max_tokens": 32, "messages": [{"role": "user", "content": QUESTION}]}
    sent_s, first_s, text, is_done = time.monotonic(), 0.0, "", False
    headers = {"authorization": f"Bearer {key}"}
    async with client.stream("POST", "/v1/chat/completions", headers=headers, json=body) as answer:
        async for line in answer.aiter_lines():
            is_done = is_done or line == "data: [DONE]"
            if line.startswith("data: {"):
                choices = json.loads(line[6:]).get("choices") or [{}]
                text += choices[0].get("delta", {}).get("content") or ""
                first_s = first_s or (time.monotonic() if text else 0.0)
    tier = answer.headers.get("x-headgate-tier")
    return Told(sent_s - began_s, answer.status_code, tier, text.strip(), is_done, (first_s - sent_s) * 1000)


async def load(gateway: RunningGateway, clients: int, is_over: Callable[[], bool], answers: list[Told]) -> None:
    """Ask with `clients` at a time until it is over."""
    key, began_s = await asyncio.to_thread(gateway.key, "acme"), time.monotonic()

    async def go_on(client: httpx.AsyncClient) -> None:
        while not is_over():
            answers.append(await ask(client, key, began_s))

    async with httpx.AsyncClient(base_url=gateway.url, timeout=120, trust_env=False) as client:
        await asyncio.gather(*(go_on(client) for _ in range(clients)))


async def reload_run(folder: Path, clients: int, seconds: float, every_s: float) -> dict[str, object]:
    """Reload the bundled large engine again and again under load."""
    write_configuration(folder, OPERATOR.replace("LARGE", "bundled-large"), {"acme": TENANT})
    with run_gateway(folder) as gateway:
        admin_key = (folder / "var" / "admin.key").read_text().strip()
        answers: list[Told] = []
        give_up_s = time.monotonic() + seconds
        loading = asyncio.create_task(load(gateway, clients, lambda: time.monotonic() > give_up_s, answers))
        headers = {"authorization": f"Bearer {admin_key}"}
        async with httpx.AsyncClient(base_url=gateway.admin_url, headers=headers, trust_env=False) as admin:
            while not loading.done():
                await asyncio.sleep(every_s)
                (await admin.post("/admin/engines/large-one/reload")).raise_for_status()
            await loading
            (row,) = (
                one for one in (await admin.get("/admin/engines")).json()["engines"] if one["name"] == "large-one"
            )
    return {
        "run": "reload",
        "seconds": seconds,
        "reload_asked_every_s": every_s,
        "reloads": row["generation"] - 1,
    } | summary(answers)


async def hot_start(folder: Path, clients: int, load_s: float) -> dict[str, object]:
    """Ask for a large tier that loads for `load_s` seconds from the first moment on."""
    write_configuration(folder, OPERATOR.replace("LARGE", "recipes/scripted.yaml"), {"acme": TENANT})
    (folder / "recipes").mkdir()
    recipe = SCRIPTED.replace("PYTHON", sys.executable).replace("FAKE", str(FAKE)).replace("SECONDS", str(load_s))
    (folder / "recipes" / "scripted.yaml").write_text(recipe)
    with run_gateway(folder, until="/healthz") as gateway:
        await asyncio.to_thread(small_is_ready, gateway)
        answers: list[Told] = []
        over_s: list[float] = []

        def is_over() -> bool:
            if not over_s and any(one.tier == "large" for one in answers):
                over_s.append(time.monotonic() + 5)
            return bool(over_s) and time.monotonic() > over_s[0]

        await load(gateway, clients, is_over, answers)
    return {"run": "hot start", "load_s": load_s} | summary(answers)


def small_is_ready(gateway: RunningGateway) -> None:
    """Wait until the small tier can answer."""
    while httpx.get(f"{gateway.url}/readyz", trust_env=False).json()["tiers"]["small"] != "ready":
        time.sleep(0.05)


def summary(answers: list[Told]) -> dict[str, object]:
    """Return what came of a run; texts of one tier must all be the same."""
    texts = {tier: Counter(one.text for one in answers if one.tier == tier) for tier in ("small", "large")}
    by_tier = {}
    for tier, counted in texts.items():
        ttft_ms = [one.ttft_ms for one in answers if one.tier == tier]
        by_tier[tier] = {
            "answers": sum(counted.values()),
            "different_texts": len(counted),
            "ttft_p50_ms": percentile(ttft_ms, 0.5),
            "ttft_p99_ms": percentile(ttft_ms, 0.99),
            "ttft_within_sla_ratio": round(sum(one <= SLA_MS for one in ttft_ms) / len(ttft_ms), 4)
            if ttft_ms
            else None,
        }
    return {
        "requests": len(answers),
        "failed": sum(one.status != 200 for one in answers),
        "cut": sum(one.status == 200 and not one.is_done for one in answers),
        "sla_ttft_ms": SLA_MS,
        "first_large_after_s": round(min((one.at_s for one in answers if one.tier == "large"), default=-1.0), 1),
        "tiers": by_tier,
    }


async def run(options: argparse.Namespace) -> list[dict[str, object]]:
    """Do both runs."""
    rows = []
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        rows.append(await reload_run(Path(one), options.clients, options.seconds, options.every_s))
        rows.append(await hot_start(Path(two), options.clients, options.load_s))
    return rows


def main() -> None:
    """Run, print and write the JSON."""
    parser = argparse.ArgumentParser(prog="engine_reload", description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the reload run")
    parser.add_argument("--every-s", type=float, default=3.0, help="a reload is asked for so often")
    parser.add_argument("--load-s", type=float, default=30.0, help="how long the scripted engine loads")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = asyncio.run(run(options))
    Console().print_json(json.dumps(rows))
    if options.json is not None:
        report = {
            "benchmark": "engine_reload",
            "command": "python -m benchmarks.engine_reload --json benchmarks/results/engine_reload.json",
            "hardware": f"{os.cpu_count()} cores, {platform.machine()}",
            "python": platform.python_version(),
            "rows": rows,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
