"""The driver of a hosted engine: a remote one that counts what is under way, so that a stop or a nap cuts nothing."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from backends.engines.leases import Leases
from backends.protocol import Backend, UpstreamCall, UpstreamResponse
from core.deadline import Deadline


class HostedBackend:
    """Holds the engine's process while a request is under way.

    `leases` is asked at the same moment at which `inner` asks for the address, so both are of one process.
    """

    def __init__(self, inner: Backend, leases: Callable[[], Leases]) -> None:
        self._inner = inner
        self._leases = leases

    @asynccontextmanager
    async def open(self, call: UpstreamCall, deadline: Deadline) -> AsyncIterator[UpstreamResponse]:
        """Send the call; see `Backend.open`."""
        with self._leases().taken():
            async with self._inner.open(call, deadline) as response:
                yield response

    async def close(self) -> None:
        """Close the inner driver."""
        await self._inner.close()
