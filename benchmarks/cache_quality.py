"""Replay a labelled request stream through the cache and count right hits, wrong hits and recall per category.

    python -m benchmarks.cache_quality [--json FILE]                 in process, with the real encoder and FAISS
    python -m benchmarks.cache_quality --serve [--json FILE]         through a gateway of its own over HTTP
    python -m benchmarks.cache_quality --url URL --key K [...]       through a running gateway over HTTP

A hit is right when the request that made the entry has the same class and the same scope; wrong when its scope differs,
when its class is listed as different, or when the question depends on the moment; otherwise unjudged. Recall is right
hits over requests that were asked before (same class, same scope). Over HTTP the deployments behind the gateway must
give every call a text of its own, by which a hit is traced to the request that made it. The targets are printed with
the table; the exit code is 1 when one is missed.
"""

import argparse
import asyncio
import json
import platform
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.answering_upstream import running_upstream
from benchmarks.cache_speed_gateway import client_of, wait_for_encoder
from cache.entry_store import MemoryEntryStore
from cache.faiss_index import FaissIndex
from cache.fingerprint import Fingerprinter
from cache.guard import Guard, Served
from cache.minilm import bundled_lexicon, load_minilm
from cache.normalise import normalise
from cache.semantic_cache import SemanticCache
from core.cached import CachedAnswer, ExactHit, SemanticHit
from core.chat import parse_chat_request
from core.clock import SystemClock
from core.identity import Caller
from core.money import Usage
from core.rules import AutoTarget, CacheRules, EffectivePolicy, Limits, Routing, TenantPolicy, TierTarget
from tests.e2e.gateway_process import REMOTE, run_gateway, write_configuration

NEVER_WRONG = frozenset({"number", "negation", "date", "constraint", "direction"})
DATA = Path(__file__).resolve().parents[2] / "shared/data/cache"
Row = dict[str, Any]
Ask = Callable[[int, Row], Awaitable[tuple[str, int | None]]]


@dataclass
class Tally:
    """Counts of one category."""

    requests: int = 0
    possible: int = 0
    exact: int = 0
    semantic: int = 0
    right: int = 0
    wrong: int = 0
    unjudged: int = 0


@dataclass
class Report:
    """Everything that is printed and written."""

    hardware: str
    false_hit_ratio: float = 0.0
    recall: float = 0.0
    hit_ratio: float = 0.0
    stream: dict[str, Tally] = field(default_factory=dict)
    pairs: dict[str, dict[str, float]] = field(default_factory=dict)
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    wrong_examples: list[tuple[int, int]] = field(default_factory=list)
    way: str = "in process"
    targets: dict[str, bool] = field(default_factory=dict)


def main() -> None:
    options = _options()
    rows = load_rows(stream_file(options.data))
    if options.serve:
        report = _through_own_gateway(options, rows)
    elif options.url:
        report = asyncio.run(_over_http(options, rows))
    else:
        report = asyncio.run(_in_process(options, rows))
    report.targets = _targets(report)
    _show(report)
    if options.json:
        options.json.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if all(report.targets.values()) else 1)


def stream_file(data: Path) -> Path:
    """Return the stream's file; `data` is that file or the folder of the developer data."""
    return data / "dev_stream.jsonl" if data.is_dir() else data


def load_rows(file: Path) -> list[Row]:
    if not file.is_file():
        sys.exit(f"{file}: not found; the developer data is not part of the repository (--data DIR names its folder)")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


async def _in_process(options: argparse.Namespace, rows: list[Row]) -> Report:
    clock, embedder, guard = SystemClock(), load_minilm(), Guard(bundled_lexicon())
    cache = SemanticCache(
        Fingerprinter(b"benchmark secret"), MemoryEntryStore(clock), FaissIndex(), embedder, clock, guard
    )
    while not embedder.is_ready():  # noqa: ASYNC110 - readiness is no event
        await asyncio.sleep(0.01)

    async def ask(number: int, row: Row) -> tuple[str, int | None]:
        request = parse_chat_request(json.dumps(body_of(row, "large")).encode(), f"r{number}")
        caller, policy = Caller(row.get("tenant", "t0"), "k"), policy_of(row, options.max_false_hit_rate)
        found = await cache.lookup(caller, request, policy)
        if isinstance(found, ExactHit | SemanticHit):
            return ("exact" if isinstance(found, ExactHit) else "semantic"), int(found.entry.answer.content)
        answer = CachedAnswer(str(number), "stop", "m", "large", "d", Usage(1, 1), 0)
        await cache.store(caller, request, policy, answer)
        return "miss", None

    report = await _replay(rows, ask)
    if options.data.is_dir():
        report.pairs = await _judge_pairs(load_rows(options.data / "dev_pairs.jsonl"), guard, embedder)
    await cache.close()
    return report


def _through_own_gateway(options: argparse.Namespace, rows: list[Row]) -> Report:
    """Start a gateway whose deployments all point at an upstream that answers every call with a text of its own."""
    with tempfile.TemporaryDirectory() as name, running_upstream() as base_url:
        folder = Path(name)
        operator = REMOTE.format(base_url=base_url, small="counting", large="counting")
        rules = f"cache: {{max_false_hit_rate: {options.max_false_hit_rate}}}\n"
        write_configuration(folder, operator, {tenant: f"tenant: {tenant}\n{rules}" for tenant in ("t0", "t1")})
        with run_gateway(folder) as gateway:
            options.url, options.key, options.other_key = gateway.url, gateway.key("t0"), gateway.key("t1")
            with client_of(gateway) as client:
                wait_for_encoder(client)
            return asyncio.run(_over_http(options, rows))


async def _over_http(options: argparse.Namespace, rows: list[Row]) -> Report:
    made_by: dict[str, int] = {}
    keys = {"t0": options.key, "t1": options.other_key or options.key}
    async with httpx.AsyncClient(base_url=options.url, timeout=60) as client:

        async def ask(number: int, row: Row) -> tuple[str, int | None]:
            headers = {"authorization": f"Bearer {keys[row.get('tenant', 't0')]}"}
            reply = await client.post("/v1/chat/completions", json=body_of(row, options.alt_model), headers=headers)
            if reply.status_code != 200:
                sys.exit(f"request {number}: status {reply.status_code}: {reply.text[:300]}")
            text = reply.json()["choices"][0]["message"]["content"]
            outcome = reply.headers["x-headgate-cache"]
            if outcome not in ("exact", "semantic"):
                made_by[text] = number
                return "miss", None
            return outcome, made_by[text]

        report = await _replay(rows, ask)
    report.way = "over HTTP"
    return report


async def _replay(rows: list[Row], ask: Ask) -> Report:
    tallies: defaultdict[str, Tally] = defaultdict(Tally)
    asked: set[tuple[str, str]] = set()
    times: defaultdict[str, list[float]] = defaultdict(list)
    report = Report(hardware=f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    for number, row in enumerate(rows):
        tally, identity = tallies[row["cat"]], (row["cid"], row.get("salt", ""))
        started = time.perf_counter()
        outcome, source = await ask(number, row)
        times[outcome].append((time.perf_counter() - started) * 1000)
        tally.requests += 1
        tally.possible += identity in asked and row["cat"] != "scope_volatile"
        asked.add(identity)
        if source is not None:
            tally.exact += outcome == "exact"
            tally.semantic += outcome == "semantic"
            verdict = verdict_of(row, rows[source])
            setattr(tally, verdict, getattr(tally, verdict) + 1)
            if verdict == "wrong":
                report.wrong_examples.append((number, source))
    report.stream = dict(sorted(tallies.items()))
    report.latency_ms = {name: _quantiles(values) for name, values in times.items()}
    counts = report.stream.values()
    report.false_hit_ratio = sum(one.wrong for one in counts) / len(rows)
    report.recall = sum(one.right for one in counts) / max(1, sum(one.possible for one in counts))
    report.hit_ratio = sum(one.exact + one.semantic for one in counts) / len(rows)
    return report


def verdict_of(row: Row, source: Row) -> str:
    if row["cat"] == "scope_volatile" or row.get("salt", "") != source.get("salt", ""):
        return "wrong"
    if row["cid"] == source["cid"]:
        return "right"
    return "wrong" if source["cid"] in row["neg"] or row["cid"] in source["neg"] else "unjudged"


async def _judge_pairs(rows: list[Row], guard: Guard, embedder: Any) -> dict[str, dict[str, float]]:
    """Serve or not, for each labelled pair on its own."""
    counts: defaultdict[str, dict[str, float]] = defaultdict(lambda: {"pairs": 0, "served": 0})
    for row in rows:
        a, b = await embedder.embed([row["a"], row["b"]])
        similarity = float(a @ b) if a is not None and b is not None else 0.0
        served = normalise(row["a"]) == normalise(row["b"])
        served = served or isinstance(guard.judge(row["a"], row["b"], similarity), Served)
        name = f"{row['cat']} ({'same' if row['label'] else 'different'}, {row['src']})"
        counts[name]["pairs"] += 1
        counts[name]["served"] += served
    return dict(sorted(counts.items()))


def body_of(row: Row, alt_model: str) -> Row:
    system = [{"role": "system", "content": row["system"]}] if "system" in row else []
    messages = [*system, *row.get("history", []), {"role": "user", "content": row["prompt"]}]
    params: Row = row.get("params", {})
    return {"model": alt_model if row.get("alt_model") else "auto", "messages": messages} | params


def policy_of(row: Row, max_false_hit_rate: float) -> EffectivePolicy:
    tenant = TenantPolicy(
        tenant=row.get("tenant", "t0"),
        version="v1",
        models={"auto": "auto"},
        tiers=("small", "large"),
        deployments=frozenset(),
        budgets=(),
        limits=Limits(),
        service_class="interactive",
        sla={},
        routing=Routing(),
        cache=CacheRules(max_false_hit_rate=max_false_hit_rate),
        max_output_tokens=None,
        on_store_outage="closed",
        when_loading="small",
        fallback=True,
    )
    alias = "large" if row.get("alt_model") else "auto"
    return EffectivePolicy(tenant, alias, TierTarget("large") if row.get("alt_model") else AutoTarget())


def _targets(report: Report) -> dict[str, bool]:
    """Return what the project promises of this stream, and whether it was kept."""
    zero = {name for name in report.stream if name.startswith("scope_") or name in NEVER_WRONG}
    return {
        "false hits at most 0.5 % of requests": report.false_hit_ratio <= 0.005,
        "recall at least 55 % of the safe hits": report.recall >= 0.55,
        f"no false hit in {', '.join(sorted(zero))}": not any(report.stream[name].wrong for name in zero),
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {name: round(ordered[int(share * (len(ordered) - 1))], 3) for name, share in (("p50", 0.5), ("p95", 0.95))}


def _show(report: Report) -> None:
    print(
        f"{'category':16}{'requests':>9}{'possible':>9}{'exact':>7}{'semantic':>9}{'right':>7}{'wrong':>7}{'unjudged':>9}"
    )
    for name, one in report.stream.items():
        print(
            f"{name:16}{one.requests:9}{one.possible:9}{one.exact:7}{one.semantic:9}{one.right:7}{one.wrong:7}{one.unjudged:9}"
        )
    print(
        f"hits {report.hit_ratio:.1%} of requests, false hits {report.false_hit_ratio:.2%} of requests, recall"
        f" {report.recall:.1%} of safe hits; ms {report.latency_ms}"
    )
    for target, is_kept in report.targets.items():
        print(f"{'PASS' if is_kept else 'FAIL'}  {target}")
    for name, pair in report.pairs.items():
        print(f"pairs {name:44}{pair['served']:6.0f} of {pair['pairs']:5.0f} served")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=DATA, help="a stream, or the folder of dev_stream.jsonl and dev_pairs.jsonl"
    )
    parser.add_argument("--json", type=Path, help="write the figures to FILE")
    parser.add_argument("--max-false-hit-rate", type=float, default=0.005)
    parser.add_argument("--serve", action="store_true", help="start a gateway and an upstream of its own, over HTTP")
    parser.add_argument("--url", help="address of a running gateway; without it the cache runs in process")
    parser.add_argument("--key", help="key of the first tenant (with --url)")
    parser.add_argument("--other-key", help="key of the second tenant (with --url)")
    parser.add_argument("--alt-model", default="large", help="model name for requests that ask for another model")
    return parser.parse_args()


if __name__ == "__main__":
    main()
