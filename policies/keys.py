"""API keys: random, stored only as a keyed hash, looked up by id and compared in constant time.

A key reads `hg_<id>_<secret>`: 64 random bits name the record, 256 random bits prove possession. The store holds
HMAC-SHA256(pepper, id and secret); the pepper lives in a file beside it, so that a copy of the database alone is
worthless. Failure rule: closed. Whatever is wrong with a key, the answer is the same `InvalidApiKey` at the same cost.
"""

import hmac
import os
import re
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from core.clock import Clock
from core.errors import ConfigurationError, InvalidApiKey
from core.identity import Caller

PEPPER_BYTES = 32
MAX_HEADER_CHARS = 200
REFRESH_S = 0.5
"""How long a cached record is trusted; a revocation elsewhere takes effect within this time."""
CACHED_RECORDS = 10_000

_KEY = re.compile(r"hg_([0-9a-f]{16})_([0-9a-f]{64})\Z")
_BEARER = re.compile(r"bearer +", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is kept of a key; empty `allowed_models` means whatever the tenant may use."""

    key_id: str
    tenant: str
    digest: bytes = field(repr=False)
    allowed_models: frozenset[str]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def is_valid_at(self, moment: datetime) -> bool:
        """Tell whether the key is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or moment < self.expires_at)


class KeyStore(Protocol):
    """Where records are kept; called from one thread, quick enough not to await."""

    def put(self, record: KeyRecord) -> None:
        """Add or replace a record."""
        ...

    def get(self, key_id: str) -> KeyRecord | None:
        """Return a record, or None."""
        ...

    def revoke(self, key_id: str, moment: datetime) -> bool:
        """Revoke a key for good, and tell whether there was one to revoke."""
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

    def put(self, record: KeyRecord) -> None:
        """Add or replace a record."""
        self._records[record.key_id] = record
        self._revision += 1

    def get(self, key_id: str) -> KeyRecord | None:
        """Return a record, or None."""
        return self._records.get(key_id)

    def revoke(self, key_id: str, moment: datetime) -> bool:
        """Revoke a key that is not revoked yet."""
        record = self._records.get(key_id)
        if record is None or record.revoked_at is not None:
            return False
        self.put(replace(record, revoked_at=moment))
        return True

    def records(self, tenant: str | None = None) -> tuple[KeyRecord, ...]:
        """Return records, oldest first."""
        chosen = [record for record in self._records.values() if tenant in (None, record.tenant)]
        return tuple(sorted(chosen, key=lambda record: (record.created_at, record.key_id)))

    def revision(self) -> int:
        """Return the number of changes so far."""
        return self._revision


def create_key(
    tenant: str,
    pepper: bytes,
    clock: Clock,
    *,
    allowed_models: Iterable[str] = (),
    expires_at: datetime | None = None,
) -> tuple[str, KeyRecord]:
    """Make a key and return its text, which is kept nowhere, with the record to store."""
    key_id, secret = secrets.token_hex(8), secrets.token_hex(32)
    digest = _digest(pepper, key_id, secret)
    record = KeyRecord(key_id, tenant, digest, frozenset(allowed_models), clock.now(), expires_at)
    return f"hg_{key_id}_{secret}", record


class Authenticator:
    """Turns a header into a caller; records are cached, so that most requests read nothing."""

    def __init__(self, store: KeyStore, pepper: bytes, clock: Clock) -> None:
        self._store = store
        self._pepper = pepper
        self._clock = clock
        self._cached: OrderedDict[str, KeyRecord | None] = OrderedDict()
        self._revision = store.revision()
        self._checked_at_s = clock.monotonic_s()
        self._nobody = KeyRecord("", "", secrets.token_bytes(32), frozenset(), clock.now())

    def authenticate(self, header_value: str | None) -> Caller:
        """Return who sent `header_value`, which is `Bearer KEY` or the key alone.

        Raises:
            InvalidApiKey: no key, not a key, unknown, wrong, expired or revoked; nobody can tell which.
        """
        key_id, secret = _parts(header_value)
        record = self._record(key_id)
        known = record or self._nobody
        is_right = hmac.compare_digest(_digest(self._pepper, key_id, secret), known.digest)
        if not is_right or record is None or not record.is_valid_at(self._clock.now()):
            raise InvalidApiKey
        return Caller(record.tenant, record.key_id, record.allowed_models)

    def _record(self, key_id: str) -> KeyRecord | None:
        """Return the record, unknown ids included in what is remembered, so that guessing costs no look-ups twice."""
        self._refresh()
        if key_id in self._cached:
            return self._cached[key_id]
        record = self._cached[key_id] = self._store.get(key_id)
        if len(self._cached) > CACHED_RECORDS:
            self._cached.popitem(last=False)
        return record

    def _refresh(self) -> None:
        """Forget all records when any may have changed; asks the store at most every `REFRESH_S`."""
        now_s = self._clock.monotonic_s()
        if now_s - self._checked_at_s < REFRESH_S:
            return
        self._checked_at_s = now_s
        revision = self._store.revision()
        if revision != self._revision:
            self._revision = revision
            self._cached.clear()


def load_pepper(path: Path) -> bytes:
    """Read the pepper, making one (mode 0600) on first use.

    Raises:
        ConfigurationError: the file cannot be used, is readable by others, or holds something else.
    """
    try:
        if not path.exists():
            _create_pepper(path)
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(str(path), "", "readable by others", f"run `chmod 600 {path}`")
        pepper = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, UnicodeError, ValueError) as problem:
        raise ConfigurationError(
            str(path), "", f"cannot be read as a pepper ({problem})", "restore it; without it no key is valid"
        ) from problem
    if len(pepper) != PEPPER_BYTES:
        problem_text = f"holds {len(pepper)} bytes, not {PEPPER_BYTES}"
        raise ConfigurationError(str(path), "", problem_text, "restore it; without it no key is valid")
    return pepper


def _create_pepper(path: Path) -> None:
    """Write the file in full before it gets its name, so that two processes that start together agree on one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as target:
            target.write(secrets.token_hex(PEPPER_BYTES) + "\n")
            target.flush()
            os.fsync(target.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass  # the other process was first; its pepper counts
    finally:
        draft.unlink()


def _parts(header_value: str | None) -> tuple[str, str]:
    """Split a header into id and secret; what is not a key gives an id that cannot exist."""
    text = (header_value or "")[:MAX_HEADER_CHARS]
    scheme = _BEARER.match(text)
    match = _KEY.match(text[scheme.end() :].strip() if scheme else text.strip())
    return (match[1], match[2]) if match else ("", "")


def _digest(pepper: bytes, key_id: str, secret: str) -> bytes:
    return hmac.digest(pepper, f"{key_id}:{secret}".encode(), "sha256")
