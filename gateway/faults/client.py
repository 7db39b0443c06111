"""What a client sees of one answer: read as the official SDKs read it, but with nothing hidden."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
import msgspec

from backends.sse import FrameSplitter, data_of

PATIENCE_S = 12.0
LEAVES_AFTER_S = 0.4
PRIVATE_HEADERS = frozenset({"set-cookie", "openai-organization", "x-internal-route"})
Kind = Literal["whole", "refused", "told", "broken", "hung", "left", "silent"]


@dataclass(slots=True)
class Sighting:
    """What arrived; `problem` names the transport error that ended it."""

    status: int = 0
    request_id: str = ""
    text: str = ""
    finish: str | None = None
    done: int = 0
    error: str | None = None
    problem: str | None = None
    is_hung: bool = False
    has_left: bool = False
    leaked: list[str] = field(default_factory=list)

    @property
    def kind(self) -> Kind:
        """Name what happened: `silent` is an answer that looks fine and is not, or a failure without an error object.

        `refused` is an error status with an error object, `told` an error event (or object) after a 200, `broken`
        a connection that broke, on which clients raise.
        """
        if self.has_left:
            return "left"
        if self.is_hung:
            return "hung"
        if self.error is not None:
            return "told" if self.status == httpx.codes.OK else "refused"
        if self.problem is not None:
            return "broken"
        return "whole" if self.status == httpx.codes.OK and self.done else "silent"


@dataclass(frozen=True, slots=True)
class Client:
    """Asks one gateway; `url` ends before `/v1`."""

    http: httpx.AsyncClient
    url: str
    key: str

    async def ask(self, model: str, text: str, *, stream: bool, leaves_after: int | None = None) -> Sighting:
        """Send one chat request and read what comes; with `leaves_after` go away after so many pieces of content."""
        seen = Sighting()
        try:
            async with asyncio.timeout(PATIENCE_S if leaves_after != 0 else LEAVES_AFTER_S):
                await self._read(seen, model, text, stream=stream, leaves_after=leaves_after)
        except TimeoutError:
            seen.has_left = leaves_after == 0
            seen.is_hung = not seen.has_left
        except httpx.TransportError as problem:
            seen.problem = type(problem).__name__
        except httpx.DecodingError as problem:
            seen.problem = type(problem).__name__
        return seen

    async def _read(self, seen: Sighting, model: str, text: str, *, stream: bool, leaves_after: int | None) -> None:
        body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 4_000}
        if stream:
            body["stream"] = True
        headers = {"authorization": f"Bearer {self.key}"}
        async with self.http.stream("POST", f"{self.url}/v1/chat/completions", json=body, headers=headers) as answer:
            seen.status, seen.request_id = answer.status_code, answer.headers.get("x-request-id", "")
            seen.leaked = sorted(PRIVATE_HEADERS.intersection(answer.headers))
            if not stream or answer.status_code != httpx.codes.OK:
                _note_document(seen, await answer.aread())
                return
            splitter, pieces = FrameSplitter(64 * 1024 * 1024), 0
            async for chunk in answer.aiter_bytes():
                for frame in splitter.feed(chunk):
                    pieces += _note_frame(seen, data_of(frame))
                if leaves_after and pieces >= leaves_after:
                    seen.has_left = True
                    return


def _note_document(seen: Sighting, body: bytes) -> None:
    document = _json(body)
    error = document.get("error")
    if isinstance(error, Mapping) and error.get("message"):
        seen.error = str(error["message"])
        return
    for choice in document.get("choices") or []:
        seen.text += str((choice.get("message") or {}).get("content") or "")
        seen.finish = choice.get("finish_reason") or seen.finish
        seen.done = 1


def _note_frame(seen: Sighting, data: bytes) -> int:
    """Note one event and return 1 when it held content."""
    if not data:
        return 0
    if data == b"[DONE]":
        seen.done += 1
        return 0
    event = _json(data)
    if not event:
        seen.problem = "a frame that is not JSON"
    if "error" in event:
        seen.error = str(event["error"])
        return 0
    said = ""
    for choice in event.get("choices") or []:
        said += str((choice.get("delta") or {}).get("content") or "")
        seen.finish = choice.get("finish_reason") or seen.finish
    if not seen.done:
        seen.text += said
    return 1 if said else 0


def _json(body: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return document if isinstance(document, dict) else {}
