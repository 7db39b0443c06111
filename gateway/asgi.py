"""The bare ASGI work of the hot routes: read a bounded body, send an answer, notice a client that goes away."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from litestar.types import HTTPScope, Receive, Send

from core.errors import BodyTooLarge, ClientGone, HeadgateError, InvalidRequest
from gateway.answer import Answer
from gateway.rendering import error_body, error_event, error_headers

JSON_TYPE = (b"content-type", b"application/json")
SSE_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


async def read_body(scope: HTTPScope, receive: Receive, max_bytes: int) -> bytes:
    """Read the request body, refusing it as soon as it is known to be too large or compressed.

    Raises:
        BodyTooLarge: by its Content-Length, or by the bytes counted while reading.
        InvalidRequest: compressed.
        ClientGone: the connection closed before the body was complete.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > max_bytes:
            raise BodyTooLarge(f"The request body is larger than {max_bytes} bytes.")
        if name == b"content-encoding" and value != b"identity":
            raise InvalidRequest("Compressed request bodies are not accepted; send the JSON as it is.")
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone("The client closed the connection.")
        body += message["body"]
        if len(body) > max_bytes:
            raise BodyTooLarge(f"The request body is larger than {max_bytes} bytes.")
        if not message["more_body"]:
            return body


class DisconnectWatch:
    """Cancels the task that handles a request when its client goes away, until the answer is complete."""

    def __init__(self) -> None:
        self._complete = False

    def completed(self) -> None:
        """Say that the last byte is about to leave: what follows must not be cancelled any more."""
        self._complete = True

    @asynccontextmanager
    async def over(self, receive: Receive) -> AsyncIterator[None]:
        """Watch `receive` while the context lasts.

        Raises:
            ClientGone: the client closed the connection before `completed` was called.
        """
        task = asyncio.current_task()
        assert task is not None
        gone = asyncio.Event()

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            if not self._complete:
                gone.set()
                task.cancel()

        watcher = asyncio.create_task(watch())
        try:
            yield
        except asyncio.CancelledError:
            if not gone.is_set():
                raise
            task.uncancel()
            raise ClientGone("The client closed the connection.") from None
        finally:
            watcher.cancel()


async def send_answer(answer: Answer, send: Send, watch: DisconnectWatch) -> None:
    """Send an answer; once a stream has begun, an error goes out as an SSE error event without `[DONE]`."""
    headers = encode_headers(answer.headers)
    if not answer.stream:
        body = b"".join([chunk async for chunk in answer.chunks])
        watch.completed()
        await send_body(send, 200, [JSON_TYPE, *headers], body)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [*SSE_HEADERS, *headers]})
    try:
        async for chunk in answer.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except HeadgateError as error:
        await send({"type": "http.response.body", "body": error_event(error), "more_body": True})
    watch.completed()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def send_error(error: HeadgateError, request_id: str, send: Send) -> None:
    """Send an error object; a client that is gone gets nothing."""
    if isinstance(error, ClientGone):
        return
    headers = encode_headers([("x-request-id", request_id), *error_headers(error)])
    await send_body(send, error.http_status, [JSON_TYPE, *headers], error_body(error))


async def send_body(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Send one whole response."""
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def encode_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Encode header names and values for ASGI."""
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]
