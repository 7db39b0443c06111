"""Counts the requests that are under way on one engine, so that it may be stopped or put to sleep between them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from core.clock import Clock


class Leases:
    """Requests under way, and since when there is none."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._idle = asyncio.Event()
        self._idle.set()
        self._since_s = clock.monotonic_s()
        self.count = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the engine for one request."""
        self.count += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.count -= 1
            self._since_s = self._clock.monotonic_s()
            if self.count == 0:
                self._idle.set()

    @property
    def idle_s(self) -> float:
        """Return for how long nothing was under way, 0 while something is."""
        return 0.0 if self.count else self._clock.monotonic_s() - self._since_s

    def touch(self) -> None:
        """Begin counting idle time anew, as an engine does that has just become ready."""
        self._since_s = self._clock.monotonic_s()

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing is under way; False when something still is after `timeout_s` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        return self.count == 0
