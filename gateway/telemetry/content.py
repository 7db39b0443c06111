"""What was said, as attributes of a span: the conventions' JSON, bounded, with credentials and card numbers taken out.

Runs in the thread that exports spans, and only for tenants whose policy says `record_content: true`.
"""

import json
from collections.abc import Iterator

import msgspec

from cache.sensitive import redacted
from core.trace import Content

MAX_TEXT_CHARS = 8_000
MAX_MESSAGES = 20


class _Message(msgspec.Struct):
    role: str = "user"
    content: msgspec.Raw = msgspec.Raw(b"null")


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None


_messages_decoder = msgspec.json.Decoder(list[_Message])
_text_decoder = msgspec.json.Decoder(str | list[_Part] | None)


def input_messages(content: Content) -> str | None:
    """Return the last messages of the request, or None when they cannot be read, for being cut or of another shape."""
    try:
        messages = _messages_decoder.decode(content.messages)[-MAX_MESSAGES:]
        said = [{"role": one.role, "parts": list(_parts(one.content))} for one in messages]
    except msgspec.DecodeError:
        return None
    return json.dumps(said, ensure_ascii=False)


def output_messages(content: Content) -> str | None:
    """Return the answer, or None where it is not text alone."""
    if content.answer is None:
        return None
    message = {"role": "assistant", "parts": [_text(content.answer)], "finish_reason": content.finish_reason or ""}
    return json.dumps([message], ensure_ascii=False)


def _parts(raw: msgspec.Raw) -> Iterator[dict[str, str]]:
    content = _text_decoder.decode(raw)
    for part in [_Part("text", content)] if isinstance(content, str) else content or []:
        yield {"type": part.type[:40]} if part.text is None else _text(part.text)


def _text(text: str) -> dict[str, str]:
    shown = redacted(text)
    if len(shown) > MAX_TEXT_CHARS:
        shown = f"{shown[:MAX_TEXT_CHARS]}… ({len(shown)} characters)"
    return {"type": "text", "content": shown}
