"""Read an answer ahead of the client that asked for it once others follow it, so that a slow leader slows nobody.

Until somebody follows, chunks pass straight through, at the client's pace. From then on a task of its own reads them
into a buffer, which is bounded: beyond it the slowest reader sets the pace again.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

MAX_BYTES = 2**20


class ReadAhead:
    """Passes on what `source` yields; `begin` may be called at any time, also while a chunk is awaited."""

    def __init__(self, source: AsyncGenerator[bytes, None], max_bytes: int = MAX_BYTES) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self._buffer: deque[bytes] = deque()
        self._size_bytes = 0
        self._is_awaited = False
        self._is_wanted = False
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def begin(self) -> None:
        """Read ahead from now on."""
        self._is_wanted = True
        if self._task is None and not self._is_awaited:
            self._task = asyncio.create_task(self._read())

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield every chunk in order; what `source` raises is raised where it stood."""
        try:
            while self._task is None:
                self._is_awaited = True
                try:
                    chunk = await anext(self._source, None)
                finally:
                    self._is_awaited = False
                if chunk is None:
                    return
                if self._is_wanted:
                    self.begin()
                yield chunk
            async for chunk in self._buffered(self._task):
                yield chunk
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait({self._task})
            await self._source.aclose()

    async def _buffered(self, reading: "asyncio.Task[None]") -> AsyncGenerator[bytes, None]:
        while True:
            while self._buffer:
                chunk = self._buffer.popleft()
                self._size_bytes -= len(chunk)
                self._changed.set()
                yield chunk
            if reading.done():
                reading.result()
                return
            self._changed.clear()
            await self._changed.wait()

    async def _read(self) -> None:
        try:
            async for chunk in self._source:
                self._buffer.append(chunk)
                self._size_bytes += len(chunk)
                self._changed.set()
                while self._size_bytes > self._max_bytes:
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            asyncio.get_running_loop().call_soon(self._changed.set)
