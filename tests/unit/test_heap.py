import asyncio
import gc
from collections.abc import Iterator

import pytest

from gateway.heap import YOUNG_OBJECTS, collect_rarely, keep_loaded


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_many_objects_gather_before_a_collection() -> None:
    collect_rarely()
    assert gc.get_threshold()[0] == YOUNG_OBJECTS


def test_what_is_loaded_after_the_start_is_kept_from_collections_too() -> None:
    counts: list[int] = []
    loaded: list[list[int]] = []

    def is_loaded() -> bool:
        counts.append(gc.get_freeze_count())
        if len(counts) > 1:
            loaded.extend([] for _ in range(10_000))
        return len(counts) > 1

    asyncio.run(keep_loaded(is_loaded, poll_s=0.0))
    assert counts[0] > 0
    assert gc.get_freeze_count() > counts[1] + 9_000
