"""Plays the steps of an answer onto a connection, in the framing, encoding and pace that the script asks for."""

import asyncio
import zlib
from collections.abc import Iterable, Iterator
from http import HTTPStatus

from gateway.faults.upstream.connection import Connection
from gateway.faults.upstream.script import Script
from gateway.faults.upstream.seen import Sighting
from gateway.faults.upstream.steps import EVENT_STREAM, End, Start, Step, Wait, Write

GARBAGE = b"THIS IS NOT HTTP\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n"
BIG_HEADER_BYTES = 128 * 1024
LEAKS = (
    ("set-cookie", "upstream_session=1; Path=/"),
    ("openai-organization", "org-upstream"),
    ("x-scripted", "1"),
    ("server", "upstream-internal/1.0"),
    ("x-internal-route", "pool-7"),
)


class Player:
    """Sends one answer and keeps the sighting up to date."""

    def __init__(self, script: Script, connection: Connection, sighting: Sighting) -> None:
        self._script = script
        self._connection = connection
        self._sighting = sighting
        self._is_chunked = False
        self._gzip = zlib.compressobj(wbits=31) if script.gzip == "on" else None

    async def play(self, steps: Iterable[Step]) -> None:
        """Carry out the steps up to the first `End`."""
        for step in steps:
            match step:
                case Wait(ms):
                    if ms:
                        await asyncio.sleep(ms / 1000)
                case Start() if self._script.wire == "garbage":
                    await self._connection.send(GARBAGE)
                    self._finish("close")
                    return
                case Start():
                    await self._start(step)
                case Write(payload, is_chunk):
                    self._sighting.chunks_sent += is_chunk
                    await self._write(payload)
                case End(how):
                    await self._end(how)
                    return

    async def _start(self, start: Start) -> None:
        script = self._script
        is_old = script.wire == "http10"
        self._is_chunked = start.length_bytes is None and not is_old
        headers = [("content-type", start.content_type), *self._headers(start)]
        if self._is_chunked:
            headers.append(("transfer-encoding", "chunked"))
        elif start.length_bytes is not None:
            headers.append(("content-length", str(start.length_bytes)))
            if script.duplicate in ("length", "lengths"):
                headers.append(("content-length", str(start.length_bytes + (script.duplicate == "lengths"))))
        if script.duplicate == "type":
            headers.append(("content-type", start.content_type))
        if is_old or not script.keepalive:
            headers.append(("connection", "close"))
            self._connection.close_after_answer = True
        head = f"HTTP/1.{0 if is_old else 1} {start.status} {_phrase(start.status)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
        await self._connection.send(
            (EARLY_HINTS if script.wire == "hints" else b"") + head.encode("latin-1", "replace")
        )

    def _headers(self, start: Start) -> Iterator[tuple[str, str]]:
        script = self._script
        yield "x-request-id", f"up-{self._sighting.number:06d}"
        if start.content_type == EVENT_STREAM:
            yield "cache-control", "no-cache"
        if script.gzip != "off":
            yield "content-encoding", "gzip"
        if script.retry_after is not None:
            yield "retry-after", script.retry_after
        if script.retry_after_ms is not None:
            yield "retry-after-ms", script.retry_after_ms
        if script.should_retry is not None:
            yield "x-should-retry", script.should_retry
        if 300 <= start.status < 400:
            yield "location", "/v1/redirected"
        if script.wire == "bigheader":
            yield "x-big", "b" * BIG_HEADER_BYTES
        if script.leak:
            yield from LEAKS

    async def _write(self, payload: bytes) -> None:
        if self._gzip is not None:
            payload = self._gzip.compress(payload) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
        pieces = list(_pieces(self._script, payload))
        for piece in pieces:
            await self._send_body(piece)
            if len(pieces) > 1:
                await asyncio.sleep(self._script.drip_gap_ms / 1000)

    async def _send_body(self, piece: bytes) -> None:
        self._sighting.bytes_sent += len(piece)
        if self._is_chunked and piece:
            piece = b"%x\r\n%s\r\n" % (len(piece), piece)
        await self._connection.send(piece)

    async def _end(self, how: str) -> None:
        connection = self._connection
        if how == "badchunk":
            await connection.send(b"zz\r\n")
        if how in ("badchunk", "close"):
            self._finish(how)
        elif how == "half":
            await connection.half_close()
        elif how == "reset":
            self._sighting.end(how)
            await connection.reset()
        else:
            self._sighting.end(how)
            trailer = self._gzip.flush() if self._gzip is not None else b""
            await self._send_body(trailer)
            connection.close_on_next_request = self._script.drop == "next"
            connection.close_after_answer |= self._script.drop == "now"
            await connection.send(b"0\r\n\r\n" if self._is_chunked else b"")

    def _finish(self, how: str) -> None:
        self._sighting.end(how)
        self._connection.close()


def _pieces(script: Script, payload: bytes) -> Iterator[bytes]:
    if script.drip_bytes:
        for start in range(0, len(payload), script.drip_bytes):
            yield payload[start : start + script.drip_bytes]
    elif script.split:
        middle = next((index + 1 for index, byte in enumerate(payload) if byte >= 0xC0), len(payload) // 2)
        yield payload[:middle]
        yield payload[middle:]
    else:
        yield payload


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
