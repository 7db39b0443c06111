"""Clients that neither send nor read, on the real listener's protocol: they are given up, and their lines are cut."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from litestar.types import HTTPScope

from core.errors import ClientGone, HeadgateError, RequestTimeout
from gateway.answer import Answer
from gateway.serving import listener
from gateway.wire.asgi import Reply, read_body
from gateway.wire.running import RunningRequest

HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"


class App:
    """Streams without end to whoever sent a body, and remembers how that ended."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[HeadgateError] = asyncio.get_running_loop().create_future()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        reply = Reply(cast(HTTPScope, scope), send, "req_1", write_timeout_s=0.2)
        try:
            await read_body(scope, receive, 100, idle_s=0.2)
            running = RunningRequest()
            with running.interruptible():
                await reply.answer(Answer(True, (), self._endless()), running)
        except HeadgateError as error:
            self.ended.set_result(error)
            await reply.error(error)

    async def _endless(self) -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Serve `app` and connect to it with a small window; both ends are closed when the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        bound.setblocking(False)
        server = listener(app)
        task = asyncio.create_task(server.serve(sockets=[bound]))
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, bound.getsockname())
        reader, writer = await asyncio.open_connection(sock=client, limit=1024)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            server.should_exit = True
            await task


async def test_a_client_that_does_not_read_is_given_up_and_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    async with serving(app) as (reader, writer):
        writer.write(HEAD + b"{}")
        assert isinstance(await app.ended, ClientGone)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert not answer.endswith(b"0\r\n\r\n"), "it must not look whole"
    assert caplog.records == []


async def test_a_client_that_does_not_finish_its_request_is_told_so() -> None:
    app = App()
    async with serving(app) as (reader, writer):
        writer.write(HEAD + b"{")
        assert isinstance(await app.ended, RequestTimeout)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"request_timeout"' in answer


async def test_a_slow_upstream_is_no_slow_client() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def slowly() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(0.1)
        yield b"b"

    async def reply() -> None:
        scope: Any = {}
        running = RunningRequest()
        with running.interruptible():
            await Reply(scope, send, "req_1", write_timeout_s=0.02).answer(Answer(True, (), slowly()), running)

    await asyncio.create_task(reply())
    assert [message["body"] for message in sent[1:]] == [b"a", b"b", b""]
