"""Which entries must go: bounds per tenant and eviction by cost saved per byte, the same in every store.

The rule is GreedyDual-Size (Cao and Irani, Cost-Aware WWW Proxy Caching Algorithms, USENIX 1997): an entry's rank is
the tenant's floor plus what a hit saves per byte; the lowest goes, and the floor rises to its rank, so that what is
read again, or came later, outlives what is not. Among equals the oldest goes. Time to live is never extended.
"""

import heapq
import itertools
from dataclasses import dataclass, field

import msgspec

from core.cached import Entry

_OVERHEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How much one tenant may keep; what saves least per byte goes first."""

    max_entries_per_tenant: int = 50_000
    max_bytes_per_tenant: int = 256 * 2**20
    max_entry_bytes: int = 2**20

    def admits(self, label: "Label") -> bool:
        """Whether an entry of this size is kept at all."""
        return label.size_bytes <= min(self.max_entry_bytes, self.max_bytes_per_tenant)


class Label(msgspec.Struct, frozen=True, gc=False):
    """What the bookkeeping knows of an entry without its contents."""

    entry_id: str
    tenant: str
    exact_key: str
    normalised_key: str
    size_bytes: int
    expires_at_s: float
    cost_nano_usd: int = 0

    @property
    def keys(self) -> tuple[str, str, str]:
        """Return all by which the entry is found."""
        return self.entry_id, self.exact_key, self.normalised_key

    @property
    def worth(self) -> float:
        """Return what a hit saves per byte, in nano-USD; an answer that cost nothing still has its place by size."""
        return (1 + self.cost_nano_usd) / self.size_bytes


@dataclass(slots=True)
class _TenantShelf:
    labels: dict[str, Label] = field(default_factory=dict)
    rank_of: dict[str, tuple[float, int]] = field(default_factory=dict)
    ranks: list[tuple[float, int, str]] = field(default_factory=list)
    ends: list[tuple[float, int, str]] = field(default_factory=list)
    floor: float = 0.0
    size_bytes: int = 0


class Shelf:
    """Bookkeeping of a store in one process: which key leads to which entry, and which entries must go."""

    def __init__(self, limits: StoreLimits) -> None:
        self._limits = limits
        self._tenants: dict[str, _TenantShelf] = {}
        self._by_key: dict[str, Label] = {}
        self._count = itertools.count()

    def find(self, tenant: str, key: str) -> Label | None:
        """Return the label that `key` leads to, when it is that tenant's."""
        label = self._by_key.get(key)
        return label if label is not None and label.tenant == tenant else None

    def ids(self, tenant: str, now_s: float) -> list[str]:
        """Return the ids of a tenant's live entries in ascending order."""
        shelf = self._tenants.get(tenant, _TenantShelf())
        return sorted(one.entry_id for one in shelf.labels.values() if one.expires_at_s > now_s)

    def tenants(self, now_s: float) -> list[str]:
        """Return the tenants that have live entries, in ascending order."""
        return sorted(
            name
            for name, shelf in self._tenants.items()
            if any(one.expires_at_s > now_s for one in shelf.labels.values())
        )

    def admits(self, label: Label) -> bool:
        """Whether an entry of this size is kept at all."""
        return self._limits.admits(label)

    def touch(self, label: Label) -> None:
        """Note that an entry was read, which lifts it above the floor again."""
        shelf = self._tenants[label.tenant]
        rank, number = shelf.rank_of[label.entry_id]
        if shelf.floor + label.worth > rank:
            self._rank(shelf, label, number)

    def put(self, label: Label, now_s: float) -> list[Label]:
        """Add `label`; return what goes: entries with the same keys, expired ones, and those of least worth."""
        shelf = self._tenants.get(label.tenant)
        if shelf is None:
            shelf = self._tenants[label.tenant] = _TenantShelf()
        keys, gone = label.keys, list[Label]()
        for key in keys:
            old = self._by_key.get(key)
            if old is not None and old not in gone:
                gone.append(old)
        for old in self._expired(shelf, now_s):
            if old not in gone:
                gone.append(old)
        for old in gone:
            self.remove(old)
        while shelf.labels and self._is_over(shelf, label):
            gone.append(self._evict(shelf))
        number = next(self._count)
        shelf.labels[label.entry_id] = label
        shelf.size_bytes += label.size_bytes
        self._rank(shelf, label, number)
        heapq.heappush(shelf.ends, (label.expires_at_s, number, label.entry_id))
        by_key = self._by_key
        for key in keys:
            by_key[key] = label
        return gone

    def remove(self, label: Label) -> bool:
        """Forget `label`; return whether it was there."""
        shelf = self._tenants.get(label.tenant)
        if shelf is None or shelf.labels.get(label.entry_id) != label:
            return False
        del shelf.labels[label.entry_id], shelf.rank_of[label.entry_id]
        shelf.size_bytes -= label.size_bytes
        for key in label.keys:
            if self._by_key.get(key) == label:
                del self._by_key[key]
        return True

    def _is_over(self, shelf: _TenantShelf, label: Label) -> bool:
        limits = self._limits
        return (
            len(shelf.labels) >= limits.max_entries_per_tenant
            or shelf.size_bytes + label.size_bytes > limits.max_bytes_per_tenant
        )

    def _evict(self, shelf: _TenantShelf) -> Label:
        while True:
            rank, number, entry_id = heapq.heappop(shelf.ranks)
            if shelf.rank_of.get(entry_id) == (rank, number):
                label = shelf.labels[entry_id]
                shelf.floor = rank
                self.remove(label)
                return label

    def _rank(self, shelf: _TenantShelf, label: Label, number: int) -> None:
        rank = shelf.floor + label.worth
        shelf.rank_of[label.entry_id] = (rank, number)
        heapq.heappush(shelf.ranks, (rank, number, label.entry_id))
        if len(shelf.ranks) > 2 * len(shelf.labels) + 64:
            shelf.ranks = [(rank, number, entry_id) for entry_id, (rank, number) in shelf.rank_of.items()]
            heapq.heapify(shelf.ranks)

    def _expired(self, shelf: _TenantShelf, now_s: float) -> list[Label]:
        ends, expired = shelf.ends, list[Label]()
        while ends and (ends[0][0] <= now_s or len(ends) > 2 * len(shelf.labels) + 64):
            ends_at_s, _, entry_id = heapq.heappop(ends)
            label = shelf.labels.get(entry_id)
            if label is not None and label.expires_at_s == ends_at_s <= now_s:
                expired.append(label)
        return expired


def label_of(entry: Entry) -> Label:
    """Make the bookkeeping's view of `entry`, with its size as kept: texts, a float16 vector and keys."""
    vector_bytes = 0 if entry.vector is None else 2 * entry.vector.size
    return Label(
        entry_id=entry.entry_id,
        tenant=entry.tenant,
        exact_key=entry.exact_key,
        normalised_key=entry.normalised_key,
        size_bytes=_utf8_bytes(entry.prompt) + _utf8_bytes(entry.answer.content) + vector_bytes + _OVERHEAD_BYTES,
        expires_at_s=entry.expires_at_s,
        cost_nano_usd=entry.answer.cost_nano_usd,
    )


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
