"""One suite over every entry store."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from cache.entry_store import EntryStore, MemoryEntryStore, StoreLimits
from cache.sqlite_store import SqliteEntryStore
from core.clock import ManualClock
from tests.caching import answer, direction, entry

LIMITS = StoreLimits(max_entries_per_tenant=3, max_bytes_per_tenant=20_000, max_entry_bytes=10_000)
MakeStore = Callable[[ManualClock], EntryStore]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    if request.param == "memory":
        return lambda clock: MemoryEntryStore(clock, LIMITS)
    return lambda clock: SqliteEntryStore(tmp_path / "cache.db", clock, LIMITS)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.fromtimestamp(0, UTC))


async def live_ids(store: EntryStore) -> set[str]:
    return {one.entry_id async for batch in store.live() for one in batch}


async def test_an_entry_is_found_by_id_and_by_both_keys(make: MakeStore, clock: ManualClock) -> None:
    store = make(clock)
    await store.put(entry("a"))
    for key in ("id-a", "exact-a", "normalised-a"):
        found = await store.read("acme", key)
        assert found is not None
        assert found.answer == answer()
        assert found.vector is not None
        assert np.allclose(found.vector, direction("a"), atol=1e-3)
    assert await store.read("acme", "exact-b") is None
    await store.close()


async def test_an_entry_is_invisible_to_another_tenant(make: MakeStore, clock: ManualClock) -> None:
    store = make(clock)
    await store.put(entry("a"))
    assert await store.read("other", "id-a") is None
    assert await store.read("other", "exact-a") is None
    assert await store.delete("other", ["id-a"]) == 0
    assert await store.read("acme", "id-a") is not None
    await store.close()


async def test_an_entry_dies_at_its_expiry(make: MakeStore, clock: ManualClock) -> None:
    store = make(clock)
    await store.put(entry("a", expires_at_s=10.0))
    clock.advance(9.9)
    assert await store.read("acme", "id-a") is not None
    clock.advance(0.1)
    assert await store.read("acme", "id-a") is None
    assert await live_ids(store) == set()
    await store.close()


async def test_a_deleted_entry_is_gone(make: MakeStore, clock: ManualClock) -> None:
    store = make(clock)
    await store.put(entry("a"))
    assert await store.delete("acme", ["id-a", "id-unknown"]) == 1
    assert await store.read("acme", "exact-a") is None
    await store.close()


async def test_the_same_question_replaces_its_entry(make: MakeStore, clock: ManualClock) -> None:
    store = make(clock)
    await store.put(entry("a"))
    newer = entry("b", normalised_key="normalised-a", answer=answer("newer"))
    assert await store.put(newer) == ("id-a",)
    found = await store.read("acme", "normalised-a")
    assert found is not None
    assert found.answer.content == "newer"
    assert await store.read("acme", "exact-a") is None
    await store.close()


async def test_the_oldest_entries_make_room(make: MakeStore, clock: ManualClock) -> None:
    store = make(clock)
    for name in "abc":
        assert await store.put(entry(name)) == ()
    assert await store.put(entry("d")) == ("id-a",)
    assert await store.put(entry("other", tenant="other")) == ()
    assert await store.read("acme", "id-a") is None
    assert await store.read("acme", "id-b") is not None
    await store.close()


async def test_bytes_are_bounded_too(make: MakeStore, clock: ManualClock) -> None:
    store = make(clock)
    await store.put(entry("a", answer=answer("x" * 8_000)))
    await store.put(entry("b", answer=answer("x" * 8_000)))
    assert await store.put(entry("c", answer=answer("x" * 8_000))) == ("id-a",)
    assert await store.put(entry("d", answer=answer("x" * 11_000))) == ("id-d",)
    assert await store.read("acme", "id-d") is None
    assert await store.read("acme", "id-b") is not None
    await store.close()


async def test_live_yields_the_vectors_an_index_needs(make: MakeStore, clock: ManualClock) -> None:
    store = make(clock)
    await store.put(entry("a"))
    await store.put(entry("b", vector=None))
    await store.close()
    reopened = make(clock) if isinstance(store, SqliteEntryStore) else store
    if isinstance(store, MemoryEntryStore):
        await store.put(entry("a"))
        await store.put(entry("b", vector=None))
    found = [one async for batch in reopened.live() for one in batch]
    assert [(one.entry_id, one.scope, one.encoder) for one in found] == [("id-a", "scope-1", "words")]
    assert np.allclose(found[0].vector, direction("a"), atol=1e-3)
    await reopened.close()
