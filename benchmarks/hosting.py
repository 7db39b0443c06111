"""What hosting costs and gains: the gateway against the engine alone, INT4, batching, prefix caching, prompt lookup.

    python -m benchmarks.hosting --models build/hosting --json benchmarks/results/hosting.json

`--models` holds `fp16` and `int4`, OpenVINO folders of a Llama of 27.8 M random weights with the bundled tokenizer;
`--write DIR` makes the Hugging Face directory to convert them from. Every comparison alternates its arms in one run,
since the machine has other work: read ratios and CPU time. The client shares the gateway's core where cores are pinned.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from backends.bundled.tasks import generate
from backends.engines.cpu_time import group_cpu_s, group_resident_bytes
from backends.engines.launcher import EngineSpec
from backends.engines.openvino import OpenVinoLauncher
from backends.engines.recipes import load_recipe
from backends.engines.supervisor import Supervisor
from benchmarks.load_client import Result, ask, percentile
from core.clock import SystemClock
from gateway.hosting.one_engine import one_engine
from policies.safe_yaml import load_yaml
from tests.e2e.gateway_process import run_gateway, write_configuration

MODEL = "llama-27.8m"
OPERATOR = """
listen: 127.0.0.1:8080
admin: {listen: 127.0.0.1:8081, key_file: var/admin.key}
state: sqlite:var/headgate.db
policies: tenants
tiers: {small: [engine], large: [engine]}
deployments:
  engine: {recipe: recipes/big.yaml}
"""
RECIPE = """
engine: openvino
weights: WEIGHTS
precision: fp16
model: llama-27.8m
memory_bytes: 1073741824
context_tokens: 2048
max_output_tokens: 1024
price: {input_usd_per_m: 1, output_usd_per_m: 1}
options: {threads: 1, max_running: 32, batch_tokens: 512, cache_tokens: 32768, default_temperature: 0}
"""
TENANT = "tenant: acme\ncache: {enabled: false}\n"
PREFIX = "The archive keeps a record of every caller, the hour, and what was said to whom. " * 12


@dataclass(frozen=True, slots=True)
class Load:
    """What came of some requests; `tokens` are frames of text, which both arms cut alike."""

    tokens: int
    seconds: float
    ttft_ms: tuple[float, ...]
    cpu_s: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


def spec_of(weights: Path, **options: object) -> EngineSpec:
    """Return the 27.8 M shape with one thread."""
    common = {"threads": 1, "max_running": 32, "batch_tokens": 512, "cache_tokens": 32_768, "default_temperature": 0}
    precision = "int4" if weights.name == "int4" else "fp16"
    return EngineSpec(
        name=MODEL, model=MODEL, model_dir=weights.resolve(), precision=precision, memory_bytes=1 << 30,  # type: ignore[arg-type]
        context_tokens=2048, max_output_tokens=1024, prefix_caching=False, options=common | options,
    )  # fmt: skip


async def put(url: str, key: str, model: str, prompts: Sequence[str], at_a_time: int, max_tokens: int) -> Load:
    """Ask all prompts, `at_a_time` of them at once."""
    gate, began_s = asyncio.Semaphore(at_a_time), time.monotonic()

    async def one(prompt: str) -> Result:
        async with gate:
            return await ask(url, key, model, prompt, max_tokens=max_tokens)

    results = await asyncio.gather(*(one(prompt) for prompt in prompts))
    bad = [one for one in results if not one.is_done or one.status != 200]
    if bad:
        raise SystemExit(f"error: {len(bad)} of {len(results)} requests failed, the first with status {bad[0].status}")
    ttft_ms = tuple(one.ttft_ms for one in results if one.ttft_ms is not None)
    return Load(sum(len(one.frames_s) for one in results), time.monotonic() - began_s, ttft_ms)


def prompts_of(count: int, salt: str) -> list[str]:
    """Return short prompts that share no long prefix."""
    return [f"{n * 7919 % 997} {salt} tell me of it" for n in range(count)]


def summary(loads: Sequence[Load]) -> dict[str, object]:
    """Return the figures of one arm over its rounds."""
    ttft_ms = [ms for load in loads for ms in load.ttft_ms]
    tokens = sum(load.tokens for load in loads)
    cpu_s = sum(load.cpu_s for load in loads)
    return {
        "tokens_per_s": round(statistics.median(load.tokens_per_s for load in loads), 1),
        "ttft_p50_ms": percentile(ttft_ms, 0.5),
        "ttft_p95_ms": percentile(ttft_ms, 0.95),
        "tokens": tokens,
        "engine_cpu_ms_per_token": round(cpu_s * 1000 / tokens, 3),
        "engine_busy_ratio": round(cpu_s / sum(load.seconds for load in loads), 4),
    }


async def against_engine(weights: Path, rounds: int, *, pinned: bool) -> list[dict[str, object]]:
    """Measure the gateway against its own engine, asked directly, in turns."""
    cores = sorted(os.sched_getaffinity(0))
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_configuration(folder, OPERATOR, {"acme": TENANT})
        (folder / "recipes").mkdir()
        (folder / "recipes" / "big.yaml").write_text(RECIPE.replace("WEIGHTS", str(weights)))
        with run_gateway(folder) as gateway:
            key = gateway.key("acme")
            group = json.loads((folder / "var" / "engines" / "engine.json").read_text())["group"]
            if pinned:
                pin(os.getpid(), cores[0])
                pin(gateway.process.pid, cores[0])
                pin(group, cores[-1])
            direct_url = f"http://127.0.0.1:{port_of(group)}/v1"
            for at_a_time, count, tokens in ((1, 3, 48), (8, 16, 96)):
                arms: dict[str, list[Load]] = {"direct": [], "gateway": []}
                for n in range(rounds + 1):
                    prompts = prompts_of(count, f"c{at_a_time}r{n}")
                    for arm in ("direct", "gateway") if n % 2 else ("gateway", "direct"):
                        url, model = (direct_url, MODEL) if arm == "direct" else (gateway.base_url, "large")
                        before_s = group_cpu_s(group)
                        load = await put(url, key, model, prompts, at_a_time, tokens)
                        arms[arm] += [replace(load, cpu_s=float(group_cpu_s(group) - before_s))] if n else []
                pairs = zip(arms["gateway"], arms["direct"], strict=True)
                kept = statistics.median(one.tokens_per_s / other.tokens_per_s for one, other in pairs)
                total = [sum(x.tokens for x in loads) / sum(x.seconds for x in loads) for loads in arms.values()]
                busy = [sum(x.cpu_s for x in loads) / sum(x.seconds for x in loads) for loads in arms.values()]
                row: dict[str, object] = {"pinned": pinned, "at_a_time": at_a_time, "rounds": rounds}
                lost = {"median": 1 - kept, "total": 1 - total[1] / total[0], "idle": 1 - busy[1] / busy[0]}
                row |= {arm: summary(loads) for arm, loads in arms.items()}
                rows.append(row | {f"lost_ratio_{how}": round(ratio, 4) for how, ratio in lost.items()})
            if pinned:
                pin(os.getpid(), *cores)
    return rows


def pin(process: int, *cores: int) -> None:
    """Let every thread of a process run on these cores only."""
    for thread in Path(f"/proc/{process}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def port_of(process: int) -> int:
    """Return the port in an engine's command line."""
    words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    return next(int(word.partition(b"=")[2]) for word in words if word.startswith(b"--port="))


Ask = Callable[[str, int], Awaitable[Load]]


async def compared(specs: dict[str, EngineSpec], rounds: int, ask_round: Ask) -> dict[str, dict[str, object]]:
    """Run engines side by side and put the same rounds on each in turn; CPU time is the engine's own."""
    async with AsyncExitStack() as stack:
        engines: dict[str, Supervisor] = {}
        for name, spec in specs.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            launcher = OpenVinoLauncher(
                replace(spec, share_prefix_cache=spec.prefix_caching), single_tenant=lambda: True
            )
            engines[name] = await stack.enter_async_context(one_engine(launcher, folder, SystemClock()))
        loads: dict[str, list[Load]] = {name: [] for name in specs}
        for n in range(rounds + 1):
            for name in sorted(specs, reverse=bool(n % 2)):
                group, url = engines[name].group, engines[name].base_url
                assert group is not None
                assert url is not None
                before_s = group_cpu_s(group)
                load = await ask_round(url, n)
                loads[name] += [replace(load, cpu_s=float(group_cpu_s(group) - before_s))] if n else []
        memory = {name: group_resident_bytes(engine.group or 0) for name, engine in engines.items()}
    return {name: summary(ones) | {"resident_mib": round((memory[name] or 0) / 2**20)} for name, ones in loads.items()}


def rounds_of(model: str, count: int, at_a_time: int, max_tokens: int) -> Ask:
    """Return rounds of short prompts."""
    return lambda url, n: put(url, "-", model, prompts_of(count, f"r{n}"), at_a_time, max_tokens)


async def engine_arms(models: Path, rounds: int) -> dict[str, object]:
    """Compare engines with and without what they can do."""
    full, int4 = models / "fp16", models / "int4"
    found: dict[str, object] = {}
    for at_a_time in (1, 8):
        specs = {"fp16": spec_of(full), "int4": spec_of(int4)}
        found[f"precision, {at_a_time} at a time"] = await compared(
            specs, rounds, rounds_of(MODEL, at_a_time * 2, at_a_time, 64)
        )
    for weights in (full, int4):
        specs = {"one at a time": spec_of(weights, max_running=1), "continuous batching": spec_of(weights)}
        found[f"batching, {weights.name}, 8 at a time"] = await compared(specs, rounds, rounds_of(MODEL, 8, 8, 64))
    prefixes = {"off": spec_of(full), "on": replace(spec_of(full), prefix_caching=True)}

    async def shared_prefix(url: str, n: int) -> Load:
        return await put(url, "-", MODEL, [f"{PREFIX}Question {n} {m}" for m in range(8)], 1, 4)

    found["prefix caching, long common beginning"] = await compared(prefixes, rounds, shared_prefix)
    bundled = load_recipe("bundled-large", load_yaml).spec
    lookup = {"off": bundled, "on": replace(bundled, options=dict(bundled.options) | {"prompt_lookup": 2})}
    echoes = [question.prompt for question in generate("copy", 7, 24 * (rounds + 1), "test")]

    async def repeats(url: str, n: int) -> Load:
        return await put(url, "-", bundled.model, echoes[24 * n : 24 * (n + 1)], 1, 64)

    found["prompt lookup, answers that repeat the prompt (bundled-large)"] = await compared(lookup, rounds, repeats)
    return found


def write_llama(folder: Path) -> None:
    """Write a Llama of 27.8 M random weights with the bundled tokenizer, the same each time."""
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(20)
    config = LlamaConfig(
        vocab_size=1024, hidden_size=512, intermediate_size=1664, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=False, initializer_range=0.05,
        bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer = Path(__file__).resolve().parent.parent / "backends" / "bundled" / "small-int4"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tokenizer / name, folder / name)


async def run(options: argparse.Namespace) -> dict[str, object]:
    """Measure everything."""
    full = options.models.resolve() / "fp16"
    rows = [await against_engine(full, options.rounds, pinned=pinned) for pinned in (True, False)]
    found: dict[str, object] = {"gateway": [row for some in rows for row in some]}
    Console().print_json(json.dumps(found))
    return found | {"engines": await engine_arms(options.models, options.rounds)}


def main() -> None:
    """Measure, print and write the JSON."""
    parser = argparse.ArgumentParser(prog="hosting", description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder with the OpenVINO folders fp16 and int4")
    parser.add_argument("--write", type=Path, help="only write the Hugging Face directory to convert those from")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.write is not None:
        write_llama(options.write)
        return
    if options.models is None:
        parser.error("name --models, or --write them first")
    found = asyncio.run(run(options))
    Console().print_json(json.dumps(found))
    if options.json is not None:
        report = {
            "benchmark": "hosting",
            "command": "python -m benchmarks.hosting --models DIR --json benchmarks/results/hosting.json",
            "hardware": f"{os.cpu_count()} cores, {platform.machine()}",
            "versions": {"python": platform.python_version(), "openvino-genai": version("openvino-genai")},
            "note": "lost_ratio_median: over rounds, of 1 - gateway/direct in tokens/s; lost_ratio_idle: the same in "
            "engine_busy_ratio, the CPU time of the engine by the clock, which a core's changing speed does not move; "
            "accuracy by tier: hosted_accuracy.json",
        }
        options.json.write_text(json.dumps(report | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
