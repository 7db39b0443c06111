"""Reads one HTTP/1.1 request from the bytes of a connection."""

from dataclasses import dataclass

HEAD_LIMIT_BYTES = 64 * 1024
BODY_LIMIT_BYTES = 64 * 1024 * 1024


class MalformedRequest(Exception):
    """The bytes are not an HTTP/1.x request within our limits."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request; header names are lower case, repeated headers are joined by a comma."""

    method: str
    target: str
    version: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def keeps_connection(self) -> bool:
        """Whether the client wants the connection kept after the answer."""
        wish = self.headers.get("connection", "").lower()
        return wish != "close" and (self.version == "HTTP/1.1" or wish == "keep-alive")


@dataclass(frozen=True, slots=True)
class Head:
    """A request whose body may still be on its way; `body_start` is an offset in the buffer."""

    method: str
    target: str
    version: str
    headers: dict[str, str]
    body_start: int


def read_head(buffer: bytes | bytearray) -> Head | None:
    """Parse the request line and headers, or return None while they are incomplete.

    Raises:
        MalformedRequest: when they are too long or not HTTP/1.x.
    """
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > HEAD_LIMIT_BYTES:
            raise MalformedRequest("the request head is above 64 KiB")
        return None
    first, *lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise MalformedRequest("the request line is not HTTP/1.x")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name = name.lower()
        headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
    return Head(parts[0], parts[1], parts[2], headers, end + 4)


def read_body(buffer: bytes | bytearray, head: Head) -> tuple[bytes, int] | None:
    """Return the body and the offset behind it, or None while it is incomplete.

    Raises:
        MalformedRequest: when its framing is wrong or it is above 64 MiB.
    """
    try:
        if "chunked" in head.headers.get("transfer-encoding", "").lower():
            return _read_chunks(buffer, head.body_start)
        length = int(head.headers.get("content-length", "0"))
    except ValueError as problem:
        raise MalformedRequest("the body's framing is not a number") from problem
    if not 0 <= length <= BODY_LIMIT_BYTES:
        raise MalformedRequest("the body is above 64 MiB")
    end = head.body_start + length
    return (bytes(buffer[head.body_start : end]), end) if len(buffer) >= end else None


def _read_chunks(buffer: bytes | bytearray, start: int) -> tuple[bytes, int] | None:
    pieces: list[bytes] = []
    while True:
        line_end = buffer.find(b"\r\n", start)
        if line_end < 0:
            return None
        size = int(bytes(buffer[start:line_end]).partition(b";")[0], 16)
        start = line_end + 2
        if not 0 <= size <= BODY_LIMIT_BYTES:
            raise MalformedRequest("a chunk is above 64 MiB")
        if len(buffer) < start + size + 2:
            return None
        if size == 0:
            return b"".join(pieces), start + 2
        pieces.append(bytes(buffer[start : start + size]))
        start += size + 2
