"""Three replicas on one real Redis: what one stores the others find, through crashes, gaps, late starts, snapshots."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from cache.embedder import Embedder
from cache.entry_store import StoreLimits
from cache.faiss_index import FaissIndex
from cache.fingerprint import Fingerprinter
from cache.guard import Guard, Served, Vetoed
from cache.redis_door import ROOT, Commands
from cache.redis_store import RedisEntryStore, connect
from cache.replication import BLOCK_S, SWEEP_EVERY_S, Follower
from cache.sealing import Sealer, TenantKeys
from cache.semantic_cache import SemanticCache
from cache.snapshot import SnapshotFile
from core.cached import ExactHit, Found, Miss, NearHit, SemanticHit
from core.clock import Clock, ManualClock, SystemClock
from tests.caching import WordEmbedder, answer, caller, policy, request
from tests.redis_server import BINARY, WHY_NOT, RedisServer, running_redis

pytestmark = [pytest.mark.redis, pytest.mark.skipif(BINARY is None, reason=WHY_NOT)]

CAPITAL, REWORDED = "What is the capital of France?", "Which city is the capital of France?"
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Replica:
    """One gateway's cache with its parts at hand."""

    cache: SemanticCache
    store: RedisEntryStore
    index: FaissIndex
    follower: Follower

    async def keep(self, text: str = CAPITAL, content: str = "Paris.") -> str:
        entry_id = await self.cache.store(caller(), request(text), policy(), answer(content))
        assert entry_id is not None
        return entry_id

    async def ask(self, text: str = REWORDED) -> Found:
        return await self.cache.lookup(caller(), request(text), policy())

    async def forget(self, entry_id: str) -> None:
        assert await self.store.delete("acme", [entry_id]) == 1
        self.index.remove([entry_id])

    async def caught_up(self) -> None:
        """Wait until what Redis holds now is in the index, connecting again if need be."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    return await self.follower.caught_up()
                except Exception:
                    await asyncio.sleep(0.01)

    async def back(self) -> None:
        """Ask until the store's pause is over."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.store.read("acme", "unknown") is None and self.store.is_away:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        assert isinstance(await self.ask(), SemanticHit)

    def ids(self) -> set[str]:
        return {entry_id for _, ids, _ in self.index.contents() for entry_id in ids}


class SimilarEnough(Guard):
    """Serves whatever is similar, so that these tests do not depend on the guard's judgement."""

    def judge(self, cached_prompt: str, new_prompt: str, similarity: float, *_: Any, **__: Any) -> Served | Vetoed:
        return Served(1.0, "same") if similarity > 0.6 else Vetoed("similarity")


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.01)


@asynccontextmanager
async def replica(
    url: str,
    *,
    snapshot: Path | None = None,
    sealer: Sealer | None = None,
    most_changes: int = 10_000,
    limits: StoreLimits | None = None,
    clock: Clock | None = None,
    encoder: str = "words",
) -> AsyncIterator[Replica]:
    clock, embedder = clock or SystemClock(), WordEmbedder(encoder)
    async with connect(url, timeout_s=2.0) as client, connect(url, timeout_s=BLOCK_S + 2.0) as following:
        store = RedisEntryStore(client, clock, limits, sealer, timeout_s=2.0, most_changes=most_changes)
        index = FaissIndex()
        file = None if snapshot is None else SnapshotFile(snapshot, embedder.fingerprint)
        follower = Follower(following, store, index, embedder.fingerprint, clock, file)
        async with follower.running():
            yield Replica(cache(store, index, embedder, clock), store, index, follower)


def cache(store: RedisEntryStore, index: FaissIndex, embedder: Embedder, clock: Clock) -> SemanticCache:
    return SemanticCache(Fingerprinter(b"0123456789abcdef"), store, index, embedder, clock, SimilarEnough())


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
async def three(server: RedisServer) -> AsyncIterator[list[Replica]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(replica(server.url)) for _ in range(3)]


async def all_caught_up(replicas: list[Replica]) -> None:
    await asyncio.gather(*(one.caught_up() for one in replicas))


async def test_what_one_stores_is_a_hit_on_the_others(three: list[Replica]) -> None:
    await all_caught_up(three)
    entry_id = await three[0].keep()
    await all_caught_up(three)
    for one in three:
        for text, kind in ((CAPITAL, ExactHit), (REWORDED, SemanticHit)):
            found = await one.ask(text)
            assert isinstance(found, kind)
            assert isinstance(found, ExactHit | SemanticHit)
            assert found.entry.entry_id == entry_id
    assert all(one.follower.reconciliations == 1 for one in three)


async def test_what_one_deletes_is_gone_everywhere_at_once_and_from_the_indexes_soon(three: list[Replica]) -> None:
    entry_id = await three[0].keep()
    await all_caught_up(three)
    await three[1].forget(entry_id)
    for one in three:
        for text in (CAPITAL, REWORDED):
            assert isinstance(await one.ask(text), Miss)
    await all_caught_up(three)
    assert all(one.ids() == set() for one in three)


async def test_a_killed_redis_costs_misses_and_no_deleted_entry_comes_back(
    server: RedisServer, three: list[Replica]
) -> None:
    kept, gone = await three[0].keep(), await three[0].keep("Who wrote Hamlet?", "Shakespeare.")
    await all_caught_up(three)
    await three[1].forget(gone)
    server.kill()
    for one in three:
        for text in (CAPITAL, REWORDED, "Who wrote Hamlet?"):
            assert isinstance(await one.ask(text), Miss | NearHit)
        assert await one.cache.store(caller(), request("Something new?"), policy(), answer()) is None
        assert one.cache.stats.failed == 0
    server.start()
    await all_caught_up(three)
    for one in three:
        await one.back()
    for one in three:
        assert isinstance(await one.ask("Who wrote Hamlet?"), Miss | NearHit)
        assert one.ids() == {kept}
    new = await three[2].keep("Who painted Guernica?", "Picasso.")
    await all_caught_up(three)
    assert all(one.ids() == {kept, new} for one in three)


async def test_a_redis_that_lost_everything_empties_the_indexes(server: RedisServer, three: list[Replica]) -> None:
    await three[0].keep()
    await all_caught_up(three)
    async with connect(server.url, timeout_s=2.0) as client:
        await client.flushall()
    assert isinstance(await three[1].ask(), Miss)
    new = await three[2].keep("Who painted Guernica?", "Picasso.")
    await until(lambda: all(one.ids() == {new} for one in three))
    assert isinstance(await three[1].ask("Who painted Guernica?"), ExactHit)


async def test_a_redis_set_back_to_an_older_state_is_noticed(server: RedisServer) -> None:
    async with connect(server.url, timeout_s=2.0) as client, replica(server.url) as one:
        kept = await one.keep()
        await one.caught_up()
        commands: Commands = client
        saved = {key: await client.dump(key) for key in await commands.execute_command("KEYS", f"{ROOT}*")}
        await one.keep("Who wrote Hamlet?", "Shakespeare.")
        await one.caught_up()
        await client.flushall()
        for key, dump in saved.items():
            await commands.execute_command("RESTORE", key, 0, dump)
        await until(lambda: one.ids() == {kept})
        assert one.follower.reconciliations == 2


async def test_a_replica_started_late_has_everything(three: list[Replica], server: RedisServer) -> None:
    kept = {await three[0].keep(text, text) for text in (CAPITAL, "Who wrote Hamlet?", "Who painted Guernica?")}
    gone = await three[1].keep("What is the speed of light?", "Fast.")
    await three[2].forget(gone)
    async with replica(server.url) as late:
        await late.caught_up()
        assert late.ids() == kept
        assert isinstance(await late.ask(), SemanticHit)


async def test_a_replica_behind_a_trimmed_stream_compares_everything(server: RedisServer) -> None:
    async with replica(server.url, most_changes=1) as one:
        await one.caught_up()
        async with connect(server.url, timeout_s=2.0) as client:
            first = await one.keep()
            await one.caught_up()
            stale = one.follower.position
            assert stale is not None
            for number in range(300):
                await one.keep(f"Question number {number} of many?", "x")
            await one.caught_up()
            assert await client.xlen(f"{ROOT}changes") < 300
        snapshot = server.folder / "index"
        SnapshotFile(snapshot, "words").save(stale, one.index.contents())
        one.index.remove([first])
        async with replica(server.url, snapshot=snapshot) as late:
            await late.caught_up()
            assert late.follower.reconciliations == 1
            assert len(late.ids()) == 301
            assert first in late.ids()


async def test_a_restart_takes_the_snapshot_and_follows_from_there(server: RedisServer, tmp_path: Path) -> None:
    snapshot = tmp_path / "index"
    async with replica(server.url) as other:
        async with replica(server.url, snapshot=snapshot) as one:
            first = await one.keep()
            second = await one.keep("Who wrote Hamlet?", "Shakespeare.")
            await one.caught_up()
        await other.forget(second)
        third = await other.keep("Who painted Guernica?", "Picasso.")
        async with replica(server.url, snapshot=snapshot) as again:
            await again.caught_up()
            assert again.follower.reconciliations == 0
            assert again.ids() == {first, third}
            assert isinstance(await again.ask(), SemanticHit)


async def test_a_truncated_snapshot_or_one_of_another_encoder_means_starting_from_redis(
    server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = tmp_path / "index"
    async with replica(server.url, snapshot=snapshot) as one:
        kept = await one.keep()
        await one.caught_up()
    whole = snapshot.read_bytes()
    snapshot.write_bytes(whole[:-7])
    async with replica(server.url, snapshot=snapshot) as again:
        await again.caught_up()
        assert again.follower.reconciliations == 1
        assert again.ids() == {kept}
    assert "truncated" in str([record.__dict__ for record in caplog.records])
    snapshot.write_bytes(whole)
    async with replica(server.url, snapshot=snapshot, encoder="another") as other:
        await other.caught_up()
        assert other.ids() == set()
        assert isinstance(await other.ask(), Miss)
        assert isinstance(await other.ask(CAPITAL), ExactHit)


async def test_evicted_and_expired_entries_leave_every_index(server: RedisServer) -> None:
    clock, limits = ManualClock(), StoreLimits(max_entries_per_tenant=2)
    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(replica(server.url, limits=limits, clock=clock)) for _ in range(2)]
        ids = [await both[0].keep(f"Question {name}?", name) for name in ("red", "tan", "sky")]
        await all_caught_up(both)
        assert all(one.ids() == set(ids[1:]) for one in both)
        clock.advance(max(SWEEP_EVERY_S, float(policy().tenant_policy.cache.ttl_s)) + 1.0)
        await until(lambda: not any(one.ids() for one in both))


async def test_sealed_replicas_share_what_they_keep(server: RedisServer, tmp_path: Path) -> None:
    async with (
        replica(server.url, sealer=Sealer(TenantKeys(tmp_path))) as one,
        replica(server.url, sealer=Sealer(TenantKeys(tmp_path))) as other,
        replica(server.url) as stranger,
    ):
        await one.keep()
        await all_caught_up([one, other, stranger])
        assert isinstance(await other.ask(), SemanticHit)
        assert isinstance(await stranger.ask(CAPITAL), Miss)
        assert stranger.ids() == set()


async def test_a_damaged_change_is_left_out_and_following_goes_on(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(server.url, timeout_s=2.0) as client, replica(server.url) as one:
        kept = await one.keep()
        await one.caught_up()
        await announce_damaged(client)
        second = await one.keep("Who wrote Hamlet?", "Shakespeare.")
        await one.caught_up()
        assert one.ids() == {kept, second}
        assert "vector is corrupt" in caplog.text


async def announce_damaged(client: Redis) -> None:
    era = await client.get(f"{ROOT}era")
    number = await client.incr(f"{ROOT}number")
    assert isinstance(era, bytes)
    fields = {"era": era, "n": str(number), "t": "acme", "id": "id-x", "v": b"\x00damaged", "gone": ""}
    parts = [part for pair in fields.items() for part in pair]
    commands: Commands = client
    await commands.execute_command("XADD", f"{ROOT}changes", "*", *parts)


async def test_an_outage_is_told_once(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    async with replica(server.url) as one:
        await one.keep()
        await one.caught_up()
        with caplog.at_level(logging.WARNING):
            server.kill()
            for _ in range(5):
                assert isinstance(await one.ask(CAPITAL), Miss)
                await asyncio.sleep(0.05)
            server.start()
            await one.caught_up()
    told = [record.message for record in caplog.records]
    assert told.count("the shared cache cannot be followed, trying again") == 1
    assert told.count("the cache's store is away, requests go on without it") == 1
