"""Reading an answer ahead of its client: order, bounds, errors and the end of it."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from gateway.wire.read_ahead import ReadAhead


class Source:
    """Yields numbered chunks when it is let, and remembers how far it was read."""

    def __init__(self, count: int, fails_after: int | None = None) -> None:
        self.read = 0
        self.is_closed = False
        self._count = count
        self._fails_after = fails_after

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            for n in range(self._count):
                if n == self._fails_after:
                    raise ValueError("broken off")
                self.read = n + 1
                yield bytes([n])
                await asyncio.sleep(0)
        finally:
            self.is_closed = True


async def turns(count: int = 100) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_without_followers_nothing_is_read_before_it_is_asked_for() -> None:
    source = Source(5)
    chunks = ReadAhead(source.chunks()).chunks()
    assert [await anext(chunks), await anext(chunks)] == [b"\x00", b"\x01"]
    await turns()
    assert source.read == 2
    assert [chunk async for chunk in chunks] == [b"\x02", b"\x03", b"\x04"]


async def test_with_followers_the_rest_is_read_although_the_client_is_slow() -> None:
    source = Source(5)
    ahead = ReadAhead(source.chunks())
    chunks = ahead.chunks()
    first = await anext(chunks)
    ahead.begin()
    await turns()
    assert source.read == 5
    assert [first, *[chunk async for chunk in chunks]] == [bytes([n]) for n in range(5)]


async def test_a_follower_that_comes_while_a_chunk_is_awaited_disturbs_nothing() -> None:
    source = Source(50)
    ahead = ReadAhead(source.chunks())
    received: list[bytes] = []

    async def consume() -> None:
        async for chunk in ahead.chunks():
            received.append(chunk)

    consuming = asyncio.create_task(consume())
    await turns(5)
    ahead.begin()
    await consuming
    assert received == [bytes([n]) for n in range(50)]


async def test_the_buffer_has_a_bound() -> None:
    source = Source(100)
    ahead = ReadAhead(source.chunks(), max_bytes=10)
    chunks = ahead.chunks()
    await anext(chunks)
    ahead.begin()
    await turns(500)
    assert source.read == 12
    assert len([chunk async for chunk in chunks]) == 99


@pytest.mark.parametrize("is_ahead", [True, False])
async def test_an_error_comes_after_what_was_read_before_it(is_ahead: bool) -> None:
    ahead = ReadAhead(Source(9, fails_after=3).chunks())
    received: list[bytes] = []

    async def consume() -> None:
        async for chunk in ahead.chunks():
            received.append(chunk)
            if is_ahead:
                ahead.begin()

    with pytest.raises(ValueError, match="broken off"):
        await consume()
    assert received == [b"\x00", b"\x01", b"\x02"]


async def test_a_client_that_leaves_ends_the_reading() -> None:
    source = Source(1_000)
    ahead = ReadAhead(source.chunks(), max_bytes=10)
    chunks = ahead.chunks()
    await anext(chunks)
    ahead.begin()
    await turns()
    await chunks.aclose()
    assert source.is_closed
