"""Cases of the index alone: one partition, many, the plain FAISS script, and what recall costs."""

import argparse
import statistics
import time
from functools import partial
from typing import Any

import faiss
import numpy as np

from benchmarks.cache_speed_data import encoded, nearest_kept, queries, spread_kept
from benchmarks.cache_speed_timing import Case, Timings, resident_bytes, rounds_of, summed, timed_now
from cache.faiss_gpu import GpuLimits, gpu_build
from cache.faiss_index import FaissIndex
from cache.faiss_partitions import lists_for, sample_size

BASE = 20_000
ASKED = 500
ASKED_FOR_RECALL = 1_000
LOWEST_THRESHOLD = 0.6
"""The least similarity at which any kind of agreement is served; see `cache.guard`."""


def partition(options: argparse.Namespace) -> Case:
    """Time one partition of a given size, and compare it with brute force."""
    size, base = int(options.argument), encoded(options.folder, BASE)
    rows = spread_kept(options.folder, base, size)
    before = resident_bytes()
    build = gpu_build(GpuLimits()) if options.gpu else None
    index = FaissIndex(build=build)
    started, began = time.process_time(), time.perf_counter()
    for start in range(0, size, 1_000):
        piece = rows[start : start + 1_000].astype(np.float32)
        index.add_all("p", [f"{number:024x}" for number in range(start, start + len(piece))], piece)
    index.settle()
    build_s = {"cpu": round(time.process_time() - started, 2), "wall": round(time.perf_counter() - began, 2)}
    memory = (resident_bytes() - before) / size
    asked = queries(rows, base, ASKED)
    search = rounds_of(lambda: timed_now([partial(index.search, "p", one, 4) for one in asked]), options.rounds)
    recall = _recall(options, index, rows, base)
    extra = queries(rows, base, 500, seed=9)
    insert = timed_now([partial(index.add, "p", f"new{at}", one) for at, one in enumerate(extra)])
    evict = timed_now([partial(index.remove, [f"{at:024x}"]) for at in range(500)])
    index.settle()
    return {
        "shape": index.shape_of("p"),
        "device": "cpu" if build is None else "gpu",
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
    rows = spread_kept(options.folder, base, 10 * count)
    before = resident_bytes()
    index = FaissIndex(max_partitions=count + 1)
    started = time.process_time()
    for at in range(count):
        ids = [f"{number:024x}" for number in range(10 * at, 10 * at + 10)]
        index.add_all(f"{at:064x}", ids, rows[10 * at : 10 * at + 10].astype(np.float32))
    build_s = time.process_time() - started
    memory = (resident_bytes() - before) / len(rows)
    where = np.random.default_rng(5).integers(count, size=ASKED)
    asked = [rows[10 * at].astype(np.float32) for at in where]
    calls = [partial(index.search, f"{at:064x}", one, 4) for at, one in zip(where, asked, strict=True)]
    return {
        "search_ms": rounds_of(lambda: timed_now(calls), options.rounds),
        "insert_ms": timed_now([partial(index.add, f"{at:064x}", f"n{at}", asked[0]) for at in range(ASKED)]),
        "evict_ms": timed_now([partial(index.remove, [f"n{at}"]) for at in range(ASKED)]),
        "build_s": {"cpu": round(build_s, 2)},
        "bytes_per_entry": round(memory),
    }


def flat(options: argparse.Namespace) -> Case:
    """Time the plain script: one flat float32 index with ids, as the FAISS introduction shows it."""
    size, base = int(options.argument), encoded(options.folder, BASE)
    faiss.omp_set_num_threads(1)
    rows = spread_kept(options.folder, base, size)
    before = resident_bytes()
    index: Any = faiss.IndexIDMap(faiss.IndexFlatIP(base.shape[1]))
    for start in range(0, size, 50_000):
        piece = rows[start : start + 50_000].astype(np.float32)
        index.add_with_ids(piece, np.arange(start, start + len(piece)))
    memory = (resident_bytes() - before) / size
    asked = queries(rows, base, 50)
    return {
        "search_ms": timed_now([partial(index.search, one[None, :], 4) for one in asked]),
        "evict_ms": timed_now([partial(index.remove_ids, np.array([at])) for at in range(10)]),
        "bytes_per_entry": round(memory),
    }


def frontier(options: argparse.Namespace) -> Case:
    """Weigh recall against time: codes of eight bits and float16, each for several numbers of lists looked into."""
    size, base = int(options.argument), encoded(options.folder, BASE)
    rows = spread_kept(options.folder, base, size)
    asked, right = _answered(options, rows, base)
    found: Case = {"lists": lists_for(size), "asked_above_threshold": len(asked)}
    for name, code, residual in (("8 bits", "QT_8bit", True), ("float16", "QT_fp16", False)):
        index = _inverted(rows, getattr(faiss.ScalarQuantizer, code), residual=residual)
        for probed in (16, 24, 32, 48, 64):
            index.nprobe = probed
            found[f"{name}, {probed} lists"] = _weighed(index, rows, asked, right)
    return found


def _inverted(rows: Any, code: int, *, residual: bool) -> Any:
    size, dimension = rows.shape
    index: Any = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dimension), dimension, lists_for(size), code, faiss.METRIC_INNER_PRODUCT, residual
    )
    index.cp.niter, index.cp.min_points_per_centroid = 6, 1
    chosen = np.random.default_rng(size).choice(size, sample_size(size), replace=False)
    index.train(rows[chosen].astype(np.float32))
    for start in range(0, size, 50_000):
        index.add(rows[start : start + 50_000].astype(np.float32))
    return index


def _weighed(index: Any, rows: Any, asked: Any, right: Any) -> Case:
    first = again = 0
    times: Timings = []
    for query, nearest in zip(asked, right, strict=True):
        started, began = time.process_time(), time.perf_counter()
        _, found = index.search(query[None, :], 10)
        times.append((1e3 * (time.process_time() - started), 1e3 * (time.perf_counter() - began)))
        candidates = found[0][found[0] >= 0]
        first += int(candidates[0] == nearest)
        again += int(candidates[np.argmax(rows[candidates].astype(np.float32) @ query)] == nearest)
    return {
        "search_cpu_ms": summed(times)["cpu_p50"],
        "recall_at_1": round(first / len(asked), 4),
        "recall_at_1_compared_again": round(again / len(asked), 4),
    }


def _answered(options: argparse.Namespace, rows: Any, base: Any) -> tuple[Any, Any]:
    """Return questions above the threshold, and the numbers of their nearest rows."""
    asked = queries(rows, base, ASKED_FOR_RECALL, seed=6)
    where, similarity = nearest_kept(options.folder, rows, asked)
    return asked[similarity >= LOWEST_THRESHOLD], where[similarity >= LOWEST_THRESHOLD]


def _recall(options: argparse.Namespace, index: FaissIndex, rows: Any, base: Any) -> Case:
    asked, where = _answered(options, rows, base)
    found = [[one.entry_id for one in index.search("p", query, 4)] for query in asked]
    right = [f"{number:024x}" for number in where]
    return {
        "recall_at_1": round(statistics.mean(ids[0] == one for ids, one in zip(found, right, strict=True)), 4),
        "nearest_among_4": round(statistics.mean(one in ids for ids, one in zip(found, right, strict=True)), 4),
        "asked_above_threshold": len(right),
    }
