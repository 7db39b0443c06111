"""Catalogues list what the stores hold, for control commands: SQLite's file and a real Redis."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cache.catalogue import Catalogue
from cache.entry_store import EntryStore
from cache.redis_catalogue import RedisCatalogue
from cache.redis_store import RedisEntryStore, connect
from cache.sqlite_store import SqliteEntryStore
from core.clock import ManualClock
from tests.caching import entry
from tests.redis_server import BINARY, WHY_NOT, RedisServer, running_redis

CLOCK = ManualClock(datetime.fromtimestamp(0, UTC))


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


async def check(store: EntryStore, catalogue: Catalogue) -> None:
    await store.put(entry("b"))
    await store.put(entry("a", vector=None))
    await store.put(entry("c", tenant="other"))
    await store.delete("acme", ["id-b"])
    assert await catalogue.ids("acme") == ["id-a"]
    assert await catalogue.ids("nobody") == []
    assert await catalogue.tenants() == ["acme", "other"]
    await store.close()


async def test_of_sqlite(tmp_path: Path) -> None:
    store = SqliteEntryStore(tmp_path / "cache.db", CLOCK)
    await check(store, store)


@pytest.mark.redis
@pytest.mark.skipif(BINARY is None, reason=WHY_NOT)
async def test_of_redis(server: RedisServer) -> None:
    async with connect(server.url, timeout_s=5.0) as client:
        await check(RedisEntryStore(client, CLOCK, timeout_s=5.0), RedisCatalogue(client))
        server.kill()
        with pytest.raises(OSError, match="does not answer"):
            await RedisCatalogue(client, timeout_s=0.5).tenants()
