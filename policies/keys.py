"""API keys: random, stored only as a keyed hash; how they are made, rotated and revoked, and where they are kept.

A tenant's key reads `hg_<id>_<secret>`, an administrator's `hga_<id>_<secret>`: 64 random bits name the record, 256
random bits prove possession. The store holds HMAC-SHA256(pepper, id and secret); the pepper lives apart from it, so
that a copy of the database alone is worthless. The two kinds are hashed differently: one never opens the other's door.
"""

import hmac
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from core.clock import Clock
from core.errors import InvalidRequest

TENANT_PREFIX = "hg"
ADMIN_PREFIX = "hga"


class Role(StrEnum):
    """What an administrator may do; each role may do what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    OWNER = "owner"

    def includes(self, least: "Role") -> bool:
        """Tell whether this role may do what `least` may."""
        order = list(Role)
        return order.index(self) >= order.index(least)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is kept of a key.

    Attributes:
        tenant: who pays; empty for an administrator's key.
        allowed_models, allowed_tiers, allowed_users: what the key is narrowed to; empty means whatever the tenant may.
        role: of an administrator's key; None for a tenant's.
        replaced_by: the id of the key that rotation made in its place.
    """

    key_id: str
    tenant: str
    digest: bytes = field(repr=False)
    allowed_models: frozenset[str]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    allowed_tiers: frozenset[str] = frozenset()
    allowed_users: frozenset[str] = frozenset()
    role: Role | None = None
    replaced_by: str | None = None

    @property
    def is_valid_for_ever(self) -> bool:
        """Tell whether the key is valid at any time, so that none needs to be asked for."""
        return self.revoked_at is None and self.expires_at is None

    def is_valid_at(self, moment: datetime) -> bool:
        """Tell whether the key is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or moment < self.expires_at)


class KeyStore(Protocol):
    """Where records are kept; `get` and `revision` are called on the event loop and must not wait for a network."""

    def put(self, record: KeyRecord) -> None:
        """Add or replace a record."""
        ...

    def get(self, key_id: str) -> KeyRecord | None:
        """Return a record, or None."""
        ...

    def update(self, key_id: str, change: Callable[[KeyRecord], KeyRecord | None]) -> KeyRecord | None:
        """Replace a record by `change` of it in one atomic step; None: there is no such key, or nothing to change.

        `change` is pure and may be called several times.
        """
        ...

    def records(self, tenant: str | None = None) -> tuple[KeyRecord, ...]:
        """Return all records, or those of one tenant, oldest first."""
        ...

    def revision(self) -> int:
        """Return a number that changes whenever a record may have changed, in this process or another."""
        ...


class MemoryKeyStore:
    """Keys that live as long as the process."""

    def __init__(self) -> None:
        self._records: dict[str, KeyRecord] = {}
        self._revision = 0
        self._changing = threading.Lock()

    def put(self, record: KeyRecord) -> None:
        """Add or replace a record."""
        with self._changing:
            self._keep(record)

    def get(self, key_id: str) -> KeyRecord | None:
        """Return a record, or None."""
        return self._records.get(key_id)

    def update(self, key_id: str, change: Callable[[KeyRecord], KeyRecord | None]) -> KeyRecord | None:
        """Replace a record by `change` of it."""
        with self._changing:
            record = self._records.get(key_id)
            changed = None if record is None else change(record)
            if changed is not None:
                self._keep(changed)
            return changed

    def records(self, tenant: str | None = None) -> tuple[KeyRecord, ...]:
        """Return records, oldest first."""
        return in_order(record for record in list(self._records.values()) if tenant in (None, record.tenant))

    def revision(self) -> int:
        """Return the number of changes so far."""
        return self._revision

    def _keep(self, record: KeyRecord) -> None:
        self._records[record.key_id] = record
        self._revision += 1


def in_order(records: Iterable[KeyRecord]) -> tuple[KeyRecord, ...]:
    """Sort records, oldest first."""
    return tuple(sorted(records, key=lambda record: (record.created_at, record.key_id)))


def create_key(
    tenant: str,
    pepper: bytes,
    clock: Clock,
    *,
    allowed_models: Iterable[str] = (),
    allowed_tiers: Iterable[str] = (),
    allowed_users: Iterable[str] = (),
    expires_at: datetime | None = None,
) -> tuple[str, KeyRecord]:
    """Make a tenant's key and return its text, which is kept nowhere, with the record to store."""
    record = KeyRecord(
        key_id="",
        tenant=tenant,
        digest=b"",
        allowed_models=frozenset(allowed_models),
        created_at=clock.now(),
        expires_at=expires_at,
        allowed_tiers=frozenset(allowed_tiers),
        allowed_users=frozenset(allowed_users),
    )
    return _with_new_secret(record, pepper)


def create_admin_key(
    role: Role, pepper: bytes, clock: Clock, *, expires_at: datetime | None = None
) -> tuple[str, KeyRecord]:
    """Make an administrator's key and return its text, which is kept nowhere, with the record to store."""
    return _with_new_secret(KeyRecord("", "", b"", frozenset(), clock.now(), expires_at, role=role), pepper)


def revoke_key(store: KeyStore, key_id: str, moment: datetime) -> bool:
    """Revoke a key for good, and tell whether there was one to revoke."""

    def revoked(record: KeyRecord) -> KeyRecord | None:
        return None if record.revoked_at is not None else replace(record, revoked_at=moment)

    return store.update(key_id, revoked) is not None


def rotate_key(store: KeyStore, key_id: str, pepper: bytes, clock: Clock, overlap: timedelta) -> tuple[str, KeyRecord]:
    """Make a key in place of another, which expires after `overlap` at the latest; return the new text and record.

    The new key has the old one's tenant, role and scopes, and the same length of life from now on.

    Raises:
        InvalidRequest: there is no such key, it is not valid any more, or it was rotated before.
    """
    now = clock.now()
    old = store.get(key_id)
    problem = _why_not_rotate(old, key_id, now)
    if old is None or problem is not None:
        raise InvalidRequest(problem or "", param="key_id")
    life = None if old.expires_at is None else now + (old.expires_at - old.created_at)
    text, new = _with_new_secret(replace(old, created_at=now, expires_at=life), pepper)
    store.put(new)

    def ending(record: KeyRecord) -> KeyRecord | None:
        if _why_not_rotate(record, key_id, now) is not None:
            return None
        ends_at = now + overlap if record.expires_at is None else min(record.expires_at, now + overlap)
        return replace(record, expires_at=ends_at, replaced_by=new.key_id)

    if store.update(key_id, ending) is None:
        revoke_key(store, new.key_id, now)
        raise InvalidRequest(f"The key {key_id!r} was changed by someone else meanwhile.", param="key_id")
    return text, new


def digest_of(pepper: bytes, prefix: str, key_id: str, secret: str) -> bytes:
    """Return what the store keeps of a secret (32 bytes)."""
    domain = "admin:" if prefix == ADMIN_PREFIX else ""
    return hmac.digest(pepper, f"{domain}{key_id}:{secret}".encode(), "sha256")


def _why_not_rotate(record: KeyRecord | None, key_id: str, now: datetime) -> str | None:
    if record is None:
        return f"There is no key {key_id[:40]!r}."
    if record.replaced_by is not None:
        return f"The key {key_id!r} was rotated before; rotate {record.replaced_by!r}, which replaced it."
    return None if record.is_valid_at(now) else f"The key {key_id!r} is not valid any more; create a new one."


def _with_new_secret(record: KeyRecord, pepper: bytes) -> tuple[str, KeyRecord]:
    prefix = TENANT_PREFIX if record.role is None else ADMIN_PREFIX
    key_id, secret = secrets.token_hex(8), secrets.token_hex(32)
    kept = replace(record, key_id=key_id, digest=digest_of(pepper, prefix, key_id, secret), replaced_by=None)
    return f"{prefix}_{key_id}_{secret}", kept
