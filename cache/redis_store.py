"""Cache entries that replicas share in one Redis (or Valkey), which is the truth: every hit reads its entry there.

Each step is one Lua script: the entry, its keys, the tenant's bookkeeping and the line in the stream of changes appear
together or not at all. Entries end by Redis' own time to live. While Redis is away (`redis_door`) every read is a miss
and nothing new is kept (`mirrored_store` puts copies behind it); requests go on without it. A deletion returns when the
replicas know of it (`local_copies` says why).
All keys carry one hash tag: the cache fits Redis Cluster, on one of its slots. Only entries carry a time to live, so
`maxmemory-policy` should be one of `volatile-*` or `noeviction`.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from cache.entry_codec import EntryCodec
from cache.entry_store import StoredVector, StoreUnavailable
from cache.local_copies import LEASE_S
from cache.redis_door import ROOT, TIMEOUT_S, Commands, Door, Script, StoreAway, pairs_of
from cache.sealing import Sealer
from cache.shelf import StoreLimits, label_of
from core.cached import Entry
from core.clock import Clock

log = logging.getLogger(__name__)

PUT, READ, DELETE, SWEEP = Script("put"), Script("read"), Script("delete"), Script("sweep")
BEAT, BEHIND = Script("beat"), Script("behind")
MOST_CHANGES = 10_000
"""How many changes the stream keeps (about 1 KB each); who is further behind compares everything."""
_CONNECTIONS = 32
_PAGE = 512
_SWEPT_AT_ONCE = 500
_ASK_AGAIN_S = 0.005


class RedisEntryStore:
    """An `EntryStore` for several replicas; with a sealer its texts and vectors are encrypted per tenant."""

    def __init__(
        self,
        client: Commands,
        clock: Clock,
        limits: StoreLimits | None = None,
        sealer: Sealer | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        most_changes: int = MOST_CHANGES,
    ) -> None:
        self._codec = EntryCodec(sealer)
        self._door = Door(client, clock, timeout_s)
        self._patient = Door(client, clock, 100 * timeout_s)
        self._clock = clock
        self._limits = limits or StoreLimits()
        self._most_changes = most_changes

    @property
    def is_away(self) -> bool:
        """Tell whether Redis failed and has not answered since."""
        return self._door.is_shut

    async def read(self, tenant: str, key: str) -> Entry | None:
        """Return a live entry; see `EntryStore.read`. None while Redis is away."""
        try:
            found = await self._door.run(READ, tenant, key)
            if not found:
                return None
            entry_id, answer, vector = found
        except StoreAway:
            return None
        entry = self._codec.read_entry(tenant, answer, entry_id.decode(), vector)
        if entry is None:
            log.warning("cache entry is corrupt or sealed, treated as a miss", extra={"tenant": tenant})
            return None
        return entry if entry.expires_at_s > self._now_s() else None

    async def put(self, entry: Entry) -> tuple[str, ...]:
        """Keep `entry`; see `EntryStore.put`. While Redis is away nothing is kept."""
        label, now_s = label_of(entry), self._now_s()
        if not self._limits.admits(label) or entry.expires_at_s - now_s < 0.001:
            return (entry.entry_id,)
        try:
            gone = await self._door.run(
                PUT, entry.tenant, entry.entry_id, entry.exact_key, entry.normalised_key, label.size_bytes,
                repr(label.worth), _ms(now_s), _ms(entry.expires_at_s), self._codec.answer(entry),
                self._codec.vector(entry), self._limits.max_entries_per_tenant, self._limits.max_bytes_per_tenant,
                self._most_changes,
            )  # fmt: skip
        except StoreAway:
            return (entry.entry_id,)
        return tuple(one.decode() for one in gone)

    async def delete(self, tenant: str, entry_ids: Sequence[str]) -> int:
        """Remove entries; see `EntryStore.delete`."""
        count = 0
        try:
            for start in range(0, len(entry_ids), _PAGE):
                page = entry_ids[start : start + _PAGE]
                removed, number = await self._patient.run(DELETE, tenant, self._most_changes, *page)
                count += removed
                if removed:
                    await self._confirmed(number)
        except StoreAway as away:
            raise StoreUnavailable("the cache's store is away, try again when it is back") from away
        return count

    async def beat(self, replica: str, era: str, number: int) -> None:
        """Tell the store how far a replica has followed its changes, so that deletions can wait for it.

        Raises:
            StoreAway: it could not be told.
        """
        await self._patient.run(BEAT, replica, era, number)

    async def leave(self, replica: str) -> None:
        """Say that a replica ends, so that no deletion waits for it; nothing while the store is away."""
        with contextlib.suppress(StoreAway):
            await self._door.ask("HDEL", f"{ROOT}replicas", replica)

    async def _confirmed(self, number: int) -> None:
        """Wait until no replica is behind a change that told of itself lately; the silent ones drop their copies.

        Raises:
            StoreAway: Redis is away, or a replica goes on without coming to the change.
        """
        try:
            async with asyncio.timeout(2 * LEASE_S):
                while await self._patient.run(BEHIND, number, int(LEASE_S * 1000)):  # noqa: ASYNC110 - others' doing
                    await asyncio.sleep(_ASK_AGAIN_S)
        except TimeoutError as late:
            raise StoreAway from late

    async def live(self) -> AsyncIterator[Sequence[StoredVector]]:
        """Yield live vectors in batches; see `EntryStore.live`.

        Raises:
            StoreUnavailable: Redis is away, perhaps in the middle.
        """
        try:
            for tenant in sorted(one.decode() for one in await self._patient.ask("SMEMBERS", f"{ROOT}tenants")):
                cursor: Any = 0
                while cursor is not None:
                    cursor, found = await self._patient.ask(
                        "HSCAN", f"{ROOT}t:{tenant}:vectors", cursor, "COUNT", _PAGE
                    )
                    cursor = cursor if int(cursor) else None
                    yield [one for key, value in pairs_of(found) if (one := self.vector_of(tenant, key, value))]
        except StoreAway as away:
            raise StoreUnavailable("the cache's store is away") from away

    async def sweep(self) -> int:
        """Forget expired entries of all tenants everywhere and return how many; 0 while Redis is away."""
        count, now_ms = 0, _ms(self._now_s())
        try:
            for tenant in await self._patient.ask("SMEMBERS", f"{ROOT}tenants"):
                last = _SWEPT_AT_ONCE
                while last == _SWEPT_AT_ONCE:
                    last = await self._patient.run(SWEEP, tenant, now_ms, _SWEPT_AT_ONCE, self._most_changes)
                    count += last
        except StoreAway:
            return count
        return count

    def vector_of(self, tenant: str, entry_id: str, piece: bytes) -> StoredVector | None:
        """Read a vector as it stands in Redis and in the stream; None when it is damaged, sealed or expired."""
        placed = self._codec.read_vector(tenant, entry_id, piece)
        if placed is None:
            log.warning("cached vector is corrupt or sealed, left out of the index", extra={"entry_id": entry_id})
            return None
        scope, encoder, expires_at_s, vector = placed
        return StoredVector(entry_id, scope, encoder, vector) if expires_at_s > self._now_s() else None

    async def close(self) -> None:
        """Let go; the client belongs to whoever made it."""

    def _now_s(self) -> float:
        return self._clock.now().timestamp()


def connect(url: str, timeout_s: float = TIMEOUT_S) -> Redis:
    """Return redis-py's client with a bounded pool, waiting briefly and trying twice at once."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 1),
    )
    return Redis.from_pool(pool)


def _ms(moment_s: float) -> int:
    return int(moment_s * 1000)
