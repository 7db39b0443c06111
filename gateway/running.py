"""A gateway that is built: its engines and background work run while it serves, and on the way out nothing is lost."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from litestar import Litestar

from core.errors import HeadgateError
from gateway.admin.building import Admin
from gateway.learning.asking import Asking
from gateway.learning.building import Judging
from gateway.parts.caching import Caching
from gateway.parts.ground import Ground
from gateway.parts.monitoring import Monitoring
from gateway.parts.records import Records
from gateway.parts.stores import Stores
from gateway.parts.upstreams import Upstreams
from gateway.wire.public_api import PublicApi
from policies.reservation import drain

if TYPE_CHECKING:
    from policies.tokens import TokenVerifier

logger = logging.getLogger("headgate.running")
REAP_EVERY_S = 10.0
SAVE_EVERY_S = 60.0
POLL_S = 0.1
SETTLE_S = 5.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts that run, and the applications of the two listeners."""

    ground: Ground
    upstreams: Upstreams
    stores: Stores
    caching: Caching
    records: Records
    asking: Asking
    judging: Judging
    tokens: "TokenVerifier | None"
    api: PublicApi
    monitoring: Monitoring
    public: Litestar
    admin: Admin

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start engines and background work; on the way out settle, flush and stop everything, in that order."""
        async with AsyncExitStack() as stack:
            for close in (self.save, *self.records.closers, self.admin.close):
                stack.callback(close)
            stack.push_async_callback(self.stores.close)
            stack.push_async_callback(self.caching.cache.close)
            stack.push_async_callback(self.upstreams.registry.close)
            await stack.enter_async_context(self.upstreams.hosting.running(self.upstreams.registry.told))
            await stack.enter_async_context(self.stores.running())
            background = [asyncio.create_task(_logged(name, work)) for name, work in self._background()]
            try:
                yield
            finally:
                for task in background:
                    task.cancel()
                await asyncio.gather(*background, return_exceptions=True)
                await self.judging.learning.comparing.close()
                await self.asking.close()
                late = await drain(SETTLE_S)
                if late:
                    logger.warning("settlements were not done in time; leases cover them", extra={"count": late})

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait until every tier can answer and the encoder is loaded.

        Raises:
            TimeoutError: it took longer.
        """
        async with asyncio.timeout(timeout_s):
            while not (self.api.readiness()[0] and self.caching.embedder.is_ready()):  # noqa: ASYNC110 - they have no common event
                await asyncio.sleep(POLL_S)

    def save(self) -> None:
        """Write what cache and router learned, so that a restart goes on from there."""
        self.caching.save()
        self.judging.save()

    def _background(self) -> Iterator[tuple[str, Coroutine[object, object, object]]]:
        yield "reap", self._reap()
        if not self.stores.fills_index:
            yield "load cache", self.caching.cache.load()
        yield "watch policies", self.ground.watcher.run()
        yield "watch calibrations", self.judging.calibrations.run()
        yield "probe deployments", self.upstreams.registry.probe()
        yield "watch remote engines", self.upstreams.watch.run(self.upstreams.registry.told)
        yield "save what was learned", self._save()
        yield "monitor", self.monitoring.run()
        yield "settle what was learned", self.judging.learning.run(self.admin.changes)
        if self.tokens is not None:
            yield "follow identity provider", self.tokens.run()

    async def _save(self) -> None:
        """Save from time to time, so that a crash loses a minute of it at most."""
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            await asyncio.to_thread(self.save)

    async def _reap(self) -> None:
        """Close expired holds from time to time; a store that is away is tried again."""
        while True:
            await asyncio.sleep(REAP_EVERY_S)
            try:
                reaped = await self.stores.ledger.reap()
            except HeadgateError as problem:
                logger.warning("holds could not be reaped", extra={"problem": problem.message})
                continue
            if reaped:
                logger.warning("holds without settlement were charged in full", extra={"count": reaped})


async def _logged(name: str, work: Coroutine[object, object, object]) -> None:
    """Run background work; its end by an error must not go unseen."""
    try:
        await work
    except Exception:
        logger.exception("background work ended", extra={"work": name})
