"""Turns a script and a reply into the steps of one answer: waits, the head, pieces of body, and how it ends."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.faults.upstream.bodies import choice_body, chunk_body, error_body
from gateway.faults.upstream.reply import Json, Reply, usage_object
from gateway.faults.upstream.script import BEFORE_HEADERS, Script, is_due

EVENT_STREAM = "text/event-stream; charset=utf-8"
JSON_TYPE = "application/json"
HTML_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
PLAIN_TEXT = b"upstream exploded"


@dataclass(frozen=True, slots=True)
class Wait:
    """Pause for `ms` milliseconds; the client may leave meanwhile."""

    ms: float


@dataclass(frozen=True, slots=True)
class Start:
    """Send the status line and headers; a `length_bytes` of None means chunked, or closing, by the script's wire."""

    status: int
    content_type: str
    length_bytes: int | None


@dataclass(frozen=True, slots=True)
class Write:
    """Send a piece of body; `is_chunk` counts it as a content chunk in the record."""

    payload: bytes
    is_chunk: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """End the answer: `complete`, `cut` (clean), `close` (FIN), `half` (FIN, but listening), `reset` or `badchunk`."""

    how: str


Step = Wait | Start | Write | End


def sse_frame(script: Script, content: Json | str) -> bytes:
    """One server-sent event in the script's dialect."""
    if isinstance(content, str):
        lines = [content]
    else:
        text = json.dumps(content, ensure_ascii=False, indent=1 if script.multiline else None)
        lines = text.split("\n")
    prefix = "data: " if script.space else "data:"
    comment = f": ping{script.eol}{script.eol}" if script.comment else ""
    return (comment + "".join(prefix + line + script.eol for line in lines) + script.eol).encode()


def before_headers(script: Script) -> Iterator[Step]:
    """What happens before the status line."""
    yield Wait(script.headers_ms)
    if script.stall == BEFORE_HEADERS:
        yield Wait(script.stall_ms)
    for how in ("close", "reset"):
        if getattr(script, how) == BEFORE_HEADERS:
            yield End(how)


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """A reply sent as server-sent events; `is_usage_asked` is the request's `stream_options.include_usage`."""

    script: Script
    reply: Reply
    is_chat: bool
    is_usage_asked: bool

    def steps(self) -> Iterator[Step]:
        """All steps in order; the reader stops at the first `End`."""
        script, last = self.script, len(self.reply.pieces)
        yield from before_headers(script)
        yield Start(script.status, script.content_type or EVENT_STREAM, None)
        yield from self._opening()
        if not last:
            yield Wait(script.ttft_ms)
        for position, piece in enumerate(self.reply.pieces):
            yield Wait(script.gap_ms if position else script.ttft_ms)
            yield from self._faults(position, last)
            yield from self._content(position, piece, position + 1 == last)
        yield from self._faults(last, last)
        yield from self._closing()
        yield End("complete")

    def _opening(self) -> Iterator[Step]:
        for _ in range(self.script.role if self.is_chat else 0):
            for choice in range(self.reply.choices):
                yield self._chunk(choice, {"role": "assistant", "content": ""})

    def _content(self, position: int, piece: Json, is_last: bool) -> Iterator[Step]:
        delta = {"role": "assistant", **piece} if position == 0 and self.script.role == 0 else piece
        sent = (position + 1) * self.reply.choices
        usage = self._numbers(sent) if self.script.usage == "cumulative" else None
        finish = None
        if is_last and self.script.usage == "last":
            usage, finish = self._numbers(sent), self.reply.finish
        for choice in range(self.reply.choices):
            yield self._chunk(choice, delta, finish, usage, is_content=True)
        if self.script.usage == "middle" and position == 0:
            yield Write(sse_frame(self.script, chunk_body(self.reply, self.is_chat, [], self._numbers(sent), True)))

    def _closing(self) -> Iterator[Step]:
        mode, final = self.script.usage, self._numbers(self.reply.completion_tokens)
        is_said = mode == "last" and bool(self.reply.pieces)
        if self.reply.finish is not None and not is_said:
            for choice in range(self.reply.choices):
                yield self._chunk(choice, {}, self.reply.finish, final if mode in ("finish", "last") else None)
        if mode == "extra" or (mode in ("auto", "wrong") and self.is_usage_asked):
            extra = chunk_body(self.reply, self.is_chat, [], final, with_usage=True)
            yield Write(sse_frame(self.script, extra))
        for _ in range(self.script.done):
            yield Write(sse_frame(self.script, "[DONE]"))
        for _ in range(self.script.after):
            yield self._chunk(0, {"content": " after the end"})

    def _faults(self, position: int, last: int) -> Iterator[Step]:
        script = self.script
        if is_due(script.stall, position, last):
            yield Wait(script.stall_ms)
        if is_due(script.malformed, position, last):
            yield Write(sse_frame(script, '{"id":"broken","choices":[{"index":0,"delta":{"cont'))
        if is_due(script.error, position, last):
            name = f"event: error{script.eol}".encode() if script.named else b""
            yield Write(name + sse_frame(script, error_body(500, "the upstream failed mid-stream", script.code)))
            yield End("complete")
        ending = script.is_broken_off_at(position, last)
        if ending is not None:
            yield End(ending)

    def _chunk(
        self, choice: int, delta: Json, finish: str | None = None, usage: Json | None = None, is_content: bool = False
    ) -> Write:
        choices = [choice_body(self.is_chat, choice, delta, finish)]
        shows_null = self.is_usage_asked and self.script.usage in ("auto", "wrong")
        chunk = chunk_body(self.reply, self.is_chat, choices, usage, with_usage=shows_null)
        return Write(sse_frame(self.script, chunk), is_chunk=is_content)

    def _numbers(self, completion_tokens: int) -> Json:
        return usage_object(self.script, self.reply.prompt_tokens, completion_tokens)


def plain_steps(
    script: Script, status: int, body: Json, pause_ms: float = 0.0, is_stream: bool = False
) -> Iterator[Step]:
    """The steps of an answer that is one document; its faults fall in the middle of the document."""
    yield from before_headers(script)
    yield Wait(pause_ms)
    payload, content_type = _document(script, body, is_stream)
    middle = len(payload) // 2
    if script.malformed is not None or script.cut is not None:
        payload = payload[:middle]
    breaks = next((how for how in ("close", "reset", "badchunk", "half") if getattr(script, how) is not None), None)
    has_length = script.wire == "http11" and script.gzip != "on" and breaks != "badchunk"
    yield Start(status, script.content_type or content_type, len(payload) if has_length else None)
    if breaks is None and script.stall is None:
        yield Write(payload, is_chunk=True)
        yield End("complete" if script.cut is None else "cut")
    yield Write(payload[:middle])
    if script.stall is not None:
        yield Wait(script.stall_ms)
    if breaks is not None:
        yield End(breaks)
    yield Write(payload[middle:], is_chunk=True)
    yield End("complete" if script.cut is None else "cut")


def _document(script: Script, body: Json, is_stream: bool) -> tuple[bytes, str]:
    match script.body:
        case "empty":
            return b"", EVENT_STREAM if is_stream else JSON_TYPE
        case "html":
            return HTML_PAGE, "text/html"
        case "text":
            return PLAIN_TEXT, JSON_TYPE
        case "array":
            return b"[]", JSON_TYPE
        case "nochoices":
            body = body | {"choices": []}
    return json.dumps(body, ensure_ascii=False).encode(), JSON_TYPE
