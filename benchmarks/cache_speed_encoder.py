"""Cases of the encoder: alone, in batches, against its reference, and many requests of the whole cache at once."""

import argparse
import asyncio
import statistics
import time
from asyncio.events import Handle
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from benchmarks.cache_speed_data import twenty_token_pairs
from benchmarks.cache_speed_lookup import ask, cache_with, keep, ready, unremembering
from benchmarks.cache_speed_timing import Case
from cache.minilm import MiniLm, bundled_model_dir, has_openvino, load_encoder
from core.cached import Found, SemanticHit

TEXTS = 192
REFERENCE_TEXTS = 48
AT_ONCE = 16


def encoder(options: argparse.Namespace) -> Case:
    """Time the encoder by itself: one text at a time, batches, the graph of any shape, and sentence-transformers."""
    fast: Any = load_encoder(reference=not has_openvino())
    slow = MiniLm(bundled_model_dir())
    texts = [text for text, _ in twenty_token_pairs(TEXTS)]
    batches = [texts[at : at + AT_ONCE] for at in range(0, TEXTS, AT_ONCE)]
    ways: dict[str, Callable[[], object]] = {
        "one_at_a_time_ms": lambda: [fast.encode([text]) for text in texts],
        "batches_of_16_ms": lambda: [fast.encode(batch) for batch in batches],
        "reference_one_at_a_time_ms": lambda: [slow.encode([text]) for text in texts[:REFERENCE_TEXTS]],
    }
    if has_openvino():
        ways["one_at_a_time_any_shape_ms"] = lambda: [_any_shape(fast, text) for text in texts]
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds + 1):
        for name, way in ways.items():
            started = time.process_time()
            way()
            count = REFERENCE_TEXTS if name.startswith("reference") else TEXTS
            taken[name].append(1e3 * (time.process_time() - started) / count)
    rounds = {name: values[1:] for name, values in taken.items()}  # the first warms up
    batched = rounds["batches_of_16_ms"]
    return {name: round(statistics.median(values), 3) for name, values in rounds.items()} | {
        name.replace("_ms", "_over_batches"): round(_ratio(values, batched), 2)
        for name, values in rounds.items()
        if values is not batched
    }


def _any_shape(fast: Any, text: str) -> object:
    ids = fast._tokenizer.encode(text).ids
    return fast._run(fast._any_shape, [ids], len(ids))


def _ratio(values: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(values, others, strict=True))


def together(options: argparse.Namespace) -> Case:
    """Time semantic hits one after another and sixteen at once, and the longest callback of the event loop."""
    callbacks: list[float] = []
    _watch(callbacks)
    return asyncio.run(_together(int(options.argument), options.rounds, callbacks))


async def _together(at_once: int, rounds: int, callbacks: list[float]) -> Case:
    embedder = unremembering()
    await ready(embedder)
    cache = cache_with(embedder)
    pairs = twenty_token_pairs(TEXTS)
    for text, _ in pairs:
        await keep(cache, text)
    found: list[Found] = []
    calls = [partial(ask, cache, text, found) for _, text in pairs]
    await _concurrently(calls, 1)
    callbacks.clear()
    one, many = [], []
    for _ in range(rounds):
        one.append(await _concurrently(calls, 1))
        many.append(await _concurrently(calls, at_once))
    longest = max(callbacks)
    await cache.close()
    return {
        "one_after_another_ms": round(statistics.median(one), 3),
        f"{at_once}_at_once_ms": round(statistics.median(many), 3),
        "throughput_ratio": round(_ratio(one, many), 2),
        "semantic_hit_ratio": statistics.mean(isinstance(hit, SemanticHit) for hit in found),
        "longest_callback_cpu_ms": round(longest, 3),
    }


async def _concurrently(calls: Sequence[Callable[[], Awaitable[object]]], at_once: int) -> float:
    """Return the CPU milliseconds of a call when so many are under way."""
    waiting = iter(calls)

    async def work() -> None:
        with suppress(StopIteration):
            while True:
                await next(waiting)()

    started = time.process_time()
    await asyncio.gather(*(work() for _ in range(at_once)))
    return 1e3 * (time.process_time() - started) / len(calls)


def _watch(callbacks: list[float]) -> None:
    """Have every callback of the event loop note the CPU milliseconds that it used."""
    run = Handle._run

    def timed(handle: Handle) -> None:
        started = time.thread_time()
        run(handle)
        callbacks.append(1e3 * (time.thread_time() - started))

    Handle._run = timed  # type: ignore[method-assign,assignment]
