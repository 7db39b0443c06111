"""The shared store on a real Redis: away, hanging, damaged, cancelled, and what is left behind."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis.asyncio import Redis

from cache.entry_store import StoreLimits, StoreUnavailable
from cache.redis_door import PAUSE_S, ROOT, Commands
from cache.redis_store import RedisEntryStore, connect
from cache.sealing import Sealer, TenantKeys
from core.clock import ManualClock
from tests.caching import answer, entry
from tests.redis_server import BINARY, WHY_NOT, RedisServer, running_redis

pytestmark = [pytest.mark.redis, pytest.mark.skipif(BINARY is None, reason=WHY_NOT)]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[Redis]:
    async with connect(server.url, timeout_s=5.0) as client:
        yield client


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.fromtimestamp(0, UTC))


@pytest.fixture
def store(client: Redis, clock: ManualClock) -> RedisEntryStore:
    return RedisEntryStore(client, clock, timeout_s=5.0)


async def left_over(client: Redis) -> set[str]:
    commands: Commands = client
    return {key.decode().removeprefix(ROOT) for key in await commands.execute_command("KEYS", f"{ROOT}*")}


async def test_one_replica_reads_what_another_keeps_and_not_what_it_deletes(
    server: RedisServer, store: RedisEntryStore, clock: ManualClock
) -> None:
    async with connect(server.url, timeout_s=5.0) as another:
        other = RedisEntryStore(another, clock, timeout_s=5.0)
        await store.put(entry("a"))
        found = await other.read("acme", "exact-a")
        assert found is not None
        assert found.answer == answer()
        assert await other.delete("acme", ["id-a"]) == 1
        assert await store.read("acme", "exact-a") is None


async def test_while_redis_is_away_reads_miss_nothing_is_kept_and_deleting_says_so(
    server: RedisServer, store: RedisEntryStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    await store.put(entry("a"))
    server.kill()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert await store.read("acme", "exact-a") is None
        assert await store.put(entry("b")) == ("id-b",)
        with pytest.raises(StoreUnavailable):
            await store.delete("acme", ["id-a"])
        with pytest.raises(StoreUnavailable):
            [batch async for batch in store.live()]
        assert await store.sweep() == 0
        away = store.is_away
        server.start()
        assert await store.read("acme", "exact-a") is None
        clock.advance(PAUSE_S)
        assert await store.read("acme", "exact-a") is not None
        assert (away, store.is_away) == (True, False)
    told = [record.message for record in caplog.records]
    assert told.count("the cache's store is back") == 1
    assert told.count("the cache's store is away, requests go on without it") == 2  # one for each kind of patience
    assert await store.read("acme", "exact-b") is None


async def test_a_hanging_redis_holds_nobody_longer_than_the_timeout(server: RedisServer, clock: ManualClock) -> None:
    async with connect(server.url, timeout_s=0.05) as client:
        store = RedisEntryStore(client, clock, timeout_s=0.05)
        server.pause()
        try:
            async with asyncio.timeout(20):
                found = await asyncio.gather(*(store.read("acme", f"exact-{number}") for number in range(50)))
            assert found == [None] * 50
        finally:
            server.resume()


async def test_a_cancelled_read_never_hands_its_answer_to_another(server: RedisServer, store: RedisEntryStore) -> None:
    for number in range(20):
        await store.put(entry(str(number), answer=answer(f"answer {number}")))
    for turn in range(30):
        reads = [asyncio.create_task(store.read("acme", f"exact-{number}")) for number in range(20)]
        for _ in range(turn % 6):
            await asyncio.sleep(0)
        for number in range(0, 20, 2):
            reads[number].cancel()
        found = await asyncio.gather(*reads, return_exceptions=True)
        for number, one in enumerate(found):
            if not isinstance(one, asyncio.CancelledError):
                assert not isinstance(one, BaseException)
                assert one is not None
                assert one.answer.content == f"answer {number}"


@pytest.mark.parametrize("damage", [b"", b"\x00short", b"\x07unknown", None])
async def test_a_damaged_entry_is_a_miss_and_a_warning_and_can_be_replaced(
    client: Redis, store: RedisEntryStore, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    await store.put(entry("a"))
    key = f"{ROOT}e:acme:id-a"
    whole = await client.get(key)
    assert isinstance(whole, bytes)
    await client.set(key, whole[:-3] if damage is None else damage)
    assert await store.read("acme", "exact-a") is None
    assert "corrupt" in caplog.text
    newer = entry("b", exact_key="exact-a", normalised_key="normalised-a", answer=answer("newer"))
    assert await store.put(newer) == ("id-a",)
    found = await store.read("acme", "exact-a")
    assert found is not None
    assert found.answer.content == "newer"


async def test_a_damaged_vector_is_left_out_of_the_index(
    client: Redis, store: RedisEntryStore, caplog: pytest.LogCaptureFixture
) -> None:
    await store.put(entry("a"))
    await store.put(entry("b"))
    await client.hset(f"{ROOT}t:acme:vectors", "id-a", b"\x00damaged")  # type: ignore[misc,arg-type,unused-ignore]
    assert [one.entry_id async for batch in store.live() for one in batch] == ["id-b"]
    assert "vector is corrupt" in caplog.text
    found = await store.read("acme", "id-a")
    assert found is not None
    assert found.vector is None


async def test_scripts_that_redis_forgot_are_sent_again(client: Redis, store: RedisEntryStore) -> None:
    await store.put(entry("a"))
    await client.script_flush()
    assert await store.read("acme", "exact-a") is not None


async def test_sweeping_forgets_what_expired_and_leaves_nothing_behind(
    client: Redis, store: RedisEntryStore, clock: ManualClock
) -> None:
    for number in range(700):
        await store.put(entry(str(number), expires_at_s=10.0))
    await store.put(entry("stays", tenant="other"))
    clock.advance(10.0)
    assert await store.sweep() == 700
    assert await store.sweep() == 0
    kept = {key for key in await left_over(client) if ":acme:" in key}
    assert kept == {key for key in kept if key.startswith(("e:", "k:"))}  # these end by Redis' own clock
    assert await client.pttl(f"{ROOT}e:acme:id-1") <= 10_000


async def test_deleting_everything_leaves_no_bookkeeping(
    client: Redis, store: RedisEntryStore, clock: ManualClock
) -> None:
    limited = RedisEntryStore(client, clock, StoreLimits(max_entries_per_tenant=2), timeout_s=5.0)
    for name in "abcd":
        await limited.put(entry(name))
    assert await limited.delete("acme", ["id-c", "id-d"]) == 2
    assert await client.hget(f"{ROOT}t:acme:totals", "bytes") == b"0"  # type: ignore[misc,unused-ignore]
    await limited.sweep()
    assert await left_over(client) == {"changes", "era", "number"}


async def test_hits_do_not_lengthen_life(client: Redis, store: RedisEntryStore, clock: ManualClock) -> None:
    await store.put(entry("a", expires_at_s=100.0))
    before = await client.pexpiretime(f"{ROOT}e:acme:id-a")
    clock.advance(50.0)
    assert await store.read("acme", "id-a") is not None
    assert await client.pexpiretime(f"{ROOT}e:acme:id-a") == before


async def test_an_entry_that_redis_evicted_is_a_miss(client: Redis, store: RedisEntryStore) -> None:
    await store.put(entry("a"))
    await client.delete(f"{ROOT}e:acme:id-a")
    assert await store.read("acme", "exact-a") is None
    assert await store.put(entry("b", exact_key="exact-a", normalised_key="normalised-a")) == ("id-a",)


async def test_sealed_entries_hold_no_text_and_die_with_the_key(
    client: Redis, clock: ManualClock, tmp_path: Path
) -> None:
    sealer = Sealer(TenantKeys(tmp_path))
    store = RedisEntryStore(client, clock, sealer=sealer, timeout_s=5.0)
    await store.put(entry("a", prompt="a very private question", answer=answer("a very private answer")))
    await store.put(entry("b", tenant="other"))
    stored = await client.get(f"{ROOT}e:acme:id-a")
    assert isinstance(stored, bytes)
    assert b"very private" not in stored
    sealer.shred("acme")
    assert await store.read("acme", "exact-a") is None
    assert [one.entry_id async for batch in store.live() for one in batch] == ["id-b"]
    without_key = RedisEntryStore(client, clock, timeout_s=5.0)
    assert await without_key.read("other", "exact-b") is None
    assert await store.read("other", "exact-b") is not None
