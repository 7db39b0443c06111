"""Cases of the whole cache: hits over each store, hits as the cache grows, and the way from replica to replica."""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from benchmarks.cache_speed_data import encoded, short_texts, spread_kept, twenty_token_pairs
from benchmarks.cache_speed_timing import Case, medians, summed, timed
from cache.batcher import BatchingEmbedder
from cache.embedder import Embedder
from cache.entry_store import EntryStore, MemoryEntryStore
from cache.faiss_index import FaissIndex
from cache.fingerprint import Fingerprinter
from cache.guard import Guard
from cache.minilm import bundled_lexicon, bundled_model_dir, has_openvino, load_encoder, load_minilm
from cache.redis_store import RedisEntryStore, connect
from cache.replication import BLOCK_S, Follower
from cache.semantic_cache import SemanticCache
from cache.sqlite_store import SqliteEntryStore
from core.cached import CachedAnswer, Entry, ExactHit, Found, SemanticHit
from core.chat import parse_chat_request
from core.clock import SystemClock
from core.identity import Caller
from core.money import Usage
from core.rules import AutoTarget, CacheRules, EffectivePolicy, Limits, Routing, TenantPolicy
from policies.redis_wire import Wire

ANSWER = CachedAnswer("An answer of one sentence.", "stop", "m", "small", "d", Usage(20, 8), 4_000)


def lookup(options: argparse.Namespace) -> Case:
    """Time hits of the whole cache over one store."""
    return asyncio.run(_lookup(options))


async def _lookup(options: argparse.Namespace) -> Case:
    async with AsyncExitStack() as stack:
        store = await _store(options, stack)
        cache = cache_with(load_minilm(), store)
        stack.push_async_callback(cache.close)
        await ready(cache._embedder)
        pairs = twenty_token_pairs(options.pairs)
        inserts = await timed([partial(keep, cache, text) for text, _ in pairs])
        found: list[Found] = []
        semantic = await timed([partial(ask, cache, text, found) for _, text in pairs])
        is_hit = [isinstance(one, SemanticHit) for one in found]
        kept = [text for text, _ in pairs]
        exact = await timed([partial(ask, cache, text, found) for text in kept])
        assert all(isinstance(one, ExactHit) for one in found[len(pairs) :])
    return {
        "tokens": _tokens(kept),
        "entries": len(pairs),
        "semantic_hit_ratio": statistics.mean(is_hit),
        "semantic_hit_ms": summed([one for one, hit in zip(semantic, is_hit, strict=True) if hit]),
        "exact_hit_ms": summed(exact),
        "insert_ms": summed(inserts),
    }


def growth(options: argparse.Namespace) -> Case:
    """Time requests against caches of several sizes in turn, so that what else the machine does meets all alike."""
    return asyncio.run(_growth(options, [size for size in (0, 10_000, 100_000, 1_000_000) if size <= options.most]))


async def _growth(options: argparse.Namespace, sizes: list[int]) -> Case:
    embedder = unremembering()
    await ready(embedder)
    rows = spread_kept(options.folder, encoded(options.folder, 20_000), sizes[-1])
    caches = {size: await _filled(embedder, rows[:size]) for size in sizes}
    pairs, fresh = twenty_token_pairs(options.pairs), [text for text, _ in twenty_token_pairs(options.pairs, seed=11)]
    for cache in caches.values():
        for text, _ in pairs:
            await keep(cache, text)
    asked = {"exact": [text for text, _ in pairs], "semantic": [text for _, text in pairs], "miss": fresh}
    taken: dict[str, dict[int, list[dict[str, float]]]] = {kind: {size: [] for size in sizes} for kind in asked}
    for _ in range(options.rounds):
        for kind, texts in asked.items():
            for text in texts:  # what is remembered of a text for a while, all sizes shall find alike
                await ask(caches[0], text, [])
            for size, cache in caches.items():
                taken[kind][size].append(summed(await timed([partial(ask, cache, text, []) for text in texts])))
    return {kind: _grown(by_size) for kind, by_size in taken.items()}


def _grown(by_size: dict[int, list[dict[str, float]]]) -> Case:
    """Return medians by number of entries, and the cost of the largest over that of the smallest, round by round."""
    smallest, largest = (by_size[of(by_size)] for of in (min, max))
    ratios = [big["cpu_p50"] / small["cpu_p50"] for small, big in zip(smallest, largest, strict=True)]
    return {f"{size} ms": medians(rounds)["cpu_p50"] for size, rounds in by_size.items()} | {
        "largest_over_smallest": round(statistics.median(ratios), 3)
    }


async def _filled(embedder: BatchingEmbedder, rows: Any) -> SemanticCache:
    """Return a cache with an entry for each row, in scopes of ten and tenants of 50,000."""
    clock, index = SystemClock(), FaissIndex(max_partitions=200_000)
    store = MemoryEntryStore(clock)
    ends_at_s = clock.now().timestamp() + 1e6
    for start in range(0, len(rows), 10):
        ids = [f"{number:024x}" for number in range(start, start + 10)]
        index.add_all(f"{start:064x}", ids, rows[start : start + 10].astype("float32"))
        for one in ids:
            tenant, keys = f"t{start // 50_000}", (f"e{one}", f"n{one}")
            await store.put(
                Entry(one, tenant, f"{start:064x}", *keys, "", None, embedder.fingerprint, ANSWER, 0.0, ends_at_s)
            )
    return cache_with(embedder, store, index)


def cache_with(embedder: Embedder, store: EntryStore | None = None, index: FaissIndex | None = None) -> SemanticCache:
    """Return a cache as the gateway makes it, over these parts."""
    clock, guard = SystemClock(), Guard(bundled_lexicon())
    store, index = store or MemoryEntryStore(clock), index or FaissIndex()
    return SemanticCache(Fingerprinter(b"0123456789abcdef"), store, index, embedder, clock, guard)


def unremembering() -> BatchingEmbedder:
    """Return the default encoder behind a memory of one text, so that asking again costs what asking costs."""
    return BatchingEmbedder("bench", lambda: load_encoder(reference=not has_openvino()), remembered=1)


async def ready(embedder: Any) -> None:
    while not embedder.is_ready():  # noqa: ASYNC110 - nothing tells when
        await asyncio.sleep(0.05)


def replicas(options: argparse.Namespace) -> Case:
    """Time from the call that stores on one replica until the entry is in the index of each other one."""
    return asyncio.run(_replicas(int(options.argument)))


async def _replicas(count: int) -> Case:
    async with AsyncExitStack() as stack:
        url, clock = _redis(stack), SystemClock()
        embedder, members = load_minilm(), []
        await ready(embedder)
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
            await keep(members[0][0], text)
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


def _tokens(texts: Sequence[str]) -> float:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bundled_model_dir() / "tokenizer.json"))
    tokenizer.no_padding()
    return statistics.median(len(tokenizer.encode(text).ids) for text in texts)


async def keep(cache: SemanticCache, text: str) -> None:
    assert await cache.store(Caller("bench", "k"), _request(text), POLICY, ANSWER) is not None


async def ask(cache: SemanticCache, text: str, found: list[Found]) -> None:
    found.append(await cache.lookup(Caller("bench", "k"), _request(text), POLICY))


def _request(text: str) -> Any:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    return parse_chat_request(json.dumps(body).encode(), "req_bench")


POLICY = EffectivePolicy(
    tenant_policy=TenantPolicy(
        tenant="bench", version="1", models={"auto": "auto"}, tiers=("small", "large"), deployments=frozenset(),
        budgets=(), limits=Limits(), service_class="interactive", sla={}, routing=Routing(), cache=CacheRules(),
        max_output_tokens=None, on_store_outage="closed", when_loading="small", fallback=True,
    ),
    alias="auto",
    target=AutoTarget(),
)  # fmt: skip
