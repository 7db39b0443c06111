"""API keys in SQLite, shared by the gateway and the commands that create and revoke them."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import msgspec

from core.errors import Unavailable
from policies.keys import KeyRecord
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
)
_COLUMNS = "key_id, tenant, digest, allowed_models, created_at, expires_at, revoked_at"


class SqliteKeyStore:
    """A `KeyStore` on a file; every change is committed before the call returns."""

    def __init__(self, path: Path) -> None:
        """Open or create the file; raises ConfigurationError when it cannot be used."""
        self._connection = open_database(path, COMPONENT, MIGRATIONS)

    def put(self, record: KeyRecord) -> None:
        """Add or replace a record."""
        with self._change() as connection:
            connection.execute(
                f"INSERT OR REPLACE INTO api_keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  a constant
                (
                    record.key_id,
                    record.tenant,
                    record.digest,
                    msgspec.json.encode(sorted(record.allowed_models)).decode(),
                    record.created_at.isoformat(),
                    None if record.expires_at is None else record.expires_at.isoformat(),
                    None if record.revoked_at is None else record.revoked_at.isoformat(),
                ),
            )

    def get(self, key_id: str) -> KeyRecord | None:
        """Return a record, or None."""
        found = self._select("WHERE key_id = ?", (key_id,))
        return found[0] if found else None

    def revoke(self, key_id: str, moment: datetime) -> bool:
        """Revoke a key that is not revoked yet."""
        with self._change() as connection:
            cursor = connection.execute(
                "UPDATE api_keys SET revoked_at = ? WHERE key_id = ? AND revoked_at IS NULL",
                (moment.isoformat(), key_id),
            )
        return cursor.rowcount == 1

    def records(self, tenant: str | None = None) -> tuple[KeyRecord, ...]:
        """Return records, oldest first."""
        if tenant is None:
            return self._select("ORDER BY created_at, key_id", ())
        return self._select("WHERE tenant = ? ORDER BY created_at, key_id", (tenant,))

    def revision(self) -> int:
        """Return how many changes this and all other processes have made to the table."""
        with _translated():
            (revision,) = self._connection.execute("SELECT revision FROM api_keys_revision").fetchone()
        return int(revision)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _select(self, condition: str, values: tuple[str, ...]) -> tuple[KeyRecord, ...]:
        query = f"SELECT {_COLUMNS} FROM api_keys {condition}"  # noqa: S608  conditions are literals of this class
        with _translated():
            return tuple(_record(row) for row in self._connection.execute(query, values))

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """Commit the body and a new revision together."""
        with _translated(), self._connection:
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


def _record(row: tuple[str, str, bytes, str, str, str | None, str | None]) -> KeyRecord:
    key_id, tenant, digest, allowed, created_at, expires_at, revoked_at = row
    return KeyRecord(
        key_id=key_id,
        tenant=tenant,
        digest=digest,
        allowed_models=frozenset(msgspec.json.decode(allowed, type=list[str])),
        created_at=datetime.fromisoformat(created_at),
        expires_at=None if expires_at is None else datetime.fromisoformat(expires_at),
        revoked_at=None if revoked_at is None else datetime.fromisoformat(revoked_at),
    )
