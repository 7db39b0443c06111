"""The seam to kept answers, and the in-memory twin.

An entry is found by its id, its exact key or its normalised key; all three are unique and without spaces, so one `read`
serves all.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from cache.shelf import Label, Shelf, label_of
from cache.shelf import StoreLimits as StoreLimits  # part of this seam
from core.cached import Entry, Vector
from core.clock import Clock


@dataclass(frozen=True, slots=True)
class StoredVector:
    """What an index needs of a live entry; `vector` is (d,) float32, L2-normalised."""

    entry_id: str
    scope: str
    encoder: str
    vector: Vector


class StoreUnavailable(Exception):
    """The store did not answer and what was asked has perhaps not been done; only `EntryStore.delete` raises it."""


class EntryStore(Protocol):
    """Keeps answers, bounded by entries, bytes and age; the index is derived from it.

    A store that is away reads as empty and keeps nothing new; that is told once in the log.
    """

    async def read(self, tenant: str, key: str) -> Entry | None:
        """Return the tenant's live entry whose id, exact key or normalised key is `key`."""
        ...

    async def put(self, entry: Entry) -> tuple[str, ...]:
        """Keep `entry` in place of one with the same normalised key; return the ids of all entries that had to go."""
        ...

    async def delete(self, tenant: str, entry_ids: Sequence[str]) -> int:
        """Remove entries of that tenant and return how many there were.

        Raises:
            StoreUnavailable: the store is away; the entries may still be served when it is back.
        """
        ...

    def live(self) -> AsyncIterator[Sequence[StoredVector]]:
        """Yield the vectors of all live entries in batches, from which an index is rebuilt."""
        ...

    async def close(self) -> None:
        """Finish what was begun and let go of all resources."""
        ...


class MemoryEntryStore:
    """An `EntryStore` that forgets everything with the process."""

    def __init__(self, clock: Clock, limits: StoreLimits | None = None) -> None:
        self._clock = clock
        self._shelf = Shelf(limits or StoreLimits())
        self._entries: dict[str, Entry] = {}

    async def read(self, tenant: str, key: str) -> Entry | None:
        """Return a live entry; see `EntryStore.read`."""
        label = self._shelf.find(tenant, key)
        if label is None:
            return None
        if label.expires_at_s <= self._now_s():
            self._drop(label)
            return None
        self._shelf.touch(label)
        return self._entries[label.entry_id]

    async def put(self, entry: Entry) -> tuple[str, ...]:
        """Keep `entry`; see `EntryStore.put`."""
        label = label_of(entry)
        if not self._shelf.admits(label):
            return (entry.entry_id,)
        gone = [old.entry_id for old in self._shelf.put(label, self._now_s())]
        for entry_id in gone:
            self._entries.pop(entry_id, None)
        self._entries[entry.entry_id] = entry
        return tuple(gone)

    async def delete(self, tenant: str, entry_ids: Sequence[str]) -> int:
        """Remove entries; see `EntryStore.delete`."""
        labels = [self._shelf.find(tenant, entry_id) for entry_id in entry_ids]
        return sum(self._drop(label) for label in labels if label is not None)

    async def live(self) -> AsyncIterator[Sequence[StoredVector]]:
        """Yield all live vectors in one batch; see `EntryStore.live`."""
        now_s = self._now_s()
        yield [
            StoredVector(entry.entry_id, entry.scope, entry.encoder, entry.vector)
            for entry in self._entries.values()
            if entry.vector is not None and entry.expires_at_s > now_s
        ]

    async def close(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def _drop(self, label: Label) -> bool:
        self._entries.pop(label.entry_id, None)
        return self._shelf.remove(label)

    def _now_s(self) -> float:
        return self._clock.now().timestamp()
