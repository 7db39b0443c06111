"""HTTP/1.1 without TLS over connections of our own, for engines beside us: bytes out, bytes in, no objects between.

A client library builds a request and a response out of some hundred calls, which is more than all that we do for a
request. Here a request is a head and a body that are written as they are, and an answer is what the parser (httptools)
hands over. A connection is used again when its answer was read to its end, the youngest first, and the cost of a
request does not depend on how many are open.

What a connection may meet: the upstream closes an idle one (it is dropped at once), or just as a request is written to
it (the request is sent once more on a new one, as no byte of an answer came); it answers before it has read all, breaks
its framing, or sends what nobody asked for (the connection is closed); we stop reading (the connection is closed, which
ends the work upstream); our reader is slower than the upstream (we stop reading from the socket meanwhile).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from copy import copy
from typing import Any

import httptools

from core.time_limit import TimeLimit

MAX_CONNECTIONS = 1_000
KEEPALIVE_S = 30.0
CONNECT_TIMEOUT_S = 5.0
MAX_HEAD_BYTES = 64 * 1024
MOST_UNREAD_BYTES = 256 * 1024
LARGE_BYTES = 64 * 1024
LATE_S = 0.005
"""A limit may be kept so much later, so that one timer serves all waits on a connection."""
EARLY_S = 0.001
"""Timers are as fine as this."""
Origin = tuple[str, int]


class CannotConnectError(ConnectionError):
    """No connection could be opened."""


class BrokenFramingError(ConnectionError):
    """What arrived is no HTTP, or not all of what was announced."""


class Exchange(asyncio.Protocol):
    """One connection and the answer that is on it; `status` and `headers` (lower-case names) are known after `ask`."""

    def __init__(self, pool: "PlainHttp", origin: Origin) -> None:
        self.origin = origin
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.has_received = False
        self.is_closed = False
        self.idle_since_s = 0.0
        self._pool = pool
        self.loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._pieces: list[bytes] = []
        self._unread_bytes = 0
        self._head_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._take: Callable[[bytes], int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self._limit_at_s: float | None = None
        self._failure: OSError | None = None
        self._has_head = False
        self._is_complete = False
        self.is_spoiled = False
        self._is_paused = False

    @property
    def has_connection(self) -> bool:
        """Tell whether a connection was made and not lost again."""
        return self._transport is not None and not self.is_closed

    async def ask(self, head: bytes, body: bytes, limit_s: float | None) -> None:
        """Send a request and wait for the head of its answer.

        Raises:
            OSError: the connection was lost, or what came is no HTTP; `has_received` tells whether anything came.
            TimeoutError: the head was not there within `limit_s` seconds.
        """
        assert self._transport is not None
        self.status, self.headers, self._head_bytes = 0, [], 0
        self.has_received = self._has_head = self._is_complete = False
        self._parser = httptools.HttpResponseParser(self)
        if len(body) > LARGE_BYTES:
            self._transport.writelines((head, body))
        else:
            self._transport.write(head + body)
        try:
            await self._something(limit_s)
            while not self._has_head:
                await self._something(_left_s(self._limit_at_s))
        except BaseException:
            self.abort()
            raise

    async def next(self, limit_s: float | None) -> bytes | None:
        """Return what has arrived of the body, and wait while nothing has; None at its end.

        Raises:
            OSError: it broke off; everything before was returned.
            TimeoutError: nothing came within `limit_s` seconds.
        """
        while (data := self.arrived()) == b"":
            await self._something(limit_s)
        return data

    def arrived(self) -> bytes | None:
        """Return what has arrived of the body, empty when nothing has, None at its end."""
        pieces = self._pieces
        if not pieces:
            return None if self._is_complete else b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._unread_bytes = 0
        self._resume()
        return data

    def flow_to(self, take: Callable[[bytes], int] | None) -> None:
        """Let `take` see first what arrives for a reader that waits; see `Flow`."""
        self._take = take

    def limit(self, limit_s: float) -> None:
        """Have the timer ring in time for the wait under way; one that rings earlier looks what is waited for then."""
        self._limit_at_s = at_s = self.loop.time() + limit_s
        if self._timer is None or at_s < self._timer_at_s - LATE_S:
            self._stop_timer()
            self._timer, self._timer_at_s = self.loop.call_at(at_s, self._ring), at_s

    def close(self) -> None:
        """End the exchange: a connection whose answer was read to its end is kept, any other is closed."""
        transport = self._transport
        if (
            transport is None
            or self.is_closed
            or not self._is_complete
            or self.is_spoiled
            or self._is_paused
            or transport.is_closing()
            or transport.get_write_buffer_size()
        ):
            self.abort()
            return
        self._parser, self._waiter, self._pieces, self._unread_bytes = None, None, [], 0
        self._pool.keep(self)  # with its timer, which mostly rings early enough for the next request's limit, too

    def abort(self) -> None:
        """Close the connection, whatever is on it."""
        self.is_spoiled = True
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    def _something(self, limit_s: float | None) -> "asyncio.Future[None]":
        """Return what is done once something arrives, or nothing did in time.

        Raises:
            OSError: nothing more will.
        """
        if self._failure is not None:
            raise copy(self._failure)  # one that was raised leads back here, past the frames it went through
        self._waiter = self.loop.create_future()
        self._limit_at_s = None
        if limit_s is not None:
            self.limit(limit_s)
        return self._waiter

    def _ring(self) -> None:
        self._timer = None
        at_s, waiter = self._limit_at_s, self._waiter
        if at_s is None or waiter is None or waiter.done():
            return
        if at_s > self.loop.time() + EARLY_S:
            self._timer, self._timer_at_s = self.loop.call_at(at_s, self._ring), at_s
        else:
            self._waiter = None  # the error will lead back here, past the frames that it goes through
            waiter.set_exception(TimeoutError())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _resume(self) -> None:
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, failure: OSError) -> None:
        if self._failure is None:
            self._failure = failure
        self.abort()
        self._wake()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are no subclasses

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; between two answers nothing may arrive."""
        self.has_received = True
        if self._parser is None:
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(BrokenFramingError("the upstream changes the protocol"))
        except httptools.HttpParserError as problem:
            if not self._is_complete:
                self._fail(BrokenFramingError(str(problem)))
            self.is_spoiled = True
        if self._take is not None:
            self._flow(self._take)

    def _flow(self, take: Callable[[bytes], int]) -> None:
        """Let what arrived in this read pass the reader, who wakes for the rest of it and for the end."""
        waiter = self._waiter
        if self._pieces and waiter is not None and not waiter.done():
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            if (taken := take(data)) == len(data):
                self._pieces.clear()
                self._resume()
            else:
                self._pieces = [data[taken:]]
            self._unread_bytes = len(data) - taken
        if self._pieces or self._is_complete:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end, which is also that of a body without a length."""
        self.is_closed = True
        self._stop_timer()
        self._pool.lost(self)
        was_asked, self._parser = self._parser is not None, None  # the parser's callbacks are ours: a circle
        if not was_asked or self._is_complete:
            return
        if self._failure is None and exc is None and self._has_head and self._ends_with_connection():
            self._is_complete = True
        elif self._failure is None:
            self._failure = ConnectionResetError("the connection was closed")
            if isinstance(exc, OSError) and not isinstance(exc, TimeoutError):  # which stands for a limit of ours
                self._failure = exc
        self._wake()

    def _ends_with_connection(self) -> bool:
        return not any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)

    def on_message_begin(self) -> None:
        """Notice an answer that nobody asked for."""
        self.is_spoiled = self.is_spoiled or self._is_complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError("the head of the answer is too long")
        if not self._has_head:  # not a trailer
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Know the answer's head, unless it announces another one."""
        if self._is_complete:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers = []
            return
        self._has_head = True
        self._wake()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._is_complete:
            return
        self._pieces.append(body)
        self._unread_bytes += len(body)
        if self._unread_bytes > MOST_UNREAD_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        if self._take is None:
            self._wake()

    def on_message_complete(self) -> None:
        """Know that the body is complete."""
        if not self._has_head or self._is_complete:
            return
        self._is_complete = True
        self.is_spoiled = self.is_spoiled or not self._parser.should_keep_alive()
        if self._take is None:
            self._wake()


class PlainHttp:
    """Connections to any number of servers; `max_connections` bounds them all together."""

    def __init__(self, max_connections: int = MAX_CONNECTIONS, keepalive_s: float = KEEPALIVE_S) -> None:
        self._max_connections = max_connections
        self._keepalive_s = keepalive_s
        self._idle: dict[Origin, deque[Exchange]] = {}
        self._open: set[Exchange] = set()
        self._opening = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._sweeping: asyncio.TimerHandle | None = None

    async def send(self, origin: Origin, head: bytes, body: bytes, limit_s: float | None = None) -> Exchange:
        """Send a request and return its exchange once the head of the answer is there; the caller closes it.

        A request that meets a connection which the upstream has just closed is sent once more, on a new one.

        Raises:
            OSError: no connection, or it was lost before the head was complete.
            TimeoutError: the head was not there within `limit_s` seconds.
        """
        end_s = None if limit_s is None else asyncio.get_running_loop().time() + limit_s
        exchange, was_kept = self._kept(origin), True
        if exchange is None:
            with TimeLimit(limit_s):
                exchange, was_kept = await self._acquired(origin)
            limit_s = _left_s(end_s)
        try:
            await exchange.ask(head, body, limit_s)
        except OSError as problem:
            if not was_kept or exchange.has_received or isinstance(problem, BrokenFramingError | TimeoutError):
                raise
            with TimeLimit(_left_s(end_s)):
                exchange = await self._new(origin)
            await exchange.ask(head, body, _left_s(end_s))
        return exchange

    def keep(self, exchange: Exchange) -> None:
        """Keep a connection for the next request."""
        exchange.idle_since_s = exchange.loop.time()
        self._idle.setdefault(exchange.origin, deque()).append(exchange)
        if self._sweeping is None:
            self._sweeping = exchange.loop.call_later(self._keepalive_s, self._sweep)
        self._room()

    def lost(self, exchange: Exchange) -> None:
        """Forget a connection; one that was idle is skipped when it is met."""
        self._open.discard(exchange)
        self._room()

    async def aclose(self) -> None:
        """Close every connection."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for exchange in tuple(self._open):
            exchange.abort()
        self._idle.clear()

    async def _acquired(self, origin: Origin) -> tuple[Exchange, bool]:
        """Return a connection, and whether it was kept from before."""
        while True:
            kept = self._kept(origin)
            if kept is not None:
                return kept, True
            if len(self._open) + self._opening < self._max_connections:
                return await self._new(origin), False
            if not self._evict():
                await self._wait_for_room()

    def _kept(self, origin: Origin) -> Exchange | None:
        idle = self._idle.get(origin)
        while idle:
            exchange = idle.pop()
            if not exchange.is_closed and not exchange.is_spoiled:
                return exchange
        return None

    async def _new(self, origin: Origin) -> Exchange:
        exchange = Exchange(self, origin)
        self._opening += 1
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await exchange.loop.create_connection(lambda: exchange, *origin)
        except (OSError, TimeoutError) as problem:
            raise CannotConnectError(f"no connection to {origin[0]}:{origin[1]}") from problem
        except BaseException:
            exchange.abort()
            raise
        finally:
            self._opening -= 1
            if exchange.has_connection:
                self._open.add(exchange)
            else:
                self._room()
        return exchange

    def _evict(self) -> bool:
        """Close the longest idle connection of any server; False when none is idle."""
        oldest = min((idle[0] for idle in self._idle.values() if idle), key=lambda one: one.idle_since_s, default=None)
        if oldest is None:
            return False
        self._idle[oldest.origin].popleft()
        self._open.discard(oldest)
        oldest.abort()
        return True

    async def _wait_for_room(self) -> None:
        room = asyncio.get_running_loop().create_future()
        self._waiting.append(room)
        try:
            await room
        except asyncio.CancelledError:
            if room.done() and not room.cancelled():
                self._room()
            raise

    def _room(self) -> None:
        while self._waiting:
            room = self._waiting.popleft()
            if not room.done():
                room.set_result(None)
                return

    def _sweep(self) -> None:
        """Close what has been idle for too long."""
        self._sweeping = None
        loop = asyncio.get_running_loop()
        for origin, idle in list(self._idle.items()):
            while idle and (idle[0].is_closed or loop.time() - idle[0].idle_since_s >= self._keepalive_s):
                idle.popleft().abort()
            if not idle:
                del self._idle[origin]
        if self._idle:
            first_s = min(idle[0].idle_since_s for idle in self._idle.values())
            self._sweeping = loop.call_at(first_s + self._keepalive_s, self._sweep)


def _left_s(end_s: float | None) -> float | None:
    """Return what is left until a moment on the loop's clock."""
    return None if end_s is None else max(0.0, end_s - asyncio.get_running_loop().time())
