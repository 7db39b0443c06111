"""Measure how fast the cache answers, searches, stores and forgets, in one run on one core.

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/cache_speed.py [--json FILE] [--most 1000000]
        [--gptcache PYTHON] [--redis] [--gpu]

Each case runs in a process of its own. Times are CPU time of the whole process per operation (so that a busy machine
counts little), and wall time beside it. `--gptcache` names the interpreter of an environment that holds GPTCache beside
this project's dependencies (install it elsewhere: `python -m venv FOLDER`, `FOLDER/bin/pip install gptcache sqlalchemy`
and the project's packages on its path). `--redis` starts a redis-server of its own for the shared store, through
redis-py and through the lean connection of the ledger, and for the time from one replica to the others. `--gpu` puts
partitions of 100,000 and more on the GPU.
"""

import argparse
import asyncio
import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.cache_speed_data import encoded, nearest, queries, short_texts, spread, twenty_token_pairs
from cache.entry_store import EntryStore, MemoryEntryStore
from cache.faiss_gpu import GpuLimits, gpu_build
from cache.faiss_index import FaissIndex
from cache.fingerprint import Fingerprinter
from cache.guard import Guard
from cache.minilm import bundled_lexicon, bundled_model_dir, load_minilm
from cache.redis_store import RedisEntryStore, connect
from cache.replication import BLOCK_S, Follower
from cache.semantic_cache import SemanticCache
from cache.sqlite_store import SqliteEntryStore
from core.cached import CachedAnswer, ExactHit, Found, SemanticHit
from core.chat import parse_chat_request
from core.clock import SystemClock
from core.identity import Caller
from core.money import Usage
from core.rules import AutoTarget, CacheRules, EffectivePolicy, Limits, Routing, TenantPolicy
from policies.redis_wire import Wire

BASE = 20_000
ASKED = 500
ASKED_FOR_RECALL = 2_000
LOWEST_THRESHOLD = 0.6
"""The least similarity at which any kind of agreement is served; see `cache.guard`."""
Case = dict[str, Any]
ANSWER = CachedAnswer("An answer of one sentence.", "stop", "m", "small", "d", Usage(20, 8), 4_000)


def main() -> None:
    options = _options()
    if options.case:
        print(json.dumps(_CASES[options.case](options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        encoded(options.folder, BASE)
        report: Case = {"hardware": _hardware(), "command": _command(), "cases": _run_all(options)}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _command() -> str:
    """Return the command without the paths of this machine."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv]
    return (
        f"OMP_NUM_THREADS=1 taskset -c {','.join(map(str, sorted(os.sched_getaffinity(0))))} python {' '.join(words)}"
    )


def _run_all(options: argparse.Namespace) -> dict[str, Case]:
    sizes = [size for size in (10_000, 100_000, 1_000_000) if size <= options.most]
    wanted = [("lookup", store) for store in ("memory", "sqlite", *(["redis", "redis-lean"] if options.redis else []))]
    wanted += [("partition", str(size)) for size in sizes] + [("flat", str(size)) for size in sizes]
    wanted += [("scopes", "100000")] + ([("replicas", "3")] if options.redis else [])
    found: dict[str, Case] = {}
    for case, argument in wanted:
        command = [sys.executable, __file__, "--case", case, "--argument", argument, "--folder", str(options.folder)]
        found[f"{case} {argument}"] = _ran([*command, *(["--gpu"] if options.gpu else [])])
    if options.gptcache:
        script = str(Path(__file__).with_name("cache_speed_gptcache.py"))
        for runtime in ("same", "reference"):
            found[f"gptcache {runtime}"] = _ran([str(options.gptcache), script, "1000", runtime])
    for name, result in found.items():
        print(f"{name:20} {json.dumps(result)}")
    return found


def _ran(command: Sequence[str]) -> Case:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: Case = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def lookup(options: argparse.Namespace) -> Case:
    """Time hits of the whole cache over one store."""
    return asyncio.run(_lookup(options))


async def _lookup(options: argparse.Namespace) -> Case:
    async with AsyncExitStack() as stack:
        store = await _store(options, stack)
        cache = SemanticCache(
            Fingerprinter(b"0123456789abcdef"),
            store,
            FaissIndex(),
            load_minilm(),
            SystemClock(),
            Guard(bundled_lexicon()),
        )
        stack.push_async_callback(cache.close)
        while not cache._embedder.is_ready():  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.05)
        pairs = twenty_token_pairs(1_000)
        inserts = await _timed([partial(_keep, cache, text) for text, _ in pairs])
        found: list[Found] = []
        semantic = await _timed([partial(_ask, cache, text, found) for _, text in pairs])
        is_hit = [isinstance(one, SemanticHit) for one in found]
        kept = [text for text, _ in pairs]
        exact = await _timed([partial(_ask, cache, text, found) for text in kept])
        assert all(isinstance(one, ExactHit) for one in found[len(pairs) :])
    return {
        "tokens": _tokens(kept),
        "entries": len(pairs),
        "semantic_hit_ratio": statistics.mean(is_hit),
        "semantic_hit_ms": _summed([one for one, hit in zip(semantic, is_hit, strict=True) if hit]),
        "exact_hit_ms": _summed(exact),
        "insert_ms": _summed(inserts),
    }


def partition(options: argparse.Namespace) -> Case:
    """Time one partition of a given size, and compare it with brute force."""
    size, base = int(options.argument), encoded(options.folder, BASE)
    rows = spread(base, size)
    before = _resident_bytes()
    index = FaissIndex(build=gpu_build(GpuLimits()) if options.gpu else None)
    started, began = time.process_time(), time.perf_counter()
    for start in range(0, size, 1_000):
        piece = rows[start : start + 1_000].astype(np.float32)
        index.add_all("p", [f"{number:024x}" for number in range(start, start + len(piece))], piece)
    index.settle()
    build_s = {"cpu": round(time.process_time() - started, 2), "wall": round(time.perf_counter() - began, 2)}
    memory = (_resident_bytes() - before) / size
    asked = queries(rows, base, ASKED)
    search = _timed_now([partial(index.search, "p", one, 4) for one in asked])
    recall = _recall(index, rows, queries(rows, base, ASKED_FOR_RECALL, seed=6))
    extra = queries(rows, base, 500, seed=9)
    insert = _timed_now([partial(index.add, "p", f"new{at}", one) for at, one in enumerate(extra)])
    evict = _timed_now([partial(index.remove, [f"{at:024x}"]) for at in range(500)])
    index.settle()
    return {
        "shape": index.shape_of("p"),
        "search_ms": search,
        "insert_ms": insert,
        "evict_ms": evict,
        "build_s": build_s,
        "bytes_per_entry": round(memory),
        **recall,
    }


def scopes(options: argparse.Namespace) -> Case:
    """Time many partitions of ten."""
    count, base = int(options.argument), encoded(options.folder, BASE)
    rows = spread(base, 10 * count)
    before = _resident_bytes()
    index = FaissIndex(max_partitions=count + 1)
    started = time.process_time()
    for at in range(count):
        ids = [f"{number:024x}" for number in range(10 * at, 10 * at + 10)]
        index.add_all(f"{at:064x}", ids, rows[10 * at : 10 * at + 10].astype(np.float32))
    build_s = time.process_time() - started
    memory = (_resident_bytes() - before) / len(rows)
    where = np.random.default_rng(5).integers(count, size=ASKED)
    asked = [rows[10 * at].astype(np.float32) for at in where]
    calls = [partial(index.search, f"{at:064x}", one, 4) for at, one in zip(where, asked, strict=True)]
    return {
        "search_ms": _timed_now(calls),
        "insert_ms": _timed_now([partial(index.add, f"{at:064x}", f"n{at}", asked[0]) for at in range(ASKED)]),
        "evict_ms": _timed_now([partial(index.remove, [f"n{at}"]) for at in range(ASKED)]),
        "build_s": {"cpu": round(build_s, 2)},
        "bytes_per_entry": round(memory),
    }


def flat(options: argparse.Namespace) -> Case:
    """Time the plain script: one flat float32 index with ids, as the FAISS introduction shows it."""
    size, base = int(options.argument), encoded(options.folder, BASE)
    faiss.omp_set_num_threads(1)
    rows = spread(base, size)
    before = _resident_bytes()
    index: Any = faiss.IndexIDMap(faiss.IndexFlatIP(base.shape[1]))
    for start in range(0, size, 50_000):
        piece = rows[start : start + 50_000].astype(np.float32)
        index.add_with_ids(piece, np.arange(start, start + len(piece)))
    memory = (_resident_bytes() - before) / size
    asked = queries(rows, base, 50)
    return {
        "search_ms": _timed_now([partial(index.search, one[None, :], 4) for one in asked]),
        "evict_ms": _timed_now([partial(index.remove_ids, np.array([at])) for at in range(10)]),
        "bytes_per_entry": round(memory),
    }


def replicas(options: argparse.Namespace) -> Case:
    """Time from the call that stores on one replica until the entry is in the index of each other one."""
    return asyncio.run(_replicas(int(options.argument)))


async def _replicas(count: int) -> Case:
    async with AsyncExitStack() as stack:
        url, clock = _redis(stack), SystemClock()
        embedder, members = load_minilm(), []
        while not embedder.is_ready():  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.05)
        for _ in range(count):
            client = await stack.enter_async_context(connect(url, timeout_s=1.0))
            following = await stack.enter_async_context(connect(url, timeout_s=BLOCK_S + 2.0))
            store, index = RedisEntryStore(client, clock, timeout_s=1.0), FaissIndex()
            follower = Follower(following, store, index, embedder.fingerprint, clock)
            await stack.enter_async_context(follower.running())
            await follower.caught_up()
            members.append((SemanticCache(Fingerprinter(b"0123456789abcdef"), store, index, embedder, clock), follower))
        took = []
        for text in short_texts(300, seed=8):
            began = time.perf_counter()
            await _keep(members[0][0], text)
            await asyncio.gather(*(follower.caught_up() for _, follower in members[1:]))
            took.append(1e3 * (time.perf_counter() - began))
        await embedder.close()
    return {"stored": len(took), "wall_p50": round(statistics.median(took), 2), "wall_max": round(max(took), 2)}


async def _store(options: argparse.Namespace, stack: AsyncExitStack) -> EntryStore:
    match options.argument:
        case "memory":
            return MemoryEntryStore(SystemClock())
        case "sqlite":
            return SqliteEntryStore(options.folder / "cache.db", SystemClock())
        case "redis-lean":
            wire = await stack.enter_async_context(Wire(_redis(stack), timeout_s=1.0))
            return RedisEntryStore(wire, SystemClock(), timeout_s=1.0)
        case _:
            client = await stack.enter_async_context(connect(_redis(stack), timeout_s=1.0))
            return RedisEntryStore(client, SystemClock(), timeout_s=1.0)


def _redis(stack: AsyncExitStack) -> str:
    from tests.redis_server import RedisServer

    server = RedisServer()
    stack.callback(server.close)
    server.start()
    return server.url


async def _keep(cache: SemanticCache, text: str) -> None:
    assert await cache.store(Caller("bench", "k"), _request(text), POLICY, ANSWER) is not None


async def _ask(cache: SemanticCache, text: str, found: list[Found]) -> None:
    found.append(await cache.lookup(Caller("bench", "k"), _request(text), POLICY))


def _request(text: str) -> Any:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    return parse_chat_request(json.dumps(body).encode(), "req_bench")


def _recall(index: FaissIndex, rows: Any, asked: Any) -> Case:
    where, similarity = nearest(rows, asked)
    matters = np.flatnonzero(similarity >= LOWEST_THRESHOLD)
    found = [[one.entry_id for one in index.search("p", asked[at], 4)] for at in matters]
    right = [f"{where[at]:024x}" for at in matters]
    return {
        "recall_at_1": round(statistics.mean(ids[0] == one for ids, one in zip(found, right, strict=True)), 4),
        "nearest_among_4": round(statistics.mean(one in ids for ids, one in zip(found, right, strict=True)), 4),
        "asked_above_threshold": len(matters),
    }


Timings = list[tuple[float, float]]


async def _timed(calls: Sequence[Callable[[], Awaitable[object]]]) -> Timings:
    taken: Timings = []
    for call in calls:
        started, began = time.process_time(), time.perf_counter()
        await call()
        taken.append((1e3 * (time.process_time() - started), 1e3 * (time.perf_counter() - began)))
    return taken


def _timed_now(calls: Sequence[Callable[[], object]]) -> dict[str, float]:
    taken: Timings = []
    for call in calls:
        started, began = time.process_time(), time.perf_counter()
        call()
        taken.append((1e3 * (time.process_time() - started), 1e3 * (time.perf_counter() - began)))
    return _summed(taken)


def _summed(taken: Timings) -> dict[str, float]:
    if not taken:
        return {}
    cpu, wall = ([one[at] for one in taken] for at in (0, 1))
    return {
        "cpu_p50": round(statistics.median(cpu), 4),
        "wall_p50": round(statistics.median(wall), 4),
        "wall_p95": round(sorted(wall)[int(0.95 * (len(wall) - 1))], 4),
    }


def _tokens(texts: Sequence[str]) -> float:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bundled_model_dir() / "tokenizer.json"))
    tokenizer.no_padding()
    return statistics.median(len(tokenizer.encode(text).ids) for text in texts)


def _resident_bytes() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _hardware() -> dict[str, Any]:
    def of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    packages = ("faiss-cpu", "faiss-gpu", "openvino", "redis", "hiredis", "numpy", "sentence-transformers")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "cores_used": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": {name: of(name) for name in packages if of(name)},
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the cache's speed.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--most", type=int, default=1_000_000)
    parser.add_argument("--gptcache", type=Path)
    parser.add_argument("--redis", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--case", choices=sorted(_CASES), help=argparse.SUPPRESS)
    parser.add_argument("--argument", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


_CASES: dict[str, Callable[[argparse.Namespace], Case]] = {
    "lookup": lookup,
    "partition": partition,
    "scopes": scopes,
    "flat": flat,
    "replicas": replicas,
}
POLICY = EffectivePolicy(
    tenant_policy=TenantPolicy(
        tenant="bench", version="1", models={"auto": "auto"}, tiers=("small", "large"), deployments=frozenset(),
        budgets=(), limits=Limits(), service_class="interactive", sla={}, routing=Routing(), cache=CacheRules(),
        max_output_tokens=None, on_store_outage="closed", when_loading="small", fallback=True,
    ),
    alias="auto",
    target=AutoTarget(),
)  # fmt: skip


if __name__ == "__main__":
    main()
