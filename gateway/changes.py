"""What administrators and the gateway itself change: one change at a time, each on record before it happens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from policies.audit import Actor, AuditEntry, AuditLog, Change, Verdict


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
