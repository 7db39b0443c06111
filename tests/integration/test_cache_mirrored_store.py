"""Exact hits from copies while a real Redis is away, and never one of an entry whose deletion was confirmed."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from cache.entry_store import StoreUnavailable
from cache.faiss_index import FaissIndex
from cache.local_copies import LocalCopies
from cache.mirrored_store import MirroredStore
from cache.redis_door import ROOT, Commands
from cache.redis_store import RedisEntryStore, connect
from cache.replication import BLOCK_S, Follower
from core.clock import SystemClock
from tests.caching import entry
from tests.redis_server import BINARY, WHY_NOT, RedisServer, running_redis

pytestmark = [pytest.mark.redis, pytest.mark.skipif(BINARY is None, reason=WHY_NOT)]

FOR_EVER = {"created_at_s": 0.0, "expires_at_s": 1e11}
PATIENCE_S = 20.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@dataclass(frozen=True, slots=True)
class Replica:
    store: MirroredStore
    follower: Follower

    async def finds(self, key: str) -> bool:
        return await self.store.read("acme", key) is not None


@asynccontextmanager
async def replica(url: str) -> AsyncIterator[Replica]:
    clock = SystemClock()
    async with connect(url, timeout_s=2.0) as client, connect(url, timeout_s=BLOCK_S + 2.0) as following:
        shared, copies = RedisEntryStore(client, clock, timeout_s=2.0), LocalCopies(clock)
        follower = Follower(following, shared, FaissIndex(), "words", clock, copies=copies)
        async with follower.running():
            async with asyncio.timeout(PATIENCE_S):
                while follower.position is None:  # noqa: ASYNC110 - nothing tells when
                    await asyncio.sleep(0.01)
            yield Replica(MirroredStore(shared, copies), follower)


async def test_exact_hits_go_on_without_redis_and_deleted_entries_stay_deleted(server: RedisServer) -> None:
    async with replica(server.url) as one, replica(server.url) as other, replica(server.url) as third:
        for name in ("kept", "gone"):
            await one.store.put(entry(name, **FOR_EVER))
            for each in (one, other, third):
                assert await each.finds(f"exact-{name}")
        assert await one.store.delete("acme", ["id-gone"]) == 1
        server.kill()
        for each in (one, other, third):
            assert await each.finds("exact-kept")
            assert await each.finds("normalised-kept")
            assert not await each.finds("exact-gone")
            assert not await each.finds("id-kept")
        assert await other.store.put(entry("made meanwhile", **FOR_EVER)) == ("id-made meanwhile",)
        assert await other.finds("exact-made meanwhile")
        assert not await third.finds("exact-made meanwhile")
        with pytest.raises(StoreUnavailable):
            await third.store.delete("acme", ["id-kept"])
        assert not await third.finds("exact-kept")


async def test_every_deletion_that_was_confirmed_has_reached_every_replica(server: RedisServer) -> None:
    async with replica(server.url) as one, replica(server.url) as other:
        for turn in range(30):
            await one.store.put(entry(str(turn), **FOR_EVER))
            assert await other.finds(f"exact-{turn}")
            await one.store.delete("acme", [f"id-{turn}"])
            if turn == 29:
                server.kill()
            assert not await other.finds(f"exact-{turn}")


async def test_a_replica_that_ends_holds_no_deletion_up(server: RedisServer) -> None:
    async with replica(server.url) as one:
        async with replica(server.url):
            pass
        async with connect(server.url, timeout_s=2.0) as client:
            commands: Commands = client
            assert len(await commands.execute_command("HKEYS", f"{ROOT}replicas")) == 1
        await one.store.put(entry("a", **FOR_EVER))
        assert await one.store.delete("acme", ["id-a"]) == 1
