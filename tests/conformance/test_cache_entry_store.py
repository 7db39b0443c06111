"""One suite over every entry store."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from redis.asyncio import Redis

from cache.entry_store import EntryStore, MemoryEntryStore, StoreLimits
from cache.redis_door import Commands
from cache.redis_store import RedisEntryStore, connect
from cache.sealing import Sealer, TenantKeys
from cache.sqlite_store import SqliteEntryStore
from core.clock import ManualClock
from policies.redis_wire import Wire
from tests.caching import answer, direction, entry
from tests.redis_server import BINARY, WHY_NOT, RedisServer, running_redis

LIMITS = StoreLimits(max_entries_per_tenant=3, max_bytes_per_tenant=20_000, max_entry_bytes=10_000)
MakeStore = Callable[[ManualClock], EntryStore]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    if BINARY is None:
        pytest.skip(WHY_NOT)
    with running_redis() as server:
        yield server


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[Redis]:
    async with connect(server.url, timeout_s=5.0) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def lean(server: RedisServer, client: Redis) -> AsyncIterator[Wire]:
    async with Wire(server.url, timeout_s=5.0) as wire:
        yield wire


REDIS = [pytest.param(name, marks=pytest.mark.redis) for name in ("redis", "redis, lean", "redis, sealed")]


@pytest.fixture(params=["memory", "sqlite", "sqlite, sealed", *REDIS])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    sealer = Sealer(TenantKeys(tmp_path / "keys")) if request.param.endswith("sealed") else None
    if request.param == "memory":
        return lambda clock: MemoryEntryStore(clock, LIMITS)
    if request.param.startswith("sqlite"):
        return lambda clock: SqliteEntryStore(tmp_path / "cache.db", clock, LIMITS, sealer)
    client: Commands = request.getfixturevalue("lean" if request.param.endswith("lean") else "client")
    return lambda clock: RedisEntryStore(client, clock, LIMITS, sealer, timeout_s=5.0)


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


async def test_tags_come_back_with_the_entry(make: MakeStore, clock: ManualClock) -> None:
    store = make(clock)
    await store.put(entry("a", tags=("handbook", "v1.2")))
    await store.close()
    reopened = store if isinstance(store, MemoryEntryStore) else make(clock)
    if isinstance(store, MemoryEntryStore):
        await store.put(entry("a", tags=("handbook", "v1.2")))
    found = await reopened.read("acme", "id-a")
    assert found is not None
    assert found.tags == ("handbook", "v1.2")
    await reopened.close()


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


async def test_the_oldest_of_equals_makes_room(make: MakeStore, clock: ManualClock) -> None:
    store = make(clock)
    for name in "abc":
        assert await store.put(entry(name)) == ()
    assert await store.put(entry("d")) == ("id-a",)
    assert await store.put(entry("other", tenant="other")) == ()
    assert await store.read("acme", "id-a") is None
    assert await store.read("acme", "id-b") is not None
    await store.close()


async def test_what_saves_least_per_byte_makes_room(make: MakeStore, clock: ManualClock) -> None:
    store = make(clock)
    await store.put(entry("dear", answer=answer(cost_nano_usd=90_000)))
    await store.put(entry("cheap", answer=answer(cost_nano_usd=10)))
    await store.put(entry("dear-long", answer=answer("x" * 5_000, cost_nano_usd=90_000)))
    assert await store.put(entry("new", answer=answer(cost_nano_usd=20))) == ("id-cheap",)
    assert await store.put(entry("newer", answer=answer(cost_nano_usd=50_000))) == ("id-new",)
    assert await store.put(entry("newest", answer=answer(cost_nano_usd=50_000))) == ("id-dear-long",)
    await store.close()


async def test_what_is_read_outlives_what_is_not(make: MakeStore, clock: ManualClock) -> None:
    store = make(clock)
    for name in "abcd":
        await store.put(entry(name))
    assert await store.read("acme", "exact-b") is not None
    assert await store.put(entry("e")) == ("id-c",)
    await store.close()


async def test_worth_does_not_outlive_its_time(make: MakeStore, clock: ManualClock) -> None:
    store = make(clock)
    await store.put(entry("dear", answer=answer(cost_nano_usd=10**9), expires_at_s=10.0))
    await store.put(entry("b"))
    await store.put(entry("c"))
    clock.advance(5.0)
    assert await store.read("acme", "id-dear") is not None
    clock.advance(5.0)
    assert await store.put(entry("d")) == ("id-dear",)
    assert await store.read("acme", "id-b") is not None
    await store.close()


async def test_a_full_tenant_takes_nothing_from_another(make: MakeStore, clock: ManualClock) -> None:
    store = make(clock)
    await store.put(entry("theirs", tenant="other", answer=answer(cost_nano_usd=0)))
    for name in "abcde":
        await store.put(entry(name, answer=answer(cost_nano_usd=10**6)))
    assert await store.read("other", "id-theirs") is not None
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
