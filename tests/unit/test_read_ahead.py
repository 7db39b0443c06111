"""Reading an answer ahead of its client: order, bounds, errors and the end of it."""

import asyncio

import pytest

from gateway.wire.read_ahead import ReadAhead


class Source:
    """Returns numbered chunks when it is let, and remembers how far it was read."""

    def __init__(self, count: int, fails_after: int | None = None) -> None:
        self.read = 0
        self._count = count
        self._fails_after = fails_after

    async def next(self) -> bytes | None:
        await asyncio.sleep(0)
        if self.read == self._fails_after:
            raise ValueError("broken off")
        if self.read == self._count:
            return None
        self.read += 1
        return bytes([self.read - 1])


async def turns(count: int = 100) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def rest(ahead: ReadAhead) -> list[bytes]:
    chunks = []
    while (chunk := await ahead.next()) is not None:
        chunks.append(chunk)
    return chunks


async def test_all_is_read_although_the_client_is_slow() -> None:
    source = Source(5)
    ahead = ReadAhead(source.next)
    await turns()
    assert source.read == 5
    assert await rest(ahead) == [bytes([n]) for n in range(5)]


async def test_a_client_that_waits_gets_each_chunk_as_it_comes() -> None:
    assert await rest(ReadAhead(Source(50).next)) == [bytes([n]) for n in range(50)]


async def test_the_buffer_has_a_bound() -> None:
    source = Source(100)
    ahead = ReadAhead(source.next, max_bytes=10)
    await turns(500)
    assert source.read == 11
    assert len(await rest(ahead)) == 100


async def test_an_error_comes_after_what_was_read_before_it() -> None:
    ahead = ReadAhead(Source(9, fails_after=3).next)
    await turns()
    assert [await ahead.next() for _ in range(3)] == [b"\x00", b"\x01", b"\x02"]
    with pytest.raises(ValueError, match="broken off"):
        await ahead.next()


async def test_a_client_that_leaves_ends_the_reading() -> None:
    source = Source(1_000)
    ahead = ReadAhead(source.next, max_bytes=10)
    await ahead.next()
    await turns()
    await ahead.close()
    read = source.read
    await turns()
    assert source.read == read
