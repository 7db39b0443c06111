"""Time calls of the cache's benchmarks by CPU and by wall clock, and sum them up."""

import ctypes
import gc
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

Case = dict[str, Any]
Timings = list[tuple[float, float]]


async def timed(calls: Sequence[Callable[[], Awaitable[object]]]) -> Timings:
    taken: Timings = []
    for call in calls:
        started, began = time.process_time(), time.perf_counter()
        await call()
        taken.append((1e3 * (time.process_time() - started), 1e3 * (time.perf_counter() - began)))
    return taken


def timed_now(calls: Sequence[Callable[[], object]]) -> dict[str, float]:
    taken: Timings = []
    for call in calls:
        started, began = time.process_time(), time.perf_counter()
        call()
        taken.append((1e3 * (time.process_time() - started), 1e3 * (time.perf_counter() - began)))
    return summed(taken)


def summed(taken: Timings) -> dict[str, float]:
    if not taken:
        return {}
    cpu, wall = ([one[at] for one in taken] for at in (0, 1))
    return {
        "cpu_p50": round(statistics.median(cpu), 4),
        "wall_p50": round(statistics.median(wall), 4),
        "wall_p95": round(sorted(wall)[int(0.95 * (len(wall) - 1))], 4),
    }


def resident_bytes() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def rounds_of(measure: Callable[[], dict[str, float]], rounds: int) -> Case:
    """Measure several times and return medians, with the CPU median of each round beside them."""
    return medians([measure() for _ in range(rounds)])


def medians(measured: Sequence[dict[str, float]]) -> Case:
    """Return the median of each figure, and the CPU medians of the rounds."""
    if not measured or not measured[0]:
        return {}
    figures: Case = {name: round(statistics.median(one[name] for one in measured), 4) for name in measured[0]}
    return figures | {"rounds_cpu_p50": [one["cpu_p50"] for one in measured]}
