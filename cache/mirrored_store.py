"""The shared store with copies in this process behind it, which answer exact look-ups while it is away."""

from collections.abc import AsyncIterator, Sequence

from cache.entry_store import StoredVector
from cache.local_copies import LocalCopies
from cache.redis_store import RedisEntryStore
from core.cached import Entry


class MirroredStore:
    """An `EntryStore`: Redis is the truth whenever it answers; what is made in its absence stays in this process."""

    def __init__(self, inner: RedisEntryStore, copies: LocalCopies) -> None:
        self._inner = inner
        self._copies = copies

    async def read(self, tenant: str, key: str) -> Entry | None:
        """Return a live entry; see `EntryStore.read`. While Redis is away, a copy found by an exact key."""
        entry = await self._inner.read(tenant, key)
        if entry is not None:
            self._copies.found()
            self._copies.keep(entry)
        elif self._inner.is_away:
            self._copies.lost()
            return self._copies.find(tenant, key)
        else:
            self._copies.found()
            self._copies.drop_key(tenant, key)
        return entry

    async def put(self, entry: Entry) -> tuple[str, ...]:
        """Keep `entry`; see `EntryStore.put`. While Redis is away only a copy is kept, which no index knows."""
        gone = await self._inner.put(entry)
        if self._inner.is_away:
            self._copies.lost()
        else:
            self._copies.found()
            self._copies.drop(gone)
        self._copies.keep(entry)
        return gone

    async def delete(self, tenant: str, entry_ids: Sequence[str]) -> int:
        """Remove entries; see `EntryStore.delete`. The copies of this process go at once, whatever Redis says."""
        self._copies.drop(entry_ids)
        return await self._inner.delete(tenant, entry_ids)

    def live(self) -> AsyncIterator[Sequence[StoredVector]]:
        """Yield live vectors; see `EntryStore.live`."""
        return self._inner.live()

    async def close(self) -> None:
        """Forget the copies and close the store."""
        self._copies.clear()
        await self._inner.close()
