"""A lean HTTP client for load: one streamed chat request over a socket of its own, with the moment of each frame."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(slots=True)
class Result:
    """What one request saw; moments are `time.monotonic()` seconds."""

    sent_s: float
    status: int = 0
    frames_s: list[float] = field(default_factory=list)
    ended_s: float = 0.0
    is_done: bool = False
    retry_after: str | None = None

    @property
    def ttft_ms(self) -> float | None:
        """Return the time to the first content, None without one."""
        return (self.frames_s[0] - self.sent_s) * 1000 if self.frames_s else None

    @property
    def total_ms(self) -> float:
        """Return the time to the last byte."""
        return (self.ended_s - self.sent_s) * 1000


async def ask(
    base_url: str, key: str, model: str, text: str, *, pause_s: float = 0.0, max_tokens: int | None = None
) -> Result:
    """Ask for a stream and read it to its end.

    Args:
        base_url: up to and with `/v1`.
        key: the API key.
        model: the alias.
        text: the user's message.
        pause_s: how long to read nothing after the first frame, and then leave.
        max_tokens: sent along when given.
    """
    url = urlsplit(base_url)
    body: dict[str, object] = {"model": model, "stream": True, "messages": [{"role": "user", "content": text}]}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    payload = json.dumps(body).encode()
    head = (
        f"POST {url.path}/chat/completions HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nConnection: close\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    result = Result(time.monotonic())
    limit = 2**12 if pause_s else 2**16
    try:
        reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=limit)
    except OSError:
        result.ended_s = time.monotonic()
        return result
    try:
        writer.write(head.encode() + payload)
        await _read(reader, result, pause_s)
    except OSError:
        pass
    finally:
        result.ended_s = time.monotonic()
        writer.close()
    return result


async def _read(reader: asyncio.StreamReader, result: Result, pause_s: float) -> None:
    while line := await reader.readline():
        if line.startswith(b"HTTP/1.1 "):
            result.status = int(line[9:12])
        elif line.lower().startswith(b"retry-after:"):
            result.retry_after = line.split(b":", 1)[1].strip().decode()
        elif line.startswith(b"data: [DONE]"):
            result.is_done = True
        elif line.startswith(b"data: ") and b'"content":"' in line.replace(b" ", b"") and b'"content":""' not in line:
            result.frames_s.append(time.monotonic())
            if pause_s and len(result.frames_s) == 1:
                await asyncio.sleep(pause_s)
                return


def percentile(values: Sequence[float], q: float) -> float | None:
    """Return the q-quantile, None of nothing."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 1) if ordered else None
