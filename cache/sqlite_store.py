"""Cache entries in SQLite: write-ahead log, one writer thread with group commit, reads by primary key.

What is found without reading (keys, sizes, expiry) is kept in memory, so a miss touches no disk; a read is one row of a
local file (some 20 µs, less than a hop to another thread). A crash loses at most what the writer had not committed: a
later miss. A row that does not match its checksum is a miss and a warning. When the writer cannot keep up or the disk
fails, new entries are dropped with a warning: the cache fails open.
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from cache.entry_store import StoredVector
from cache.sealing import Sealer
from cache.shelf import Label, Shelf, StoreLimits, label_of
from cache.sqlite_rows import INSERT, SELECT, RowCodec
from core.cached import Entry
from core.clock import Clock
from core.errors import ConfigurationError
from core.hand_over import HandOver

log = logging.getLogger(__name__)

_MIGRATIONS = (
    """
    CREATE TABLE cache_entries (
        entry_id TEXT PRIMARY KEY, tenant TEXT NOT NULL, scope TEXT NOT NULL, exact_key TEXT NOT NULL,
        normalised_key TEXT NOT NULL, prompt TEXT NOT NULL, vector BLOB, encoder TEXT NOT NULL, answer BLOB NOT NULL,
        created_at_s REAL NOT NULL, expires_at_s REAL NOT NULL, size_bytes INTEGER NOT NULL, checksum BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX cache_entries_by_expiry ON cache_entries (expires_at_s);
    """,
    """
    ALTER TABLE cache_entries ADD COLUMN cost_nano_usd INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE cache_entries ADD COLUMN is_sealed INTEGER NOT NULL DEFAULT 0;
    UPDATE cache_entries SET cost_nano_usd = coalesce(json_extract(CAST(answer AS TEXT), '$.cost_nano_usd'), 0)
        WHERE json_valid(CAST(answer AS TEXT));
    """,
    "ALTER TABLE cache_entries ADD COLUMN tags TEXT NOT NULL DEFAULT '';",
    "",  # rows have shorter checksums from here on, which older versions take for damage
)
SCHEMA_VERSION = len(_MIGRATIONS)
_BATCH = 256
_GATHER_S = 0.05
_MAX_WAITING = 4_096


class SqliteEntryStore:
    """An `EntryStore` in one file, for one process; with a sealer its texts and vectors are encrypted per tenant.

    Raises:
        ConfigurationError: the file was written by a newer version, or cannot be opened.
    """

    def __init__(
        self, path: Path, clock: Clock, limits: StoreLimits | None = None, sealer: Sealer | None = None
    ) -> None:
        self._path = path
        self._codec = RowCodec(sealer)
        self._clock = clock
        self._shelf = Shelf(limits or StoreLimits())
        self._pending: dict[str, Entry] = {}
        self._lock = threading.Lock()
        self._queue: HandOver[Entry | str] = HandOver(_GATHER_S, _BATCH)
        self._reader = _open(path)
        _migrate(path, self._reader)
        self._reader.execute("DELETE FROM cache_entries WHERE expires_at_s <= ?", (self._now_s(),))
        self._reader.commit()
        self._load_labels()
        self._writer = threading.Thread(target=self._write, name="headgate-cache-writer", daemon=True)
        self._writer.start()

    async def read(self, tenant: str, key: str) -> Entry | None:
        """Return a live entry; see `EntryStore.read`."""
        label = self._shelf.find(tenant, key)
        if label is None:
            return None
        if label.expires_at_s <= self._now_s():
            self._drop(label)
            return None
        with self._lock:
            pending = self._pending.get(label.entry_id)
        self._shelf.touch(label)
        if pending is not None:
            return pending
        entry = self._fetch(label.entry_id)
        if entry is None or entry.tenant != tenant:
            log.warning("cache entry is missing or corrupt, treated as a miss", extra={"entry_id": label.entry_id})
            self._drop(label)
            return None
        return entry

    async def put(self, entry: Entry) -> tuple[str, ...]:
        """Keep `entry`; see `EntryStore.put`."""
        label = label_of(entry)
        if not self._shelf.admits(label) or len(self._queue) >= _MAX_WAITING:
            return (entry.entry_id,)
        replaced = self._shelf.put(label, self._now_s())
        with self._lock:
            self._pending[entry.entry_id] = entry
            for old in replaced:
                self._pending.pop(old.entry_id, None)
        self._queue.put(entry)
        if not replaced:
            return ()
        gone = tuple([old.entry_id for old in replaced])
        for entry_id in gone:
            self._queue.put(entry_id)
        return gone

    async def delete(self, tenant: str, entry_ids: Sequence[str]) -> int:
        """Remove entries; see `EntryStore.delete`."""
        labels = [self._shelf.find(tenant, entry_id) for entry_id in entry_ids]
        return sum(self._drop(label) for label in labels if label is not None)

    async def live(self) -> AsyncIterator[Sequence[StoredVector]]:
        """Yield live vectors in batches; see `EntryStore.live`."""
        last = ""
        with closing(_open(self._path)) as database:
            while rows := await asyncio.to_thread(_page, database, last):
                last = rows[-1][0]
                entries = [entry for row in rows if (entry := self._codec.entry(row)) is not None]
                yield [
                    StoredVector(entry.entry_id, entry.scope, entry.encoder, entry.vector)
                    for entry in entries
                    if entry.vector is not None and self._shelf.find(entry.tenant, entry.entry_id) is not None
                ]

    async def ids(self, tenant: str) -> list[str]:
        """Return ids; see `Catalogue.ids`."""
        return self._shelf.ids(tenant, self._now_s())

    async def tenants(self) -> list[str]:
        """Return tenants; see `Catalogue.tenants`."""
        return self._shelf.tenants(self._now_s())

    async def close(self) -> None:
        """Commit what waits and close the file."""
        self._queue.close()
        self._writer.join(30.0)
        self._reader.close()

    def _fetch(self, entry_id: str) -> Entry | None:
        try:
            row = self._reader.execute(f"{SELECT} WHERE entry_id = ?", (entry_id,)).fetchone()
        except sqlite3.Error as problem:
            log.warning("cache file cannot be read", extra={"error": str(problem)})
            return None
        return None if row is None else self._codec.entry(row)

    def _drop(self, label: Label) -> bool:
        with self._lock:
            self._pending.pop(label.entry_id, None)
        self._queue.put(label.entry_id)
        return self._shelf.remove(label)

    def _load_labels(self) -> None:
        rows = self._reader.execute(
            "SELECT entry_id, tenant, exact_key, normalised_key, size_bytes, expires_at_s, cost_nano_usd"
            " FROM cache_entries"
            " ORDER BY created_at_s"
        )
        gone = [old for row in rows for old in self._shelf.put(Label(*row), self._now_s())]
        self._reader.executemany("DELETE FROM cache_entries WHERE entry_id = ?", [(old.entry_id,) for old in gone])
        self._reader.commit()

    def _write(self) -> None:
        with closing(_open(self._path)) as database:
            is_open = True
            while is_open:
                batch, is_open = self._queue.take()
                self._commit(database, batch)

    def _commit(self, database: sqlite3.Connection, batch: Sequence[Entry | str]) -> None:
        kept = [change for change in batch if isinstance(change, Entry)]
        gone = [(change,) for change in batch if not isinstance(change, Entry)]
        try:
            with database:
                database.executemany(INSERT, self._rows(kept))
                if gone:
                    database.executemany("DELETE FROM cache_entries WHERE entry_id = ?", gone)
        except (sqlite3.Error, UnicodeError, OSError) as problem:
            log.warning("cache entries were not written", extra={"error": str(problem), "entries": len(batch)})
        with self._lock:
            for entry in kept:
                self._pending.pop(entry.entry_id, None)

    def _rows(self, entries: Sequence[Entry]) -> Iterator[tuple[object, ...]]:
        """Yield the rows of entries, sealed, without those that were removed meanwhile.

        Each under the lock, so that once a tenant's entries are removed nothing is sealed for it any more: a key that
        is destroyed after that does not come back.
        """
        for entry in entries:
            with self._lock:
                row = self._codec.row(entry) if entry.entry_id in self._pending else None
            if row is not None:
                yield row

    def _now_s(self) -> float:
        return self._clock.unix_s()


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
    except (OSError, sqlite3.Error) as problem:
        raise ConfigurationError(
            str(path),
            "",
            f"the cache's file cannot be opened ({problem})",
            "check the path and its rights, or remove it",
        ) from problem
    return database


def _migrate(path: Path, database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE IF NOT EXISTS cache_schema (version INTEGER NOT NULL)")
    row = database.execute("SELECT version FROM cache_schema").fetchone()
    found = 0 if row is None else int(row[0])
    if found > SCHEMA_VERSION:
        raise ConfigurationError(
            str(path),
            "",
            f"the cache has schema version {found}, this Headgate knows {SCHEMA_VERSION}",
            "upgrade Headgate or remove the file",
        )
    if found == SCHEMA_VERSION:
        return
    for version in range(found + 1, SCHEMA_VERSION + 1):
        database.executescript(
            f"BEGIN IMMEDIATE; {_MIGRATIONS[version - 1]} DELETE FROM cache_schema;"  # noqa: S608
            f" INSERT INTO cache_schema VALUES ({version}); COMMIT;"
        )
    if found:
        log.info("cache schema migrated", extra={"from": found, "to": SCHEMA_VERSION})


def _page(database: sqlite3.Connection, last: str) -> list[tuple[str, *tuple[object, ...]]]:
    query = f"{SELECT} WHERE entry_id > ? ORDER BY entry_id LIMIT {_BATCH}"
    return database.execute(query, (last,)).fetchall()
