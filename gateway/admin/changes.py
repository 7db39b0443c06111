"""What administrators change: one change at a time, each on record, and views that never show a secret or its hash."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from policies.audit import Actor, AuditEntry, AuditLog, Change, Verdict
from policies.keys import KeyRecord


class KeyView(msgspec.Struct, frozen=True):
    """A key as the admin API, the commands and the audit log see it; empty scopes mean whatever the tenant may."""

    key_id: str
    tenant: str | None
    role: str | None
    models: list[str]
    tiers: list[str]
    users: list[str]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    replaced_by: str | None


def key_view(record: KeyRecord) -> KeyView:
    """Return what may be shown of a key."""
    return KeyView(
        key_id=record.key_id,
        tenant=record.tenant or None,
        role=None if record.role is None else record.role.value,
        models=sorted(record.allowed_models),
        tiers=sorted(record.allowed_tiers),
        users=sorted(record.allowed_users),
        created_at=record.created_at.isoformat(),
        expires_at=None if record.expires_at is None else record.expires_at.isoformat(),
        revoked_at=None if record.revoked_at is None else record.revoked_at.isoformat(),
        replaced_by=record.replaced_by,
    )


class Changes:
    """The audit log as the gateway writes it: in threads, off the event loop, one change after the other."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def recording(self, actor: Actor, action: str, target: str, before: object = None) -> AsyncIterator[Change]:
        """Record the change that the body makes, whether it is done or fails.

        Raises:
            Unavailable: the log cannot be written; the body does not run.
        """
        async with self._turn:
            await asyncio.to_thread(self._log.check_writable)
            change = Change(target, before)
            try:
                yield change
            except BaseException:
                await asyncio.shield(asyncio.to_thread(self._log.append, actor, action, change, "failed"))
                raise
            await asyncio.shield(asyncio.to_thread(self._log.append, actor, action, change, "done"))

    async def entries(self, last: int) -> list[AuditEntry]:
        """Return the newest entries, oldest first."""
        async with self._turn:
            return await asyncio.to_thread(self._log.entries, last)

    async def verify(self) -> Verdict:
        """Follow the chain from its beginning."""
        async with self._turn:
            return await asyncio.to_thread(self._log.verify)
