import asyncio
import gc
from collections.abc import Iterator
from contextlib import suppress

import pytest

from gateway.heap import GROWN_BYTES, MOST_GROWN_BYTES, YOUNG_OBJECTS, Heap, collect_rarely, resident_bytes


class Circle:
    """Reaches itself, so that only a collection frees it."""

    alive = 0

    def __init__(self) -> None:
        self.itself = self
        Circle.alive += 1

    def __del__(self) -> None:
        Circle.alive -= 1


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


class Process:
    """Memory and idleness as a test sets them."""

    def __init__(self) -> None:
        self.size_bytes = 500_000_000
        self.is_idle = True
        self.heap = Heap(lambda: self.is_idle, lambda: self.size_bytes)
        self.heap.keep()


def test_young_objects_are_looked_at_by_themselves_and_the_oldest_never() -> None:
    collect_rarely()
    young, _, oldest = gc.get_threshold()
    assert young == YOUNG_OBJECTS
    assert oldest > 1_000_000


def test_the_resident_memory_grows_with_what_is_held() -> None:
    before = resident_bytes()
    held = b"x" * (64 * 2**20)
    assert resident_bytes() - before > len(held) // 2


def test_nothing_is_looked_at_before_memory_has_grown() -> None:
    process = Process()
    process.size_bytes += GROWN_BYTES - 1
    assert not process.heap.tend()


def test_once_memory_has_grown_garbage_is_collected_when_nothing_is_under_way() -> None:
    gc.collect()
    process, before = Process(), Circle.alive
    process.is_idle = False
    Circle()
    process.size_bytes += GROWN_BYTES
    assert not process.heap.tend()
    process.is_idle = True
    assert process.heap.tend()
    assert Circle.alive == before
    assert not process.heap.tend(), "what is left is kept, and memory has not grown since"


def test_when_memory_has_grown_by_very_much_nobody_is_asked() -> None:
    process = Process()
    process.is_idle = False
    process.size_bytes += MOST_GROWN_BYTES
    assert process.heap.tend()


def test_what_is_loaded_after_the_start_is_kept_from_collections_too() -> None:
    counts: list[int] = []
    loaded: list[list[int]] = []

    def is_loaded() -> bool:
        counts.append(gc.get_freeze_count())
        if len(counts) > 1:
            loaded.extend([] for _ in range(10_000))
        return len(counts) > 1

    async def until_loaded() -> None:
        running = asyncio.create_task(Heap(lambda: False).run(is_loaded, poll_s=0.0))
        while len(counts) < 2 or gc.get_freeze_count() < counts[1] + 9_000:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(asyncio.wait_for(until_loaded(), 20))
    assert counts[0] > 0
