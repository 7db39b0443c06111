"""API keys in SQLite, shared by the gateway and the commands that create and revoke them."""

from datetime import datetime
from pathlib import Path

import msgspec

from policies.keys import KeyRecord
from policies.sqlite_schema import open_database

COMPONENT = "keys"
MIGRATIONS = (
    """
    CREATE TABLE api_keys (
        key_id TEXT PRIMARY KEY, tenant TEXT NOT NULL, digest BLOB NOT NULL, allowed_models TEXT NOT NULL,
        created_at TEXT NOT NULL, expires_at TEXT, revoked_at TEXT) WITHOUT ROWID;
    CREATE INDEX api_keys_by_tenant ON api_keys (tenant)
    """,
)
_COLUMNS = "key_id, tenant, digest, allowed_models, created_at, expires_at, revoked_at"


class SqliteKeyStore:
    """A `KeyStore` on a file; every change is committed before the call returns."""

    def __init__(self, path: Path) -> None:
        """Open or create the file; raises ConfigurationError when it cannot be used."""
        self._connection = open_database(path, COMPONENT, MIGRATIONS)
        self._changes = 0

    def put(self, record: KeyRecord) -> None:
        """Add or replace a record."""
        self._connection.execute(
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
        self._changes += 1

    def get(self, key_id: str) -> KeyRecord | None:
        """Return a record, or None."""
        found = self._select("WHERE key_id = ?", (key_id,))
        return found[0] if found else None

    def revoke(self, key_id: str, moment: datetime) -> bool:
        """Revoke a key that is not revoked yet."""
        cursor = self._connection.execute(
            "UPDATE api_keys SET revoked_at = ? WHERE key_id = ? AND revoked_at IS NULL", (moment.isoformat(), key_id)
        )
        self._changes += 1
        return cursor.rowcount == 1

    def records(self, tenant: str | None = None) -> tuple[KeyRecord, ...]:
        """Return records, oldest first."""
        if tenant is None:
            return self._select("ORDER BY created_at, key_id", ())
        return self._select("WHERE tenant = ? ORDER BY created_at, key_id", (tenant,))

    def revision(self) -> int:
        """Count own changes and, through `data_version`, commits of other connections to the file."""
        (others,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(others) + self._changes

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _select(self, condition: str, values: tuple[str, ...]) -> tuple[KeyRecord, ...]:
        query = f"SELECT {_COLUMNS} FROM api_keys {condition}"  # noqa: S608  conditions are literals of this class
        return tuple(_record(row) for row in self._connection.execute(query, values))


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
