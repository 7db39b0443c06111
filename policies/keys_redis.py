"""API keys in Redis, shared by all replicas: each holds a copy of every record and follows the changes.

One hash holds the records, one sorted set the ids by the revision of their last change, so that following costs one
small read, and as many records as changed. A look-up on the request path never waits for the network. All keys share
one hash tag, so a Cluster keeps them together; they carry no time to live. Failure rule: while Redis is away what was
last known counts (expiry included); nothing can be revoked there meanwhile either, and `age_s` tells how old it is.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import cast

import msgspec
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, WatchError
from redis.retry import Retry

from core.clock import Clock
from core.errors import ConfigurationError, Unavailable
from policies.keys import KeyRecord, Role, in_order

RECORDS, CHANGES, REVISION, EPOCH = (
    f"headgate:1:{{keys}}:{name}" for name in ("records", "changes", "revision", "epoch")
)
POLL_S = 0.25
"""Together with the half second for which a gateway trusts its cache this stays below a second."""
TIMEOUT_S = 2.0
TRIES = 20

_logger = logging.getLogger(__name__)


class _Stored(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record as Redis holds it (MessagePack); fields only ever get added."""

    tenant: str
    digest: bytes
    created_at: datetime
    models: list[str] = []
    tiers: list[str] = []
    users: list[str] = []
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    role: Role | None = None
    replaced_by: str | None = None


class RedisKeyStore:
    """A `KeyStore` that replicas share; without `follow` every `revision` asks Redis, with it a thread does."""

    def __init__(self, client: Redis, clock: Clock) -> None:
        """Read all records; raises ConfigurationError when Redis cannot be used."""
        self._client = client
        self._clock = clock
        self._records: dict[str, KeyRecord] = {}
        self._seen: tuple[bytes | None, int] | None = None
        self._revision = 0
        self._synced_at_s = clock.monotonic_s()
        self._syncing = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        try:
            self.sync()
        except Unavailable as problem:
            said = "the Redis server of the keys does not answer"
            raise ConfigurationError("state", "", said, "start it, or correct the address") from problem

    def put(self, record: KeyRecord) -> None:
        """Add or replace a record."""
        self._change(record.key_id, lambda _: record)

    def get(self, key_id: str) -> KeyRecord | None:
        """Return a record as last seen, or None."""
        return self._records.get(key_id)

    def update(self, key_id: str, change: Callable[[KeyRecord], KeyRecord | None]) -> KeyRecord | None:
        """Replace a record by `change` of what Redis holds; another writer in between makes it start again."""
        return self._change(key_id, lambda record: None if record is None else change(record))

    def records(self, tenant: str | None = None) -> tuple[KeyRecord, ...]:
        """Return records as last seen, oldest first."""
        return in_order(record for record in list(self._records.values()) if tenant in (None, record.tenant))

    def revision(self) -> int:
        """Return how often the copy has changed."""
        if self._thread is None:
            self.sync()
        return self._revision

    def age_s(self) -> float:
        """Return how long ago the copy was known to be current."""
        return self._clock.monotonic_s() - self._synced_at_s

    def sync(self) -> None:
        """Take over what has changed; raises Unavailable when Redis is away."""
        with self._syncing, _translated():
            now_s = self._clock.monotonic_s()
            epoch, count = cast(list[bytes | None], self._client.mget(EPOCH, REVISION))
            now = (epoch, int(count or 0))
            if now != self._seen:
                if self._seen is None or now[0] != self._seen[0] or now[1] < self._seen[1]:
                    self._read_all()  # another store, or one that has lost changes: nothing that it lacks may stay
                else:
                    self._read_changes(self._seen[1])
                self._seen, self._revision = now, self._revision + 1
            self._synced_at_s = now_s

    def follow(self, poll_s: float = POLL_S) -> None:
        """Keep the copy current from a thread until `close`."""
        self._thread = threading.Thread(target=self._follow, args=(poll_s,), name="headgate-keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following and close the connections."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(TIMEOUT_S * 3)
        self._client.close()

    def _follow(self, poll_s: float) -> None:
        is_away = False
        while not self._stopping.wait(poll_s):
            try:
                self.sync()
                is_away = False
            except Unavailable as problem:
                if not is_away:
                    _logger.error("the key store is away, what was last known counts", extra={"problem": str(problem)})
                is_away = True

    def _read_all(self) -> None:
        """Read every record, and put them in place at once: keys are looked up meanwhile."""
        fresh: dict[str, KeyRecord] = {}
        for key_id, text in cast(dict[bytes, bytes], self._client.hgetall(RECORDS)).items():
            _take(fresh, key_id.decode(), text)
        self._records = fresh

    def _read_changes(self, after: int) -> None:
        """Read the records changed since; one that changes again while this reads is read again next time."""
        changed = cast(list[bytes], self._client.zrangebyscore(CHANGES, f"({after}", "+inf"))
        texts = cast(list[bytes | None], self._client.hmget(RECORDS, changed)) if changed else []
        for key_id, text in zip(changed, texts, strict=True):
            _take(self._records, key_id.decode(), text)

    def _change(self, key_id: str, change: Callable[[KeyRecord | None], KeyRecord | None]) -> KeyRecord | None:
        with _translated():
            for _ in range(TRIES):
                with self._client.pipeline() as pipe:
                    pipe.watch(RECORDS, REVISION, EPOCH)  # type: ignore[no-untyped-call]
                    held = cast(bytes | None, pipe.hget(RECORDS, key_id))
                    changed = change(None if held is None else _read(key_id, held))
                    if changed is None:
                        return None
                    revision = int(cast(bytes | None, pipe.get(REVISION)) or 0) + 1
                    pipe.multi()
                    pipe.hset(RECORDS, key_id, _written(changed))
                    pipe.zadd(CHANGES, {key_id: revision})
                    pipe.set(REVISION, revision)
                    pipe.setnx(EPOCH, secrets.token_hex(8))
                    try:
                        pipe.execute()
                    except WatchError:
                        continue
                self.sync()
                return changed
        raise Unavailable("The key store is changed by too many at once.", retry_after_s=1.0)


def connect(url: str, timeout_s: float = TIMEOUT_S) -> Redis:
    """Return a client that tries twice at once and gives up after `timeout_s`."""
    client: Redis = Redis.from_url(
        url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 1)
    )
    return client


@contextmanager
def _translated() -> Iterator[None]:
    """Say that the store is away, which is not the same as a wrong key."""
    try:
        yield
    except (RedisError, OSError, msgspec.DecodeError) as problem:
        raise Unavailable("The key store cannot be used at the moment.", retry_after_s=1.0) from problem


def _written(record: KeyRecord) -> bytes:
    return msgspec.msgpack.encode(
        _Stored(
            tenant=record.tenant,
            digest=record.digest,
            created_at=record.created_at,
            models=sorted(record.allowed_models),
            tiers=sorted(record.allowed_tiers),
            users=sorted(record.allowed_users),
            expires_at=record.expires_at,
            revoked_at=record.revoked_at,
            role=record.role,
            replaced_by=record.replaced_by,
        )
    )


def _take(records: dict[str, KeyRecord], key_id: str, text: bytes | None) -> None:
    """Replace one record of a copy; one that cannot be read is no key."""
    try:
        if text is not None:
            records[key_id] = _read(key_id, text)
            return
    except msgspec.DecodeError as problem:
        _logger.error("a key's record cannot be read", extra={"key_id": key_id, "problem": str(problem)})
    records.pop(key_id, None)


def _read(key_id: str, text: bytes) -> KeyRecord:
    stored = msgspec.msgpack.decode(text, type=_Stored)
    return KeyRecord(
        key_id=key_id,
        tenant=stored.tenant,
        digest=stored.digest,
        allowed_models=frozenset(stored.models),
        created_at=stored.created_at,
        expires_at=stored.expires_at,
        revoked_at=stored.revoked_at,
        allowed_tiers=frozenset(stored.tiers),
        allowed_users=frozenset(stored.users),
        role=stored.role,
        replaced_by=stored.replaced_by,
    )
