"""Remembers what the upstream saw and how each request ended, within a fixed bound."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

RECORD_LIMIT = 10_000
BODY_LIMIT_BYTES = 64 * 1024


@dataclass(slots=True)
class Sighting:
    """One request and its fate; `state` is `open` until the answer ends.

    States: `complete`, `disconnected` (the client left first), `cut`, `close`, `reset`, `badchunk`, `dropped`,
    `refused`. Times are seconds of the monotonic clock of the server process.
    """

    number: int
    connection: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    body_bytes: int = 0
    script: str = ""
    state: str = "open"
    chunks_sent: int = 0
    bytes_sent: int = 0
    arrived_s: float = field(default_factory=time.monotonic)
    ended_s: float | None = None
    on_end: Callable[[int], None] | None = None

    def end(self, state: str) -> None:
        """Settle the state once; later endings are ignored."""
        if self.state == "open":
            self.state = state
            self.ended_s = time.monotonic()
            if self.on_end is not None:
                self.on_end(self.number)

    def describe(self) -> dict[str, Any]:
        """Render as JSON-ready values; a body above 64 KiB, or one that is not JSON, is given as null."""
        return {
            "number": self.number,
            "connection": self.connection,
            "method": self.method,
            "path": self.path,
            "headers": self.headers,
            "body": _json_or_none(self.body),
            "body_bytes": self.body_bytes,
            "script": self.script,
            "state": self.state,
            "disconnected": self.state == "disconnected",
            "chunks_sent": self.chunks_sent,
            "bytes_sent": self.bytes_sent,
            "arrived_s": self.arrived_s,
            "ended_s": self.ended_s,
        }


class Record:
    """The last 10,000 sightings, oldest first."""

    def __init__(self, limit: int = RECORD_LIMIT) -> None:
        self._sightings: deque[Sighting] = deque(maxlen=limit)
        self._open: set[int] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, sighting: Sighting) -> None:
        """Append, forgetting the oldest beyond the bound and the text of a large body."""
        sighting.body_bytes = len(sighting.body)
        if sighting.body_bytes > BODY_LIMIT_BYTES:
            sighting.body = b""
        self._sightings.append(sighting)
        sighting.on_end = self._ended
        self._open.add(sighting.number)
        self._idle.clear()

    @property
    def open(self) -> int:
        """Return how many requests are under way."""
        return len(self._open)

    def clear(self) -> None:
        """Forget everything seen so far."""
        self._sightings.clear()
        self._open.clear()
        self._idle.set()

    def describe(self) -> list[dict[str, Any]]:
        """Render every sighting as JSON-ready values."""
        return [sighting.describe() for sighting in self._sightings]

    async def settled(self, within_s: float) -> None:
        """Wait until no request is open, at most `within_s` seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), within_s)

    def _ended(self, number: int) -> None:
        self._open.discard(number)
        if not self._open:
            self._idle.set()


def _json_or_none(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
