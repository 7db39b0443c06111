"""What a handler says past ASGI, read by a client of the real listener's protocol."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from litestar.types import HTTPScope

from gateway.answer import Answer, Headers
from gateway.serving import listener
from gateway.wire.asgi import Reply, read_body
from gateway.wire.line import Line, line_of
from gateway.wire.running import RunningRequest

REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
Handle = Callable[[Any, Any, Any], Awaitable[None]]


@asynccontextmanager
async def serving(handle: Handle) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Serve with `handle` and connect to it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await handle(scope, receive, send)

    with socket.create_server(("127.0.0.1", 0)) as bound:
        bound.setblocking(False)
        server = listener(app)
        task = asyncio.create_task(server.serve(sockets=[bound]))
        reader, writer = await asyncio.open_connection(*bound.getsockname())
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            server.should_exit = True
            await task


def answering(headers: Headers = (("x-a", "1"),), body: bytes = b"[]") -> Handle:
    """Answer whole, as the hot routes do."""

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    async def handle(scope: Any, receive: Any, send: Any) -> None:
        assert await read_body(scope, receive, 100) == b"{}"
        await Reply(cast(HTTPScope, scope), send, "req_1").answer(Answer(False, headers, chunks()), RunningRequest())

    return handle


async def whole(reader: asyncio.StreamReader, length: int = 2) -> tuple[list[bytes], bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    return head.strip().split(b"\r\n"), await reader.readexactly(length)


async def test_a_whole_answer_has_its_headers_and_length_and_leaves_the_connection_open() -> None:
    async with serving(answering()) as (reader, writer):
        for _ in range(2):
            writer.write(REQUEST)
            head = [b"HTTP/1.1 200 OK", b"content-type: application/json", b"x-a: 1", b"content-length: 2"]
            assert await whole(reader) == (head, b"[]")


async def test_pipelined_requests_are_answered_one_after_another() -> None:
    async with serving(answering()) as (reader, writer):
        writer.write(REQUEST * 3)
        assert [(await whole(reader))[1] for _ in range(3)] == [b"[]"] * 3


async def test_a_connection_that_is_not_kept_is_closed_behind_the_answer() -> None:
    async with serving(answering()) as (reader, writer):
        writer.write(REQUEST.replace(b"host: x", b"host: x\r\nconnection: close"))
        head, body = await whole(reader)
        assert b"connection: close" in head
        assert (body, await reader.read()) == (b"[]", b"")


@pytest.mark.parametrize("value", ["1\r\nx-evil: 1", "1\nx-evil: 1", "1\r", "1\0"])
async def test_a_header_that_would_end_its_line_is_never_sent(value: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(answering((("x-a", value),))) as (reader, writer):
        writer.write(REQUEST)
        assert await reader.read() == b"", "uvicorn closes the connection"
    assert [record.message for record in caplog.records] == ["Exception in ASGI application\n"]


async def test_whoever_wraps_the_servers_send_sees_each_message() -> None:
    seen: list[str] = []

    async def handle(scope: Any, receive: Any, send: Any) -> None:
        async def wrapped(message: Any) -> None:
            seen.append(message["type"])
            await send(message)

        await answering()(scope, receive, wrapped)

    async with serving(handle) as (reader, writer):
        writer.write(REQUEST)
        assert (await whole(reader))[1] == b"[]"
    assert seen == ["http.response.start", "http.response.body"]


async def test_a_body_that_comes_late_is_waited_for() -> None:
    async with serving(answering()) as (reader, writer):
        writer.write(REQUEST[:-1])
        await asyncio.sleep(0)
        writer.write(REQUEST[-1:])
        assert (await whole(reader))[1] == b"[]"


async def test_a_line_is_not_ready_before_its_stream_nor_after_it_nor_while_the_client_does_not_read() -> None:
    lines: list[Line] = []

    async def handle(scope: Any, receive: Any, send: Any) -> None:
        line = line_of(scope)
        assert line is not None
        lines.append(line)
        assert not line.is_ready()
        assert line.begin((("content-type", "text/event-stream"),))
        assert not line.begin(()), "a response begins once"
        while line.is_ready():
            line.write(b"x" * 65536)
        assert not line.write(b"y")
        lines.append(line)
        await send({"type": "http.response.body", "body": b"z", "more_body": False})

    async with serving(handle) as (reader, writer):
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding: chunked\r\n" in head
        body = bytearray()
        while not body.endswith(b"1\r\nz\r\n0\r\n\r\n"):
            body += await reader.read(65536)
        assert b"y" not in body
        assert len(lines) == 2
        assert not lines[0].is_ready()
