"""Cache entries in SQLite: write-ahead log, one writer thread with group commit, reads by primary key.

What is found without reading (keys, sizes, expiry) is kept in memory, so a miss touches no disk; a read is one row of a
local file (some 20 µs, less than a hop to another thread). A crash loses at most what the writer had not committed: a
later miss. A row that does not match its checksum is a miss and a warning. When the writer cannot keep up or the disk
fails, new entries are dropped with a warning: the cache fails open.
"""

import asyncio
import hashlib
import logging
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np

from cache.entry_store import Label, Shelf, StoredVector, StoreLimits, label_of
from core.cached import CachedAnswer, Entry
from core.clock import Clock
from core.errors import ConfigurationError

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
)
SCHEMA_VERSION = len(_MIGRATIONS)
_COLUMNS = (
    "entry_id, tenant, scope, exact_key, normalised_key, prompt, vector, encoder, answer, created_at_s, expires_at_s"
)
_INSERT = f"INSERT OR REPLACE INTO cache_entries ({_COLUMNS}, size_bytes, checksum) VALUES ({'?,' * 12}?)"  # noqa: S608
_SELECT = f"SELECT {_COLUMNS}, checksum FROM cache_entries"  # noqa: S608
_BATCH = 256
_MAX_WAITING = 4_096
_decode_answer = msgspec.json.Decoder(CachedAnswer).decode

Row = tuple[str, str, str, str, str, str, bytes | None, str, bytes, float, float]


class SqliteEntryStore:
    """An `EntryStore` in one file, for one process.

    Raises:
        ConfigurationError: the file was written by a newer version, or cannot be opened.
    """

    def __init__(self, path: Path, clock: Clock, limits: StoreLimits | None = None) -> None:
        self._path = path
        self._clock = clock
        self._shelf = Shelf(limits or StoreLimits())
        self._pending: dict[str, Entry] = {}
        self._lock = threading.Lock()
        self._queue: queue.Queue[Entry | str | None] = queue.Queue()
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
        if not self._shelf.admits(label) or self._queue.qsize() >= _MAX_WAITING:
            return (entry.entry_id,)
        gone = [old.entry_id for old in self._shelf.put(label, self._now_s())]
        with self._lock:
            self._pending[entry.entry_id] = entry
            for entry_id in gone:
                self._pending.pop(entry_id, None)
        self._enqueue([entry, *gone])
        return tuple(gone)

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
                entries = [entry for row in rows if (entry := _entry_from(row)) is not None]
                yield [
                    StoredVector(entry.entry_id, entry.scope, entry.encoder, entry.vector)
                    for entry in entries
                    if entry.vector is not None and self._shelf.find(entry.tenant, entry.entry_id) is not None
                ]

    async def close(self) -> None:
        """Commit what waits and close the file."""
        self._queue.put(None)
        self._writer.join(30.0)
        self._reader.close()

    def _fetch(self, entry_id: str) -> Entry | None:
        try:
            row = self._reader.execute(f"{_SELECT} WHERE entry_id = ?", (entry_id,)).fetchone()
        except sqlite3.Error as problem:
            log.warning("cache file cannot be read", extra={"error": str(problem)})
            return None
        return None if row is None else _entry_from(row)

    def _drop(self, label: Label) -> bool:
        with self._lock:
            self._pending.pop(label.entry_id, None)
        self._enqueue([label.entry_id])
        return self._shelf.remove(label)

    def _enqueue(self, changes: Iterable[Entry | str]) -> None:
        for change in changes:
            self._queue.put(change)

    def _load_labels(self) -> None:
        rows = self._reader.execute(
            "SELECT entry_id, tenant, exact_key, normalised_key, size_bytes, expires_at_s FROM cache_entries"
            " ORDER BY created_at_s"
        )
        gone = [old for row in rows for old in self._shelf.put(Label(*row), self._now_s())]
        self._reader.executemany("DELETE FROM cache_entries WHERE entry_id = ?", [(old.entry_id,) for old in gone])
        self._reader.commit()

    def _write(self) -> None:
        with closing(_open(self._path)) as database:
            while True:
                batch = self._next_batch()
                self._commit(database, [change for change in batch if change is not None])
                if batch[-1] is None:
                    return

    def _next_batch(self) -> list[Entry | str | None]:
        batch = [self._queue.get()]
        while batch[-1] is not None and len(batch) < _BATCH:
            try:
                batch.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return batch

    def _commit(self, database: sqlite3.Connection, batch: Sequence[Entry | str]) -> None:
        try:
            with database:
                for change in batch:
                    if isinstance(change, Entry):
                        database.execute(_INSERT, _row_with_checksum(change))
                    else:
                        database.execute("DELETE FROM cache_entries WHERE entry_id = ?", (change,))
        except (sqlite3.Error, UnicodeError) as problem:
            log.warning("cache entries were not written", extra={"error": str(problem), "entries": len(batch)})
        with self._lock:
            for change in batch:
                if isinstance(change, Entry):
                    self._pending.pop(change.entry_id, None)

    def _now_s(self) -> float:
        return self._clock.now().timestamp()


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
    query = f"{_SELECT} WHERE entry_id > ? ORDER BY entry_id LIMIT {_BATCH}"
    return database.execute(query, (last,)).fetchall()


def _row(entry: Entry) -> Row:
    vector = None if entry.vector is None else entry.vector.astype(np.float16).tobytes()
    return (
        entry.entry_id,
        entry.tenant,
        entry.scope,
        entry.exact_key,
        entry.normalised_key,
        entry.prompt,
        vector,
        entry.encoder,
        msgspec.json.encode(entry.answer),
        entry.created_at_s,
        entry.expires_at_s,
    )


def _row_with_checksum(entry: Entry) -> tuple[object, ...]:
    row = _row(entry)
    return (*row, label_of(entry).size_bytes, _checksum(row))


def _checksum(row: Row) -> bytes:
    return hashlib.blake2b(repr(row).encode("utf-8", "backslashreplace"), digest_size=16).digest()


def _entry_from(row: tuple[object, ...]) -> Entry | None:
    """Rebuild an entry; None when the row does not match its checksum."""
    columns: Row = row[:-1]  # type: ignore[assignment]
    if _checksum(columns) != row[-1]:
        return None
    (
        entry_id,
        tenant,
        scope,
        exact_key,
        normalised_key,
        prompt,
        packed,
        encoder,
        answer,
        created_at_s,
        expires_at_s,
    ) = columns
    return Entry(
        entry_id=entry_id,
        tenant=tenant,
        scope=scope,
        exact_key=exact_key,
        normalised_key=normalised_key,
        prompt=prompt,
        vector=None if packed is None else np.frombuffer(packed, dtype=np.float16).astype(np.float32),
        encoder=encoder,
        answer=_decode_answer(answer),
        created_at_s=created_at_s,
        expires_at_s=expires_at_s,
    )
