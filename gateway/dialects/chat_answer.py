"""A chat completion, or one chunk of it, as the translators read it."""

from typing import Any

import msgspec

from backends.sse import data_of
from core.errors import UpstreamFailed


class Function(msgspec.Struct):
    """The called function; in a chunk the arguments are a piece."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    """One tool call, or a piece of the one with this index."""

    index: int = 0
    id: str | None = None
    function: Function = msgspec.field(default_factory=Function)


class Said(msgspec.Struct):
    """A message or a delta."""

    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(msgspec.Struct):
    """One choice; `stop_reason` is the matched stop sequence where the server tells it (vLLM does)."""

    index: int = 0
    message: Said | None = None
    delta: Said | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    logprobs: dict[str, Any] | None = None


class InputDetails(msgspec.Struct):
    """Parts of the input."""

    cached_tokens: int | None = None


class OutputDetails(msgspec.Struct):
    """Parts of the output."""

    reasoning_tokens: int | None = None


class Usage(msgspec.Struct):
    """Token counts; input includes what was cached."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None

    @property
    def cached(self) -> int:
        """Return the input tokens that the upstream had cached."""
        details = self.prompt_tokens_details
        return 0 if details is None else min(details.cached_tokens or 0, self.prompt_tokens)

    @property
    def reasoning(self) -> int:
        """Return the output tokens that were reasoning."""
        details = self.completion_tokens_details
        return 0 if details is None else details.reasoning_tokens or 0


class ChatAnswer(msgspec.Struct):
    """A completion or a chunk."""

    id: str = ""
    created: int = 0
    model: str = ""
    choices: list[Choice] = []
    usage: Usage | None = None
    system_fingerprint: str | None = None
    headgate: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(ChatAnswer)


def read_answer(body: bytes) -> ChatAnswer:
    """Decode a whole completion.

    Raises:
        UpstreamFailed: it is not shaped like one.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise UpstreamFailed("The answer cannot be translated: it is not a chat completion.") from problem


def read_frame(frame: bytes) -> ChatAnswer | None:
    """Decode one frame of a stream, None for comments and for the end marker.

    Raises:
        UpstreamFailed: it is not a chunk.
    """
    data = data_of(frame)
    return None if not data or data == b"[DONE]" else read_answer(data)


def event(name: str, fields: dict[str, Any]) -> bytes:
    """Return a named event; its name is its `type`."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode({"type": name, **fields}))
