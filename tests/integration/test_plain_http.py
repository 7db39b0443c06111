"""The transport of our own against servers that send what a test says, byte by byte, over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from backends.plain_http import (
    MOST_UNREAD_BYTES,
    BrokenFramingError,
    CannotConnectError,
    Exchange,
    Origin,
    PlainHttp,
)
from tests.upstream.process import unused_port

HEAD = b"POST /v1 HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def asked(reader: asyncio.StreamReader) -> bytes:
    """Read one request."""
    head = await reader.readuntil(b"\r\n\r\n")
    return head + await reader.readexactly(2)


@asynccontextmanager
async def serving(serve: Serve, **limits: float) -> AsyncIterator[tuple[PlainHttp, Origin, list[int]]]:
    """Serve every connection with `serve`; yields the client, where to, and a count of connections."""
    connections: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(len(connections))
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    client = PlainHttp(**limits)  # type: ignore[arg-type]
    try:
        yield client, ("127.0.0.1", server.sockets[0].getsockname()[1]), connections
    finally:
        await client.aclose()
        server.close()


def saying(*answers: bytes) -> Serve:
    """Answer each request of a connection with the next of `answers`, and close after the last."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await asked(reader)
            writer.write(answer)
        await writer.drain()

    return serve


async def always(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await asked(reader)
        writer.write(OK)


async def body_of(exchange: Exchange) -> bytes:
    body = bytearray()
    await read_into(body, exchange)
    exchange.close()
    return bytes(body)


async def read_into(came: bytearray, exchange: Exchange) -> None:
    while (piece := await exchange.next(None)) is not None:
        came += piece


async def test_a_connection_is_used_again_after_an_answer_was_read() -> None:
    async with serving(always) as (client, origin, connections):
        for _ in range(3):
            assert await body_of(await client.send(origin, HEAD, b"{}")) == b"hello"
        assert len(connections) == 1


async def test_an_answer_that_was_not_read_to_its_end_costs_the_connection() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        assert await reader.read() == b""  # the client is gone: the work ends

    async with serving(endless) as (client, origin, connections):
        for count in (1, 2):
            exchange = await client.send(origin, HEAD, b"{}")
            assert await exchange.next(None) == b"one"
            exchange.close()
            assert len(connections) == count


async def test_a_request_that_meets_a_connection_closed_meanwhile_is_sent_once_more() -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await asked(reader))
        writer.write(OK)
        await asked(reader)  # the second request of a connection finds it closed

    async with serving(serve) as (client, origin, connections):
        assert await body_of(await client.send(origin, HEAD, b"{}")) == b"hello"
        assert await body_of(await client.send(origin, HEAD, b"{}")) == b"hello"
        assert (len(connections), len(seen)) == (2, 2)


async def test_a_head_that_is_late_is_a_timeout_on_a_new_connection_and_on_a_kept_one() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        if len(connections) == 1:
            writer.write(OK)
        await reader.read()  # no answer: the client gives up

    async with serving(once) as (client, origin, connections):
        await body_of(await client.send(origin, HEAD, b"{}", 60.0))
        for count in (1, 2):
            with pytest.raises(TimeoutError):
                await client.send(origin, HEAD, b"{}", 0.05)
            assert len(connections) == count


async def test_the_limit_of_an_earlier_request_does_not_cut_a_later_one() -> None:
    first_is_over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(OK)
        await asked(reader)
        await first_is_over.wait()
        writer.write(OK)

    async with serving(serve) as (client, origin, connections):
        await body_of(await client.send(origin, HEAD, b"{}", 0.02))
        asyncio.get_running_loop().call_later(0.05, first_is_over.set)
        assert await body_of(await client.send(origin, HEAD, b"{}", 60.0)) == b"hello"
        assert len(connections) == 1


async def test_what_arrived_with_the_head_needs_no_waiting() -> None:
    async with serving(always) as (client, origin, _):
        exchange = await client.send(origin, HEAD, b"{}")
        assert (exchange.arrived(), exchange.arrived()) == (b"hello", None)
        exchange.close()


async def test_a_new_connection_that_is_closed_without_an_answer_is_an_error() -> None:
    async with serving(saying(b"")) as (client, origin, connections):
        with pytest.raises(ConnectionError):
            await client.send(origin, HEAD, b"{}")
        assert len(connections) == 1


async def test_a_second_request_that_was_half_answered_is_not_sent_again() -> None:
    async with serving(saying(OK, b"HTTP/1.1 200")) as (client, origin, connections):
        await body_of(await client.send(origin, HEAD, b"{}"))
        with pytest.raises(ConnectionError):
            await client.send(origin, HEAD, b"{}")
        assert len(connections) == 1


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", b"old"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"hello"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK, b"hello"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\none\r\n0\r\ntrailer: t\r\n\r\n", b"one"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", b"ok"),
    ],
)
async def test_every_way_to_end_a_body_is_understood(answer: bytes, body: bytes) -> None:
    async with serving(saying(answer)) as (client, origin, _):
        exchange = await client.send(origin, HEAD, b"{}")
        assert (exchange.status, await body_of(exchange)) == (200, body)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\nnonsense\r\n",
    ],
)
async def test_a_body_that_breaks_off_is_given_as_far_as_it_came(answer: bytes) -> None:
    async with serving(saying(answer)) as (client, origin, _):
        exchange, came = await client.send(origin, HEAD, b"{}"), bytearray()
        with pytest.raises(ConnectionError):
            await read_into(came, exchange)
        exchange.close()
        assert came == b"short"


@pytest.mark.parametrize("answer", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n"])
async def test_what_is_no_http_or_has_too_long_a_head_is_refused(answer: bytes) -> None:
    async with serving(saying(answer)) as (client, origin, _):
        with pytest.raises(BrokenFramingError):
            await client.send(origin, HEAD, b"{}")


async def test_bytes_behind_an_answer_cost_the_connection_and_are_never_the_next_answer() -> None:
    async with serving(saying(OK + OK.replace(b"hello", b"wrong"), OK)) as (client, origin, connections):
        for _ in range(2):
            assert await body_of(await client.send(origin, HEAD, b"{}")) == b"hello"
        assert len(connections) == 2


async def test_nobody_listening_is_told_apart() -> None:
    client = PlainHttp()
    with pytest.raises(CannotConnectError):
        await client.send(("127.0.0.1", unused_port()), HEAD, b"{}")
    await client.aclose()


async def test_a_reader_that_pauses_holds_the_upstream_up() -> None:
    sent, piece = [0], b"x" * 65_536

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (1_000 * len(piece)))
        for _ in range(1_000):
            writer.write(piece)
            await writer.drain()
            sent[0] += len(piece)

    async with serving(flood) as (client, origin, _):
        exchange = await client.send(origin, HEAD, b"{}")
        before = -1
        while sent[0] != before:  # until the server is held up by what nobody reads
            before = sent[0]
            for _ in range(200):
                await asyncio.sleep(0)
        assert exchange._unread_bytes < MOST_UNREAD_BYTES + 1_000_000
        assert sent[0] < 1_000 * len(piece)
        assert len(await body_of(exchange)) == 1_000 * len(piece)


async def test_beyond_the_limit_requests_wait_for_a_connection() -> None:
    async with serving(always, max_connections=2) as (client, origin, connections):

        async def ask() -> bytes:
            return await body_of(await client.send(origin, HEAD, b"{}"))

        assert await asyncio.gather(*(ask() for _ in range(20))) == [b"hello"] * 20
        assert len(connections) == 2


async def test_a_waiter_that_gives_up_leaves_its_place_to_the_next() -> None:
    async with serving(always, max_connections=1) as (client, origin, _):
        first = await client.send(origin, HEAD, b"{}")
        waiters = [asyncio.create_task(client.send(origin, HEAD, b"{}")) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[0].cancel()
        assert await body_of(first) == b"hello"
        waiters[1].cancel()  # woken in this very turn, perhaps
        assert await body_of(await waiters[2]) == b"hello"


async def test_an_idle_connection_of_one_server_makes_room_for_another() -> None:
    async with serving(always, max_connections=1) as (client, origin, _), serving(always) as (_, other, connections):
        await body_of(await client.send(origin, HEAD, b"{}"))
        assert await body_of(await client.send(other, HEAD, b"{}")) == b"hello"
        assert len(connections) == 1


async def test_idle_connections_are_closed_after_their_time() -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(OK)
        assert await reader.read() == b""
        ended.set()

    async with serving(serve, keepalive_s=0.05) as (client, origin, _):
        await body_of(await client.send(origin, HEAD, b"{}"))
        async with asyncio.timeout(10):
            await ended.wait()


async def test_a_cancelled_request_closes_its_connection() -> None:
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await asked(reader)
        arrived.set()
        assert await reader.read() == b""
        ended.set()

    arrived = asyncio.Event()
    async with serving(silent) as (client, origin, _):
        asking = asyncio.create_task(client.send(origin, HEAD, b"{}"))
        await arrived.wait()
        asking.cancel()
        async with asyncio.timeout(10):
            await ended.wait()
        assert asking.cancelled() or asking.cancelling()


async def test_a_large_body_arrives_whole() -> None:
    length = 3_000_000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        received = await reader.readexactly(length)
        text = str(received.count(b"z")).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))

    async with serving(serve) as (client, origin, _):
        head = b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: %d\r\n\r\n" % length
        assert await body_of(await client.send(origin, head, b"z" * length)) == b"3000000"


PIECES = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\na;\r\n"


async def flowing(took: list[bytes], takes: Callable[[bytes], int], *more: bytes) -> tuple[list[bytes], list[bytes]]:
    """Read an answer whose pieces come one by one, each once the one before arrived; `takes` says how much passes."""
    moved = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(PIECES)
        for piece in more:
            await moved.wait()
            moved.clear()
            writer.write(piece)
        await reader.read()

    def take(data: bytes) -> int:
        took.append(data)
        count = takes(data)
        if count == len(data):
            moved.set()
        return count

    read: list[bytes] = []
    async with serving(serve) as (client, origin, _):
        exchange = await client.send(origin, HEAD, b"{}")
        exchange.flow_to(take)
        while (piece := await exchange.next(5.0)) is not None:
            read.append(piece)
            moved.set()
        exchange.close()
    return took, read


async def test_what_is_taken_as_it_arrives_never_wakes_the_reader() -> None:
    took, read = await flowing([], len, b"2\r\nb;\r\n", b"2\r\nc;\r\n", b"0\r\n\r\n")
    assert took[-2:] == [b"b;", b"c;"]
    assert read in ([], [b"a;"]), "the first piece may have come with the head"


async def test_what_is_not_taken_goes_to_the_reader_in_its_place() -> None:
    took, read = await flowing([], lambda data: data.find(b"!") + 1, b"5\r\nb!c;d\r\n", b"1\r\n!\r\n", b"0\r\n\r\n")
    assert (took[-2:], read) == ([b"b!c;d", b"!"], [b"a;", b"c;d"])


async def test_a_reader_past_whom_pieces_flow_has_the_limit_that_was_set_last() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(PIECES)
        await reader.read()

    async with serving(serve) as (client, origin, _):
        exchange = await client.send(origin, HEAD, b"{}")
        assert await exchange.next(5.0) == b"a;"
        loop = asyncio.get_running_loop()
        loop.call_soon(exchange.limit, 0.01)
        with pytest.raises(TimeoutError):
            await exchange.next(3600.0)
        exchange.close()


async def test_an_upstream_that_breaks_its_framing_fails_the_reader_past_whom_it_flowed() -> None:
    with pytest.raises(BrokenFramingError):
        await flowing([], len, b"2\r\nb;\r\n", b"no chunk\r\n")
