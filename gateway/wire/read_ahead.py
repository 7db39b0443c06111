"""Read an answer ahead of the client that asked for it while others follow it, so that a slow leader slows nobody.

A task of its own reads into a buffer, which is bounded: beyond it the slowest reader sets the pace again.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

MAX_BYTES = 2**20


class ReadAhead:
    """Reads what `source` returns, up to its None, from now on."""

    def __init__(self, source: Callable[[], Awaitable[bytes | None]], max_bytes: int = MAX_BYTES) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self._buffer: deque[bytes] = deque()
        self._size_bytes = 0
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._read())

    async def next(self) -> bytes | None:
        """Return the next chunk, None at the end; what `source` raises is raised where it stood."""
        while not self._buffer:
            if self._task.done():
                self._task.result()
                return None
            self._changed.clear()
            await self._changed.wait()
        chunk = self._buffer.popleft()
        self._size_bytes -= len(chunk)
        self._changed.set()
        return chunk

    async def close(self) -> None:
        """End the reading."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _read(self) -> None:
        try:
            while (chunk := await self._source()) is not None:
                self._buffer.append(chunk)
                self._size_bytes += len(chunk)
                self._changed.set()
                while self._size_bytes > self._max_bytes:
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            asyncio.get_running_loop().call_soon(self._changed.set)
