"""The callers of the soak: one gateway's clients, who ask, repeat, stream, and go away in the middle of a stream."""

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

CALLERS = 24
LIMIT_S = 30.0
KINDS = {"plain": 0.70, "repeated": 0.15, "stream": 0.10, "cut": 0.05}


@dataclass(slots=True)
class Load:
    """Callers that share one pace; `rate_per_s` is None for as fast as they can."""

    port: int
    key: str
    rate_per_s: float | None = None
    asked: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    _next_s: float = 0.0

    async def run(self, seconds: float, most: int | None = None) -> float:
        """Ask for so long, or until `most` requests were asked since this began; returns the requests per second."""
        asked, began_s = self.asked, time.monotonic()
        self._next_s = began_s

        def is_over() -> bool:
            return time.monotonic() - began_s >= seconds or (most is not None and self.asked - asked >= most)

        await asyncio.gather(*(self._call(is_over) for _ in range(CALLERS)))
        return (self.asked - asked) / (time.monotonic() - began_s)

    async def _call(self, is_over: Callable[[], bool]) -> None:
        kinds, weights = list(KINDS), list(KINDS.values())
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not is_over():
            await self._turn()
            kind = random.choices(kinds, weights)[0]
            self.asked += 1
            try:
                if connection is None:
                    connection = await asyncio.open_connection("127.0.0.1", self.port)
                status = await asyncio.wait_for(self._ask(kind, *connection), LIMIT_S)
                self.outcomes[f"{kind} {status}"] += 1
                is_kept = kind != "cut"
            except (OSError, EOFError, TimeoutError, ValueError) as problem:
                self.outcomes[f"{kind} {type(problem).__name__}"] += 1
                is_kept = False
            if not is_kept and connection is not None:
                connection[1].transport.abort()
                connection = None
        if connection is not None:
            connection[1].close()

    async def _turn(self) -> None:
        if self.rate_per_s is None:
            return
        self._next_s += 1 / self.rate_per_s
        wait_s = self._next_s - time.monotonic()
        if wait_s < -1.0:
            self._next_s = time.monotonic()  # what was missed while the machine was busy is not made up for
        await asyncio.sleep(max(0.0, wait_s))

    async def _ask(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        text = f"Question {random.randrange(100)}" if kind == "repeated" else f"Question {random.random()}"
        streams = kind in ("stream", "cut")
        asked = {"model": "burst" if streams else "small", "messages": [{"role": "user", "content": text}]}
        body = msgspec.json.encode(asked | ({"stream": True} if streams else {}))
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        status = int(answer.split(b" ", 2)[1])
        if kind == "cut":
            await reader.readuntil(b"data:")
        elif (length := re.search(rb"content-length: (\d+)", answer.lower())) is not None:
            await reader.readexactly(int(length[1]))
        else:
            await reader.readuntil(b"\r\n0\r\n\r\n")
        return status
