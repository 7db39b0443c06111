"""Keys, pepper and audit log as commands on the gateway's own machine open them."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass

from core.clock import Clock
from gateway.settings.operator import Settings
from policies.audit import Actor, AuditLog, Change
from policies.keys import KeyStore
from policies.keys_redis import RedisKeyStore, connect
from policies.keys_sqlite import SqliteKeyStore
from policies.pepper import load_pepper


@dataclass(frozen=True, slots=True)
class LocalAudit:
    """The audit log as this user of the machine writes it."""

    log: AuditLog
    actor: Actor

    def change(self, action: str, target: str, before: object = None) -> AbstractContextManager[Change]:
        """Record the change that the body makes."""
        return self.log.recording(self.actor, action, target, before)


@dataclass(frozen=True, slots=True)
class LocalKeys:
    """What the key commands need."""

    store: KeyStore
    pepper: bytes
    audit: LocalAudit


@contextmanager
def open_keys(settings: Settings, clock: Clock) -> Iterator[LocalKeys]:
    """Open the key store that the settings name, and close it again; files it makes are the owner's alone."""
    os.umask(0o077)
    settings.state_file.parent.mkdir(parents=True, exist_ok=True)
    pepper = load_pepper(settings.pepper_file)
    with closing(_key_store(settings, clock)) as store, open_audit(settings, pepper, clock) as audit:
        yield LocalKeys(store, pepper, audit)


def _key_store(settings: Settings, clock: Clock) -> SqliteKeyStore | RedisKeyStore:
    if settings.redis_url is None:
        return SqliteKeyStore(settings.state_file)
    store = RedisKeyStore(connect(settings.redis_url), clock)
    store.sync()
    return store


@contextmanager
def open_audit(settings: Settings, pepper: bytes, clock: Clock) -> Iterator[LocalAudit]:
    """Open the audit log, and close it again."""
    with closing(AuditLog(settings.beside("audit"), pepper, clock)) as log:
        yield LocalAudit(log, Actor(f"uid {os.getuid()}", "owner", "command line"))
