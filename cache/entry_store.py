"""The seam to kept answers, the bookkeeping that bounds them, and the in-memory twin.

An entry is found by its id, its exact key or its normalised key; all three are unique hashes, so one `read` serves all.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from core.cached import Entry, Vector
from core.clock import Clock

_OVERHEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How much one tenant may keep; the oldest entries go first."""

    max_entries_per_tenant: int = 50_000
    max_bytes_per_tenant: int = 256 * 2**20
    max_entry_bytes: int = 2**20


@dataclass(frozen=True, slots=True)
class StoredVector:
    """What an index needs of a live entry; `vector` is (d,) float32, L2-normalised."""

    entry_id: str
    scope: str
    encoder: str
    vector: Vector


class EntryStore(Protocol):
    """Keeps answers, bounded by entries, bytes and age; the index is derived from it."""

    async def read(self, tenant: str, key: str) -> Entry | None:
        """Return the tenant's live entry whose id, exact key or normalised key is `key`."""
        ...

    async def put(self, entry: Entry) -> tuple[str, ...]:
        """Keep `entry` in place of one with the same normalised key; return the ids of all entries that had to go."""
        ...

    async def delete(self, tenant: str, entry_ids: Sequence[str]) -> int:
        """Remove entries of that tenant and return how many there were."""
        ...

    def live(self) -> AsyncIterator[Sequence[StoredVector]]:
        """Yield the vectors of all live entries in batches, from which an index is rebuilt."""
        ...

    async def close(self) -> None:
        """Finish what was begun and let go of all resources."""
        ...


@dataclass(frozen=True, slots=True)
class Label:
    """What the bookkeeping knows of an entry without its contents."""

    entry_id: str
    tenant: str
    exact_key: str
    normalised_key: str
    size_bytes: int
    expires_at_s: float


@dataclass(slots=True)
class _TenantShelf:
    labels: OrderedDict[str, Label] = field(default_factory=OrderedDict)
    size_bytes: int = 0


class Shelf:
    """Bookkeeping of a store in one process: which key leads to which entry, and which entries must go."""

    def __init__(self, limits: StoreLimits) -> None:
        self._limits = limits
        self._tenants: dict[str, _TenantShelf] = {}
        self._by_key: dict[str, Label] = {}

    def find(self, tenant: str, key: str) -> Label | None:
        """Return the label that `key` leads to, when it is that tenant's."""
        label = self._by_key.get(key)
        return label if label is not None and label.tenant == tenant else None

    def admits(self, label: Label) -> bool:
        """Whether an entry of this size is kept at all."""
        return label.size_bytes <= min(self._limits.max_entry_bytes, self._limits.max_bytes_per_tenant)

    def put(self, label: Label, now_s: float) -> list[Label]:
        """Add `label`; return what goes: entries with the same keys, expired ones at the old end, and the oldest."""
        gone = [self._by_key[key] for key in _keys(label) if key in self._by_key]
        for old in gone:
            self.remove(old)
        shelf = self._tenants.setdefault(label.tenant, _TenantShelf())
        shelf.labels[label.entry_id] = label
        shelf.size_bytes += label.size_bytes
        for key in _keys(label):
            self._by_key[key] = label
        while self._is_over(shelf) or next(iter(shelf.labels.values())).expires_at_s <= now_s:
            oldest = next(iter(shelf.labels.values()))
            if oldest is label:
                break
            self.remove(oldest)
            gone.append(oldest)
        return list({old.entry_id: old for old in gone}.values())

    def remove(self, label: Label) -> bool:
        """Forget `label`; return whether it was there."""
        shelf = self._tenants.get(label.tenant)
        if shelf is None or shelf.labels.pop(label.entry_id, None) is None:
            return False
        shelf.size_bytes -= label.size_bytes
        for key in _keys(label):
            if self._by_key.get(key) == label:
                del self._by_key[key]
        return True

    def _is_over(self, shelf: _TenantShelf) -> bool:
        limits = self._limits
        return len(shelf.labels) > limits.max_entries_per_tenant or shelf.size_bytes > limits.max_bytes_per_tenant


def label_of(entry: Entry) -> Label:
    """Make the bookkeeping's view of `entry`, with its size as kept: texts, a float16 vector and keys."""
    vector_bytes = 0 if entry.vector is None else 2 * entry.vector.size
    texts = len(entry.prompt.encode("utf-8", "surrogatepass")) + len(
        entry.answer.content.encode("utf-8", "surrogatepass")
    )
    return Label(
        entry_id=entry.entry_id,
        tenant=entry.tenant,
        exact_key=entry.exact_key,
        normalised_key=entry.normalised_key,
        size_bytes=texts + vector_bytes + _OVERHEAD_BYTES,
        expires_at_s=entry.expires_at_s,
    )


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


def _keys(label: Label) -> tuple[str, str, str]:
    return label.entry_id, label.exact_key, label.normalised_key
