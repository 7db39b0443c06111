"""How requests travel to deployments: over connections of our own in the clear, by httpx and aiohttp over TLS."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import cast

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from httpx_aiohttp import AiohttpTransport

from backends.plain_http import KEEPALIVE_S, BrokenFramingError, Exchange, PlainHttp
from backends.protocol import Iterated, Pieces

INFLATED_BYTES = 256 * 1024
ZLIB_OR_GZIP = 47


class Transport:
    """The connections of deployments: plain ones, and those over TLS, whose costs do not grow with idle ones either."""

    def __init__(self, max_connections: int) -> None:
        self.plain = PlainHttp(max_connections)
        self.tls = _tls_transport(max_connections)

    async def aclose(self) -> None:
        """Close every connection."""
        await self.plain.aclose()
        await self.tls.aclose()


def http_transport(max_connections: int = 1_000) -> Transport:
    """Return a transport whose cost per request does not grow with idle connections; it keeps no cookies."""
    return Transport(max_connections)


def _tls_transport(max_connections: int) -> httpx.AsyncBaseTransport:
    def session() -> aiohttp.ClientSession:
        connector = _Connector(limit=max_connections, keepalive_timeout=KEEPALIVE_S)
        factory = partial(_Connection, loop=asyncio.get_running_loop())
        connector._factory = cast("partial[ResponseHandler]", factory)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent",),
            read_bufsize=2**18,
        )

    return AiohttpTransport(client=session, trust_env=False)


@dataclass(slots=True)
class PoolUse:
    """How one request uses the pool: `only_new` asks for a new connection, `kept` is the old one that it was given."""

    only_new: bool = False
    kept: "_Connection | None" = None


pool_use: ContextVar[PoolUse | None] = ContextVar("pool_use", default=None)


class _Connector(aiohttp.TCPConnector):
    """Tells whether a request was sent on a connection kept from before, which the upstream may just have closed."""

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        use = pool_use.get()
        if use is None:
            return await super()._get(key, traces)
        connection = None if use.only_new else await super()._get(key, traces)
        if connection is not None and isinstance(connection.protocol, _Connection):
            use.kept = connection.protocol
            use.kept.has_received = False
        return connection


class _Connection(ResponseHandler):
    """Wakes whoever reads a body whose framing broke: aiohttp 3.14 tells only who waits for a head."""

    has_received = False

    def data_received(self, data: bytes) -> None:
        self.has_received = True
        super().data_received(data)
        if self.exception() is not None and self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(aiohttp.ClientPayloadError("the framing of the answer is broken"))


class LibraryAnswer:
    """An answer that httpx received."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code

    def header(self, name: str) -> str | None:
        """Return the value of a header, None without it."""
        value: str | None = self._response.headers.get(name)
        return value

    def among(self, names: frozenset[str]) -> tuple[tuple[str, str], ...]:
        """Return those of the headers whose lower-case names are listed."""
        return tuple(pair for pair in self._response.headers.items() if pair[0].lower() in names)

    def pieces(self) -> Pieces:
        """Return the body as it arrives, decompressed."""
        is_encoded = "content-encoding" in self._response.headers
        return Iterated(self._response.aiter_bytes() if is_encoded else self._response.aiter_raw())

    async def close(self) -> None:
        """End the exchange."""
        await self._response.aclose()


class PlainAnswer:
    """An answer on a connection of our own."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.status = exchange.status

    def header(self, name: str) -> str | None:
        """Return the value of a header, None without it; names are ASCII in lower case."""
        wanted = name.encode()
        for had, value in self._exchange.headers:
            if had == wanted:
                return value.decode("latin-1")
        return None

    def among(self, names: frozenset[str]) -> tuple[tuple[str, str], ...]:
        """Return those of the headers whose lower-case names are listed."""
        read = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in self._exchange.headers)
        return tuple(pair for pair in read if pair[0] in names)

    def pieces(self) -> Pieces:
        """Return the body as it arrives, decompressed."""
        encoding = self.header("content-encoding")
        if encoding is None or (encoding := encoding.lower()) == "identity":
            return self._exchange
        raw = _iterated(self._exchange)
        if encoding in ("gzip", "deflate"):
            return Iterated(_inflated(raw))
        return Iterated(httpx.Response(self.status, headers={"content-encoding": encoding}, content=raw).aiter_bytes())

    async def close(self) -> None:
        """End the exchange."""
        self._exchange.close()


async def _iterated(exchange: Exchange) -> AsyncIterator[bytes]:
    while (piece := await exchange.next(None)) is not None:
        yield piece


async def _inflated(raw: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Decompress in pieces of bounded size: a few bytes may stand for gigabytes.

    Raises:
        BrokenFramingError: it cannot be decompressed.
    """
    inflating = zlib.decompressobj(wbits=ZLIB_OR_GZIP)
    try:
        async for piece in raw:
            while piece:
                if inflated := inflating.decompress(piece, INFLATED_BYTES):
                    yield inflated
                piece = inflating.unconsumed_tail
        if inflated := inflating.flush():
            yield inflated
    except zlib.error as problem:
        raise BrokenFramingError("the answer cannot be decompressed") from problem
