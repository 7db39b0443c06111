"""What a handler may do with its client's connection past ASGI, under our own listeners; under any other there is none.

ASGI's `send` checks each header by expressions and is a coroutine for each piece of a body. Here an answer's head is
checked once and leaves with its body in one write, and a piece of a stream leaves by a plain call; whenever the client
does not keep up, or anything is out of the ordinary, the caller is told and goes by `send`, which waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast
from weakref import ref

if TYPE_CHECKING:  # what only reads a scope needs no server
    from litestar.types import HTTPScope, Send
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

CONNECTION = "headgate.connection"
"""The extension of a scope that holds the `Line` of its request."""
LARGE_BYTES = 64 * 1024
OK_LINE = b"HTTP/1.1 200 OK\r\n"
CLOSE = b"connection: close\r\n"
OnLost = Callable[[Callable[[], None] | None], None]


class Line:
    """The connection of one request, beside uvicorn's own `cycle`, which always knows how far the response is."""

    __slots__ = ("_cycle", "_protocol", "on_lost")

    def __init__(self, protocol: HttpToolsProtocol, cycle: RequestResponseCycle, on_lost: OnLost) -> None:
        """Speak for `cycle`; `on_lost` takes what is to be called when the connection is lost, or None."""
        self._protocol = protocol
        self._cycle = ref(cycle)  # which holds the scope, and so this line
        self.on_lost = on_lost

    def is_behind(self, send: Send) -> bool:
        """Tell whether `send` is the server's own: where something wraps it, it has to see each message."""
        return getattr(send, "__self__", self) is self._cycle()

    def abort(self) -> None:
        """Close the connection without sending what is buffered."""
        self._protocol.transport.abort()

    def body(self) -> bytes | None:
        """Return the whole request body once it is there, which it mostly is when the handler starts, else None."""
        cycle = self._cycle()
        if cycle is None or cycle.more_body or cycle.disconnected:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()
        self._protocol.flow.resume_reading()
        return body

    def respond(self, headers: Iterable[tuple[str, str]], body: bytes) -> bool:
        """Send a whole answer with status 200 in one write; False, and nothing sent, where `send` has to do it."""
        cycle, transport = self._cycle(), self._protocol.transport
        head = None if cycle is None else self._head(cycle, [*headers, ("content-length", str(len(body)))])
        if cycle is None or head is None:
            return False
        cycle.response_complete = True
        if len(body) > LARGE_BYTES:
            transport.writelines((head, body))
        else:
            transport.write(head + body)
        cycle.message_event.set()
        if not cycle.keep_alive:
            transport.close()
        cycle.on_response()
        return True

    def begin(self, headers: Iterable[tuple[str, str]]) -> bool:
        """Send the head of a stream; False, and nothing sent, where `send` has to do it."""
        cycle = self._cycle()
        head = None if cycle is None else self._head(cycle, [*headers, ("transfer-encoding", "chunked")])
        if cycle is None or head is None:
            return False
        cycle.chunked_encoding = True
        self._protocol.transport.write(head)
        return True

    def write(self, piece: bytes) -> bool:
        """Send a piece of a stream that has begun; False, and nothing sent, where `send` has to wait with it."""
        if not self.is_ready():
            return False
        if piece:  # an empty chunk would be the end
            self.put(piece)
        return True

    def put(self, piece: bytes) -> None:
        """Send a piece, which is not empty, right after `is_ready` said that it can go."""
        self._protocol.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def is_ready(self) -> bool:
        """Tell whether a stream has begun and its client keeps up with it."""
        cycle, protocol = self._cycle(), self._protocol
        if cycle is None or not cycle.chunked_encoding or cycle.response_complete or cycle.disconnected:
            return False
        return not protocol.flow.write_paused and not protocol.transport.is_closing()

    def _head(self, cycle: RequestResponseCycle, headers: list[tuple[str, str]]) -> bytes | None:
        """Begin the response and return its head, None when it has begun, cannot be sent now, or would not be sound."""
        if cycle.response_started or cycle.disconnected or self._protocol.flow.write_paused:
            return None
        written = "".join([f"{name}: {value}\r\n" for name, value in headers])
        if written.count("\n") != len(headers) or written.count("\r") != len(headers) or "\0" in written:
            return None  # a header holds a line break
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        end = b"\r\n" if cycle.keep_alive else CLOSE + b"\r\n"
        return OK_LINE + written.encode("latin-1", "replace") + end


def line_of(scope: HTTPScope) -> Line | None:
    """Return the line of a request that one of our own listeners serves."""
    return cast("Line | None", (scope.get("extensions") or {}).get(CONNECTION))
