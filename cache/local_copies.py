"""Copies of shared entries in this process, for the exact levels alone, while the shared store does not answer.

A deletion must never be undone by a copy. So the follower drops what the stream of changes says is gone and then tells
the store how far it has come (`certify`); whoever deletes waits until every replica that told so lately has come as far
(`RedisEntryStore.delete`), or has been silent for `LEASE_S`. A replica that loses the store keeps its copies only if it
told within `LEASE_S`: every deletion that was confirmed before the loss has then reached it, or its copies are dropped.
"""

from collections import OrderedDict
from collections.abc import Iterable

from cache.shelf import label_of
from core.cached import Entry
from core.clock import Clock

LEASE_S = 3.0
_MOST_GONE = 20_000


class LocalCopies:
    """Bounded copies by exact and normalised key, least recently used first out; used from the event loop only."""

    def __init__(self, clock: Clock, *, most_entries: int = 2_000, most_bytes: int = 32 * 2**20) -> None:
        self._clock = clock
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._entries: OrderedDict[str, tuple[Entry, int]] = OrderedDict()
        self._ids: dict[tuple[str, str], str] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._size_bytes = 0
        self._certified_s = float("-inf")
        self._is_lost = False

    def keep(self, entry: Entry) -> None:
        """Keep a copy, unless the entry is known to be gone: its deletion may overtake the answer to a read."""
        if entry.entry_id in self._gone:
            return
        self._forget(entry.entry_id)
        for key in (entry.exact_key, entry.normalised_key):
            self._forget(self._ids.get((entry.tenant, key), ""))
            self._ids[entry.tenant, key] = entry.entry_id
        size_bytes = label_of(entry).size_bytes
        self._entries[entry.entry_id] = (entry, size_bytes)
        self._size_bytes += size_bytes
        while len(self._entries) > self._most_entries or self._size_bytes > self._most_bytes:
            self._forget(next(iter(self._entries)))

    def find(self, tenant: str, key: str) -> Entry | None:
        """Return the live copy whose exact or normalised key is `key`; ids find nothing."""
        entry_id = self._ids.get((tenant, key))
        if entry_id is None:
            return None
        entry, _ = self._entries[entry_id]
        if entry.expires_at_s <= self._clock.now().timestamp():
            self._forget(entry_id)
            return None
        self._entries.move_to_end(entry_id)
        return entry

    def drop(self, entry_ids: Iterable[str]) -> None:
        """Forget entries for good: they were deleted, replaced or have expired."""
        for entry_id in entry_ids:
            self._forget(entry_id)
            self._gone[entry_id] = None
            if len(self._gone) > _MOST_GONE:
                self._gone.popitem(last=False)

    def drop_key(self, tenant: str, key: str) -> None:
        """Forget what the store did not have under `key`."""
        self._forget(self._ids.get((tenant, key), ""))

    def clear(self) -> None:
        """Forget everything, because changes were missed."""
        self._entries.clear()
        self._ids.clear()
        self._size_bytes = 0

    def certify(self, at_s: float) -> None:
        """Note that the store was told at `at_s` (monotonic) how far this replica has come."""
        self._certified_s = at_s
        self._is_lost = False

    def lost(self) -> None:
        """Note that the store does not answer; copies that may miss a confirmed deletion are dropped."""
        if not self._is_lost and self._clock.monotonic_s() - self._certified_s >= LEASE_S:
            self.clear()
        self._is_lost = True

    def found(self) -> None:
        """Note that the store answers."""
        self._is_lost = False

    def _forget(self, entry_id: str) -> None:
        known = self._entries.pop(entry_id, None)
        if known is None:
            return
        entry, size_bytes = known
        self._size_bytes -= size_bytes
        for key in (entry.exact_key, entry.normalised_key):
            if self._ids.get((entry.tenant, key)) == entry_id:
                del self._ids[entry.tenant, key]
