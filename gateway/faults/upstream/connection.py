"""One client connection: requests in turn, answers with back-pressure, and a cancelled answer when the client leaves.

A hand-written `asyncio.Protocol`, since no ASGI server can reset a socket, break its own framing or speak HTTP/1.0.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import cast

from gateway.faults.upstream.request import (
    BODY_LIMIT_BYTES,
    HEAD_LIMIT_BYTES,
    MalformedRequest,
    Request,
    read_body,
    read_head,
)

TLS_HANDSHAKE = 0x16
RESET_PAUSE_S = 0.02  # lets the client read what was sent; a reset may overtake it otherwise

Answer = Callable[[Request, "Connection"], Awaitable[None]]
Refused = Callable[["Connection", str], None]


class Connection(asyncio.Protocol):
    """Parses requests one after another and runs `answer` for each in a task of its own."""

    def __init__(self, number: int, answer: Answer, refused: Refused) -> None:
        self.number = number
        self.close_after_answer = False
        self.close_on_next_request = False
        self._answer = answer
        self._refused = refused
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._continued = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the answer that nobody reads any more."""
        if self._task is not None:
            self._task.cancel()
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Collect bytes until a request is whole."""
        if not self._buffer and data[0] == TLS_HANDSHAKE:
            self._refuse("TLS", b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            return
        self._buffer += data
        self._start_next()

    def pause_writing(self) -> None:
        """Hold the answer back while the client does not read."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Go on with the answer."""
        self._writable.set()

    async def send(self, payload: bytes) -> None:
        """Write, then wait until the client has read enough (asyncio's default high-water mark, 64 KiB)."""
        self._transport.write(payload)
        await self._writable.wait()
        await asyncio.sleep(0)

    def close(self) -> None:
        """Close with FIN after what was written."""
        self._transport.close()

    async def half_close(self) -> None:
        """Close our half with FIN and go on listening, until the client leaves too."""
        self._transport.write_eof()
        await asyncio.Event().wait()

    def abort(self) -> None:
        """Drop the connection whatever it is doing."""
        self._transport.abort()

    async def reset(self) -> None:
        """Close with RST."""
        await asyncio.sleep(RESET_PAUSE_S)
        peer: socket.socket | None = self._transport.get_extra_info("socket")
        if peer is not None and not self._transport.is_closing():
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _start_next(self) -> None:
        if self._task is not None or not self._buffer or self._transport.is_closing():
            return
        try:
            request = self._take_request()
        except MalformedRequest as problem:
            self._refuse(str(problem), b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            return
        if request is None:
            return
        self.close_after_answer = not request.keeps_connection
        self._task = asyncio.get_running_loop().create_task(self._run(request))

    def _take_request(self) -> Request | None:
        head = read_head(self._buffer)
        if head is None:
            return None
        found = read_body(self._buffer, head)
        if found is None:
            if len(self._buffer) > 2 * BODY_LIMIT_BYTES + HEAD_LIMIT_BYTES:
                raise MalformedRequest("the body is above 64 MiB")
            if "100-continue" in head.headers.get("expect", "").lower() and not self._continued:
                self._continued = True
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        body, end = found
        del self._buffer[:end]
        self._continued = False
        return Request(head.method, head.target, head.version, head.headers, body)

    async def _run(self, request: Request) -> None:
        is_answered = False
        try:
            await self._answer(request, self)
            is_answered = True
        finally:
            self._task = None
            if not is_answered:
                self._transport.abort()
        if self.close_after_answer:
            self.close()
        else:
            self._start_next()

    def _refuse(self, reason: str, answer: bytes) -> None:
        self._buffer.clear()
        self._refused(self, reason)
        self._transport.write(answer)
        self._transport.close()
