"""The bare ASGI work of the hot routes: read a bounded body, send an answer, give up a client that idles."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from typing import Self

from litestar.types import HTTPScope, HTTPSendMessage, Receive, Send

from core.errors import BodyTooLarge, ClientGone, HeadgateError, InvalidRequest, RequestTimeout, let_go
from core.time_limit import TimeLimit
from gateway.answer import Answer, FlowTo
from gateway.wire.dialects.dialect import OPENAI, Voice
from gateway.wire.heartbeat import Heartbeat
from gateway.wire.line import Line, line_of
from gateway.wire.rendering import error_headers
from gateway.wire.running import RunningRequest

BODY_IDLE_S = 20.0
WRITE_TIMEOUT_S = 30.0
LAST_WRITE_S = 1.0
NOT_READING = "The client does not read its answer."
JSON_TYPE = "application/json"
SSE_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
)


async def read_body(scope: HTTPScope, receive: Receive, max_bytes: int, idle_s: float = BODY_IDLE_S) -> bytes:
    """Read the request body, refusing it as soon as it is known to be too large or compressed.

    Raises:
        BodyTooLarge: by its Content-Length, or by the bytes counted while reading.
        InvalidRequest: compressed.
        RequestTimeout: nothing more of it came for `idle_s` seconds.
        ClientGone: the connection closed before the body was complete.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > max_bytes:
            raise BodyTooLarge(f"The request body is larger than {max_bytes} bytes.")
        if name == b"content-encoding" and value != b"identity":
            raise InvalidRequest("Compressed request bodies are not accepted; send the JSON as it is.")
    line = line_of(scope)
    whole = None if line is None else line.body()
    if whole is not None:
        if len(whole) > max_bytes:
            raise BodyTooLarge(f"The request body is larger than {max_bytes} bytes.")
        return whole
    pieces: list[bytes] = []
    size_bytes = 0
    while True:
        try:
            with TimeLimit(idle_s):
                message = await receive()
        except TimeoutError as timeout:
            raise RequestTimeout(f"The rest of the request body did not arrive within {idle_s:g} s.") from timeout
        if message["type"] != "http.request":
            raise ClientGone("The client closed the connection.")
        pieces.append(message["body"])
        size_bytes += len(message["body"])
        if size_bytes > max_bytes:
            raise BodyTooLarge(f"The request body is larger than {max_bytes} bytes.")
        if not message["more_body"]:
            return b"".join(pieces)


class WriteWatch:
    """Ends a request whose client takes more than `limit_s` over one write: one timer for all writes of a stream.

    A timeout around each write does the same for some ten times the cost of relaying a frame.
    """

    def __init__(self, limit_s: float, running: RunningRequest) -> None:
        self._limit_s = limit_s
        self._running = running
        self._loop = asyncio.get_running_loop()
        self._is_writing = False
        self.last_s = 0.0
        """When the last write began, by the loop's clock."""

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(self._limit_s, self._check)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def begin(self) -> None:
        """Say that a write begins."""
        self.last_s = self._loop.time()
        self._is_writing = True

    def end(self) -> None:
        """Say that it is done."""
        self._is_writing = False

    def _check(self) -> None:
        now_s = self._loop.time()
        began_s = self.last_s if self._is_writing else now_s
        if now_s - began_s >= self._limit_s:
            self._running.end(ClientGone(NOT_READING))
        else:
            self._timer = self._loop.call_at(began_s + self._limit_s, self._check)


class _Passing:
    """Lets frames of an answer pass its reader and leave by the line at once, in as few writes as they arrived."""

    def __init__(self, flow_to: FlowTo, line: Line, writes: WriteWatch) -> None:
        self._flow_to = flow_to
        self._put = line.put
        self._writes = writes
        self._now_s = asyncio.get_running_loop().time
        self.is_ready = line.is_ready

    def __enter__(self) -> None:
        self._flow_to(self)

    def __exit__(self, *_: object) -> None:
        self._flow_to(None)

    def send(self, frames: Sequence[bytes]) -> None:
        """Send frames on."""
        self._writes.last_s = self._now_s()
        self._put(frames[0] if len(frames) == 1 else b"".join(frames))


class Reply:
    """The response of one request; it knows how far it is, so that an error never starts a second one.

    A client that does not read is given up after `write_timeout_s`, so that it cannot hold its slot for ever.
    """

    def __init__(
        self,
        scope: HTTPScope,
        send: Send,
        request_id: str,
        voice: Voice = OPENAI,
        write_timeout_s: float = WRITE_TIMEOUT_S,
        heartbeat_s: float = 0.0,
    ) -> None:
        self._heartbeat_s = heartbeat_s
        self.voice = voice
        self._line = line = line_of(scope)
        self._direct = line if line is not None and line.is_behind(send) else None
        self._send = send
        self._write_timeout_s = write_timeout_s
        self._request_id = request_id
        self._has_started = False
        self._is_stream = False
        self._has_ended = False

    async def answer(self, answer: Answer, running: RunningRequest) -> None:
        """Send an answer; once a stream has begun, an error goes out as an SSE error event without `[DONE]`."""
        if answer.stream:
            await self._stream(answer, running)
            return
        body = b"".join([chunk async for chunk in answer.chunks])
        running.completed()
        line = self._direct
        if line is not None and line.respond((("content-type", answer.content_type), *answer.headers), body):
            self._has_started = self._has_ended = True
        else:
            await self.whole(200, encode_headers(answer.headers), body, answer.content_type)

    async def _stream(self, answer: Answer, running: RunningRequest) -> None:
        self._has_started = self._is_stream = True
        last = b""
        try:
            with WriteWatch(self._write_timeout_s, running) as writes:
                writes.begin()
                headers = (*SSE_HEADERS, *answer.headers)
                if self._direct is None or not self._direct.begin(headers):
                    await self._send(_start(200, encode_headers(headers)))
                writes.end()
                with Heartbeat(self._heartbeat_s, self._send, self.voice, lambda: writes.last_s):
                    await self._relay(answer, writes)
        except ClientGone:
            raise
        except HeadgateError as error:
            last = self.voice.error_event(error)
            let_go(error)
        running.completed()
        await self._end(last)

    async def _relay(self, answer: Answer, writes: WriteWatch) -> None:
        """Send the pieces of a stream as they come; those that pass the reader leave without this loop."""
        line, flow_to = self._direct, answer.flow_to
        with nullcontext() if line is None or flow_to is None else _Passing(flow_to, line, writes):
            async for chunk in answer.chunks:
                writes.begin()
                if line is None or not line.write(chunk):
                    await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
                writes.end()

    async def whole(
        self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, content_type: str = JSON_TYPE
    ) -> None:
        """Send one whole response."""
        self._has_started = True
        described = [(b"content-type", content_type.encode("latin-1", "replace"))]
        length = (b"content-length", str(len(body)).encode())
        await self._end(body, _start(status, [*described, *headers, length]))

    async def error(self, error: HeadgateError) -> None:
        """Send an error object, or an SSE error event that ends a stream; from one that is gone the line is cut.

        A plain answer that failed while it was sent stays short of its length, which clients notice.
        """
        if not isinstance(error, ClientGone):
            with suppress(ClientGone):
                self._write_timeout_s = min(self._write_timeout_s, LAST_WRITE_S)
                await self._tell(error)
                return
        self._abort()
        await asyncio.sleep(0)  # the server learns of it in its next turn, and must before this handler returns

    async def _tell(self, error: HeadgateError) -> None:
        if self._has_ended:
            return
        if not self._has_started:
            headers = encode_headers([("x-request-id", self._request_id), *error_headers(error)])
            body = self.voice.error_body(error, self._request_id)
            await self.whole(error.http_status, headers, body)
        elif self._is_stream:
            await self._end(self.voice.error_event(error))

    async def _end(self, body: bytes, *before: HTTPSendMessage) -> None:
        """Send the last bytes, and what comes before them."""
        self._has_ended = True
        try:
            with TimeLimit(self._write_timeout_s):
                for message in before:
                    await self._send(message)
                await self._send({"type": "http.response.body", "body": body, "more_body": False})
        except TimeoutError as timeout:
            raise ClientGone(NOT_READING) from timeout

    def _abort(self) -> None:
        """Close the connection without sending what is buffered; our listeners' scopes say how."""
        if self._line is not None:
            self._line.abort()


def _start(status: int, headers: list[tuple[bytes, bytes]]) -> HTTPSendMessage:
    return {"type": "http.response.start", "status": status, "headers": headers}


def encode_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Encode header names and values for ASGI."""
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]
