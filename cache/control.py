"""Control a running cache: look, invalidate by entry, tag, model or age, flush, forget a tenant, export and import.

Removal goes through the store, which is the truth and tells the other replicas. Exported entries hold texts and keyed
hashes: they fit only where the same secret keys the fingerprints, and import checks nothing but form, tenant and age.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from cache.catalogue import Catalogue
from cache.entry_store import EntryStore
from cache.sealing import Sealer
from cache.semantic_cache import SemanticCache
from core.cached import CachedAnswer, Entry
from core.clock import Clock

_PAGE = 256


@dataclass(frozen=True, slots=True)
class Selector:
    """Which of a tenant's entries are meant; all conditions must hold, and without any all are meant.

    `model` is what answered (its name), the deployment, or the tier; `older_than_s` is the age in seconds; `tag` is one
    that the request gave which made the entry.
    """

    entry_ids: frozenset[str] = frozenset()
    model: str | None = None
    older_than_s: float | None = None
    tag: str | None = None

    @property
    def is_everything(self) -> bool:
        """Whether no condition was given."""
        return not self.entry_ids and (self.model, self.older_than_s, self.tag) == (None, None, None)

    def matches(self, entry: Entry, now_s: float) -> bool:
        """Whether an entry is meant."""
        if self.entry_ids and entry.entry_id not in self.entry_ids:
            return False
        answer = entry.answer
        if self.model not in (None, answer.response_model, answer.deployment, answer.tier):
            return False
        if self.tag is not None and self.tag not in entry.tags:
            return False
        return self.older_than_s is None or now_s - entry.created_at_s > self.older_than_s


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How many entries went with a tenant, and whether there was a key that opened them."""

    entries: int
    is_key_shredded: bool


class ExportedEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry as a line of an export; `vector` is float16 in base64, little-endian, or None."""

    entry_id: str
    tenant: str
    scope: str
    exact_key: str
    normalised_key: str
    prompt: str
    vector: str | None
    encoder: str
    answer: CachedAnswer
    created_at_s: float
    expires_at_s: float
    tags: tuple[str, ...] = ()


class CacheControl:
    """What an administrator may do with the entries of one gateway's cache."""

    def __init__(
        self,
        cache: SemanticCache,
        store: EntryStore,
        catalogue: Catalogue,
        clock: Clock,
        sealer: Sealer | None = None,
        index_place: str = "",
    ) -> None:
        self._sealer = sealer
        self.index_place = index_place
        self._cache = cache
        self._store = store
        self._catalogue = catalogue
        self._clock = clock

    @property
    def cache(self) -> SemanticCache:
        """Return the cache under control."""
        return self._cache

    async def tenants(self) -> list[str]:
        """Return the tenants that have entries; raises OSError when the store cannot be read."""
        return await self._catalogue.tenants()

    async def count(self, tenant: str) -> int:
        """Return how many entries a tenant has; raises OSError when the store cannot be read."""
        return len(await self._catalogue.ids(tenant))

    async def invalidate(self, tenant: str, selector: Selector, *, dry_run: bool = False) -> list[str]:
        """Remove a tenant's entries that are meant, or only say which they are; return their ids.

        Raises:
            OSError: the store cannot be read; nothing was removed.
            StoreUnavailable: the store went away; some may be left.
        """
        if selector.is_everything:
            found = await self._catalogue.ids(tenant)
        else:
            now_s = self._clock.now().timestamp()
            found = [one.entry_id async for one in self._entries(tenant, selector) if selector.matches(one, now_s)]
        if not dry_run:
            for start in range(0, len(found), _PAGE):
                await self._cache.remove(tenant, found[start : start + _PAGE])
                await asyncio.sleep(0)
        return found

    async def forget(self, tenant: str) -> Forgotten:
        """Remove all that the cache has of a tenant: evidence, entries, and its key, so that no copy can be read.

        The key goes last, since an entry that still waited to be written would make a new one, and it goes whatever
        became of the entries.

        Raises:
            OSError: the store cannot be read, or the key not be removed; what was done stays done, so do it again.
            StoreUnavailable: the store went away; entries may be left, which nobody can read if they were encrypted.
        """
        self._cache.verification.forget(tenant)
        try:
            removed = await self.invalidate(tenant, Selector())
        finally:
            is_shredded = self._sealer is not None and await asyncio.to_thread(self._sealer.shred, tenant)
        return Forgotten(len(removed), is_shredded)

    async def export(self, tenant: str, after: str, most: int) -> tuple[list[ExportedEntry], str | None]:
        """Return up to `most` entries with ids above `after`, and the id to go on after, None at the end.

        Raises:
            OSError: the store cannot be read.
        """
        ids = [one for one in await self._catalogue.ids(tenant) if one > after]
        page = ids[:most]
        entries = [one for entry_id in page if (one := await self._store.read(tenant, entry_id)) is not None]
        return [exported(one) for one in entries], page[-1] if len(ids) > most else None

    async def take_over(self, tenant: str, entries: Sequence[ExportedEntry]) -> int:
        """Keep exported entries of that tenant which have not expired; return how many were kept.

        Raises:
            ValueError: an entry is another tenant's, or its vector is none; nothing was kept.
        """
        now_s = self._clock.now().timestamp()
        taken = [imported(one, tenant) for one in entries]
        kept = 0
        for entry in taken:
            if entry.expires_at_s > now_s and entry.created_at_s <= now_s:
                kept += await self._cache.keep(entry)
        return kept

    async def _entries(self, tenant: str, selector: Selector) -> AsyncIterator[Entry]:
        """Yield the entries that may be meant; named ones are read directly."""
        ids = sorted(selector.entry_ids) if selector.entry_ids else await self._catalogue.ids(tenant)
        for number, entry_id in enumerate(ids):
            entry = await self._store.read(tenant, entry_id)
            if entry is not None and entry.tenant == tenant:
                yield entry
            if number % _PAGE == _PAGE - 1:
                await asyncio.sleep(0)


def exported(entry: Entry) -> ExportedEntry:
    """Turn an entry into a line of an export."""
    vector = None if entry.vector is None else base64.b64encode(entry.vector.astype("<f2").tobytes()).decode()
    names = [name for name in ExportedEntry.__struct_fields__ if name != "vector"]
    return ExportedEntry(vector=vector, **{name: getattr(entry, name) for name in names})


def imported(line: ExportedEntry, tenant: str) -> Entry:
    """Turn a line of an export into an entry of that tenant.

    Raises:
        ValueError: it is another tenant's, or its vector is none.
    """
    if line.tenant != tenant:
        raise ValueError(f"entry {line.entry_id[:40]!r} belongs to another tenant")
    vector = None
    if line.vector is not None:
        vector = np.frombuffer(base64.b64decode(line.vector, validate=True), dtype="<f2").astype(np.float32)
        length = float(np.linalg.norm(vector)) if vector.size else 0.0
        if not 0.9 < length < 1.1:
            raise ValueError(f"entry {line.entry_id[:40]!r} has no unit vector")
    names = [name for name in ExportedEntry.__struct_fields__ if name != "vector"]
    return Entry(vector=vector, **{name: getattr(line, name) for name in names})
