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

    index: int | None = None
    id: str | None = None
    function: Function | None = None

    @property
    def name(self) -> str:
        """Return the function's name, empty in later pieces."""
        return "" if self.function is None else self.function.name or ""

    @property
    def arguments(self) -> str:
        """Return the arguments, or this piece of them."""
        return "" if self.function is None else self.function.arguments or ""


class Said(msgspec.Struct):
    """A message or a delta; some servers send the content as parts."""

    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None

    @property
    def text(self) -> str:
        """Return the text of the content."""
        if not isinstance(self.content, list):
            return self.content or ""
        parts = [part.get("text") for part in self.content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))


class Choice(msgspec.Struct):
    """One choice; `stop_reason` is the matched stop sequence where the server tells it (vLLM does)."""

    index: int | None = 0
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

    id: str | None = None
    created: float | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: Usage | None = None
    system_fingerprint: str | None = None
    headgate: dict[str, Any] | None = None

    def first(self) -> Choice | None:
        """Return the first choice, where this says something of it."""
        return next((choice for choice in self.choices or [] if not choice.index), None)


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
