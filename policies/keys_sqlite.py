"""API keys in SQLite, shared by the gateway and the commands that create and revoke them."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import msgspec

from core.errors import Unavailable
from policies.keys import KeyRecord, Role
from policies.sqlite_schema import open_database

COMPONENT = "keys"
MIGRATIONS = (
    """
    CREATE TABLE api_keys (
        key_id TEXT PRIMARY KEY, tenant TEXT NOT NULL, digest BLOB NOT NULL, allowed_models TEXT NOT NULL,
        created_at TEXT NOT NULL, expires_at TEXT, revoked_at TEXT) WITHOUT ROWID;
    CREATE INDEX api_keys_by_tenant ON api_keys (tenant);
    CREATE TABLE api_keys_revision (revision INTEGER NOT NULL);
    INSERT INTO api_keys_revision VALUES (0)
    """,
    """
    ALTER TABLE api_keys ADD COLUMN allowed_tiers TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE api_keys ADD COLUMN allowed_users TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE api_keys ADD COLUMN role TEXT;
    ALTER TABLE api_keys ADD COLUMN replaced_by TEXT
    """,
)
_COLUMNS = (
    "key_id, tenant, digest, allowed_models, created_at, expires_at, revoked_at, "
    "allowed_tiers, allowed_users, role, replaced_by"
)
_INSERT = f"INSERT OR REPLACE INTO api_keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  constants
_SELECT = f"SELECT {_COLUMNS} FROM api_keys"  # noqa: S608  a constant


class SqliteKeyStore:
    """A `KeyStore` on a file; every change is committed before the call returns.

    Threads take turns, and a writer may wait for another process: who must not wait opens a store of its own.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file; raises ConfigurationError when it cannot be used."""
        self._connection = open_database(path, COMPONENT, MIGRATIONS)
        self._turn = threading.RLock()

    def put(self, record: KeyRecord) -> None:
        """Add or replace a record."""
        with self._change() as connection:
            _write(connection, record)

    def get(self, key_id: str) -> KeyRecord | None:
        """Return a record, or None."""
        found = self._select("WHERE key_id = ?", (key_id,))
        return found[0] if found else None

    def update(self, key_id: str, change: Callable[[KeyRecord], KeyRecord | None]) -> KeyRecord | None:
        """Replace a record by `change` of it; no other process writes in between."""
        with self._change() as connection:
            found = self._select("WHERE key_id = ?", (key_id,))
            changed = change(found[0]) if found else None
            if changed is not None:
                _write(connection, changed)
        return changed

    def records(self, tenant: str | None = None) -> tuple[KeyRecord, ...]:
        """Return records, oldest first."""
        if tenant is None:
            return self._select("ORDER BY created_at, key_id", ())
        return self._select("WHERE tenant = ? ORDER BY created_at, key_id", (tenant,))

    def revision(self) -> int:
        """Return how many changes this and all other processes have made to the table."""
        with self._turn, _translated():
            (revision,) = self._connection.execute("SELECT revision FROM api_keys_revision").fetchone()
        return int(revision)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _select(self, condition: str, values: tuple[str, ...]) -> tuple[KeyRecord, ...]:
        with self._turn, _translated():
            return tuple(_record(row) for row in self._connection.execute(f"{_SELECT} {condition}", values))

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """Commit the body and a new revision together."""
        with self._turn, _translated(), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("UPDATE api_keys_revision SET revision = revision + 1")
            yield self._connection


@contextmanager
def _translated() -> Iterator[None]:
    """Say that the store is away, which is not the same as a wrong key."""
    try:
        yield
    except sqlite3.Error as problem:
        raise Unavailable("The key store cannot be used at the moment.", retry_after_s=1.0) from problem


def _write(connection: sqlite3.Connection, record: KeyRecord) -> None:
    values = (
        record.key_id,
        record.tenant,
        record.digest,
        _names(record.allowed_models),
        record.created_at.isoformat(),
        None if record.expires_at is None else record.expires_at.isoformat(),
        None if record.revoked_at is None else record.revoked_at.isoformat(),
        _names(record.allowed_tiers),
        _names(record.allowed_users),
        record.role,
        record.replaced_by,
    )
    connection.execute(_INSERT, values)


def _names(names: frozenset[str]) -> str:
    return msgspec.json.encode(sorted(names)).decode()


def _set(text: str) -> frozenset[str]:
    return frozenset(msgspec.json.decode(text, type=list[str]))


_Row = tuple[str, str, bytes, str, str, str | None, str | None, str, str, str | None, str | None]


def _record(row: _Row) -> KeyRecord:
    key_id, tenant, digest, models, created_at, expires_at, revoked_at, tiers, users, role, replaced_by = row
    return KeyRecord(
        key_id=key_id,
        tenant=tenant,
        digest=digest,
        allowed_models=_set(models),
        created_at=datetime.fromisoformat(created_at),
        expires_at=None if expires_at is None else datetime.fromisoformat(expires_at),
        revoked_at=None if revoked_at is None else datetime.fromisoformat(revoked_at),
        allowed_tiers=_set(tiers),
        allowed_users=_set(users),
        role=None if role is None else Role(role),
        replaced_by=replaced_by,
    )
