"""One lean connection to Redis that many callers share: commands of one loop turn leave in one write.

Replies come back in the order of the commands. A cancelled caller's place in that order stays, so its reply is read and
dropped: it can never reach another caller. Nobody waits longer than `timeout_s`, connecting included. When the oldest
command is late the connection is given up, everyone on it is told `StoreAway`, and a task of its own tries to connect
again; until it succeeds callers are told at once.

Over redis-py's client, which costs about four times the CPU, this gives up Sentinel and Cluster: for those
`redis_scripts.connect` still serves. Measured in benchmarks/results/ledger.json.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis
from redis.exceptions import NoScriptError, ResponseError

Part = str | bytes | int

RECONNECT_S = 0.05
RECONNECT_MOST_S = 1.0
_STALE = ("READONLY", "LOADING", "MASTERDOWN")
"""A server that answers so is not the one to talk to (any more)."""


class StoreAway(Exception):
    """Redis did not answer in time, or was left alone because it did not a moment ago; `may_have_run` tells which."""

    def __init__(self, may_have_run: bool) -> None:
        super().__init__()
        self.may_have_run = may_have_run


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens and who we are there."""

    host: str | None
    port: int
    path: str | None
    is_tls: bool
    user: str | None
    password: str | None
    database: int

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Read `redis://[user:password@]host[:port][/database]`, `rediss://...` or `unix://path`.

        Raises:
            ValueError: the URL is none of these.
        """
        parts = urlsplit(url)
        user = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        if parts.scheme == "unix":
            return cls(None, 0, parts.path, False, user, password, 0)
        if parts.scheme not in ("redis", "rediss"):
            raise ValueError(f"{parts.scheme!r} is not a scheme of Redis")
        database = int(parts.path.strip("/") or 0)
        host, port = parts.hostname or "127.0.0.1", parts.port or 6379
        return cls(host, port, None, parts.scheme == "rediss", user, password, database)

    def greeting(self) -> list[tuple[Part, ...]]:
        """Return the commands that a fresh connection begins with; their answers say whether it can be used."""
        commands: list[tuple[Part, ...]] = []
        if self.password is not None:
            commands.append(("AUTH", self.user, self.password) if self.user else ("AUTH", self.password))
        if self.database:
            commands.append(("SELECT", self.database))
        return [*commands, ("PING",)]


class Wire:
    """A shared connection; made without waiting, connected at the first call, bound to that event loop."""

    def __init__(
        self,
        url: str,
        timeout_s: float,
        *,
        channel: str | None = None,
        on_message: Callable[[bytes], None] | None = None,
        on_change: Callable[[bool], None] | None = None,
    ) -> None:
        """Prepare a connection.

        Args:
            url: see `Address.parse`.
            timeout_s: how long anyone waits for an answer.
            channel: what to subscribe to; such a connection answers no commands.
            on_message: called with every message of the channel.
            on_change: called with True when connected and with False when the connection is lost.
        """
        self.address = Address.parse(url)
        self._timeout_s = timeout_s
        self._channel = channel
        self._on_message = on_message
        self._on_change = on_change
        self._line: _Line | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._is_shut = False
        self._is_closed = False

    @property
    def is_shut(self) -> bool:
        """Tell whether the store failed and has not answered since."""
        return self._is_shut

    @property
    def is_connected(self) -> bool:
        """Tell whether a connection stands."""
        return self._line is not None

    async def execute_command(self, *parts: Part) -> Any:
        """Send one command and return its reply.

        Raises:
            StoreAway: no answer in time; when `may_have_run`, the command may have run nevertheless.
            ResponseError: the server refused the command.
        """
        line = self._line or await self._connected()
        return await line.send(_pack(parts))

    def start(self) -> None:
        """Connect in the background, as a subscription does."""
        if self._connecting is None and self._line is None and not self._is_closed:
            self._connecting = asyncio.create_task(self._connect())

    async def aclose(self) -> None:
        """Give the connection up; callers still waiting are told StoreAway."""
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        if self._line is not None:
            line = self._line
            line.abort()
            await line.gone.wait()

    async def __aenter__(self) -> "Wire":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def _connected(self) -> "_Line":
        if self._is_shut or self._is_closed:
            raise StoreAway(may_have_run=False)
        self.start()
        assert self._connecting is not None
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.shield(self._connecting)
        except TimeoutError as late:
            self._is_shut = True
            raise StoreAway(may_have_run=False) from late
        if self._line is None:
            raise StoreAway(may_have_run=False)
        return self._line

    async def _connect(self) -> None:
        """Try until it succeeds; the first failure shuts the store for callers."""
        pause_s = RECONNECT_S
        try:
            while True:
                try:
                    async with asyncio.timeout(max(self._timeout_s, 0.25)):
                        line = await self._dial()
                    break
                except (OSError, TimeoutError, StoreAway, ResponseError):
                    self._is_shut = True
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RECONNECT_MOST_S)
            self._line = line
            self._is_shut = False
        finally:
            self._connecting = None
        if self._on_change is not None:
            self._on_change(True)

    async def _dial(self) -> "_Line":
        loop, address = asyncio.get_running_loop(), self.address
        line = _Line(self._timeout_s, self._lost)
        try:
            if address.path is not None:
                await loop.create_unix_connection(lambda: line, address.path)
            else:
                await loop.create_connection(lambda: line, address.host or "", address.port, ssl=address.is_tls or None)
            await asyncio.gather(*(line.send(_pack(command)) for command in address.greeting()))
            if self._channel is not None:
                await line.send(_pack(("SUBSCRIBE", self._channel)))
                line.on_push = self._pushed
        except BaseException:
            line.abort()
            raise
        return line

    def _pushed(self, reply: Any) -> None:
        if self._on_message is not None and reply[0] == b"message":
            self._on_message(reply[2])

    def _lost(self, line: "_Line") -> None:
        if line is not self._line:
            return
        self._line = None
        self._is_shut = self._is_shut or line.was_late
        if self._on_change is not None:
            self._on_change(False)
        if not self._is_closed:
            self.start()


def _pack(command: tuple[Part, ...]) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub allows one part only
    return packed


class _Line(asyncio.Protocol):
    """One connection while it stands."""

    def __init__(self, timeout_s: float, on_lost: Callable[["_Line"], None]) -> None:
        self.was_late = False
        self.on_push: Callable[[Any], None] | None = None
        self.gone = asyncio.Event()
        self._timeout_s = timeout_s
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._is_lost = False

    def send(self, packed: bytes) -> "asyncio.Future[Any]":
        """Queue a command for the end of this turn of the loop."""
        if self._is_lost:
            raise StoreAway(may_have_run=False)
        reply: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((reply, monotonic() + self._timeout_s))
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout_s, self._look)
        return reply

    def abort(self) -> None:
        """Drop the connection; the replies that are still due are lost."""
        if self._transport is not None:
            self._transport.abort()
        self._drop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if self.on_push is not None:
                self.on_push(reply)
            elif self._waiting:
                self._answer(self._waiting.popleft()[0], reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._drop()
        self.gone.set()

    def _answer(self, waiting: "asyncio.Future[Any]", reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            if not waiting.done():
                waiting.set_exception(NoScriptError(text) if text.startswith("NOSCRIPT") else ResponseError(text))
            if text.startswith(_STALE):
                self.abort()
        elif not waiting.done():
            waiting.set_result(reply)

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _look(self, grace: int = 2) -> None:
        """Give up if the oldest answer is late; what lies in the socket is read first, should the loop have stood."""
        self._watch = None
        if not self._waiting or self._is_lost:
            return
        late_s = monotonic() - self._waiting[0][1]
        if late_s < 0:
            self._watch = self._loop.call_later(-late_s, self._look)
        elif grace:
            self._watch = self._loop.call_later(0.001, self._look, grace - 1)
        else:
            self.was_late = True
            self.abort()

    def _drop(self) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        if self._watch is not None:
            self._watch.cancel()
        for waiting, _ in self._waiting:
            if not waiting.done():
                waiting.set_exception(StoreAway(may_have_run=True))
        self._waiting.clear()
        self._on_lost(self)
