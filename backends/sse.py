"""Server-sent events by bytes: where a frame ends, and which frames matter.

A frame is relayed as it arrived. Only frames that may carry first content, `usage`, `error` or `[DONE]` are decoded.
"""

import re
from collections.abc import Sequence

import msgspec

from core.money import Usage

MAX_FRAME_BYTES = 8 * 1024 * 1024
MAX_REPORTED_TOKENS = 10**9
_FRAME_END = re.compile(rb"\r\n\r\n|\n\r\n|\n\n|\r\r")
_DATA_LINE = re.compile(rb"(?:^|\r\n|\n|\r)data(?:: ?([^\r\n]*)|(?=[\r\n]|$))")
_ERROR_EVENT = re.compile(rb"(?:^|[\r\n])event: ?error")
_NULL = msgspec.Raw(b"null")
_NOTHING = (b"null", b"[]")
_NULL_USAGE = re.compile(rb'"usage"\s*:\s*null')


class FrameTooLargeError(ValueError):
    """A frame passed `MAX_FRAME_BYTES` without an end."""


class FrameSplitter:
    """Cuts a byte stream into frames, each with its terminating blank line; state is at most one unfinished frame."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._pending = bytearray()
        self._searched = 0
        self._max_frame_bytes = max_frame_bytes

    def feed(self, chunk: bytes) -> list[bytes]:
        """Add bytes and return the frames that are now complete.

        Raises:
            FrameTooLargeError: the unfinished frame is longer than the limit.
        """
        if (
            not self._pending
            and chunk.endswith(b"\n\n")
            and chunk.find(b"\n\n") == len(chunk) - 2
            and chunk.find(b"\r") < 0
        ):
            return [chunk]  # one whole frame, as most arrive
        if not self._pending and chunk.find(b"\r") < 0:
            *whole, rest = chunk.split(b"\n\n")
            self._pending += rest
            self._searched = len(rest)
            self._check()
            return [frame + b"\n\n" for frame in whole]
        self._pending += chunk
        frames = []
        while match := _FRAME_END.search(self._pending, max(0, self._searched - 3)):
            frames.append(bytes(self._pending[: match.end()]))
            del self._pending[: match.end()]
            self._searched = 0
        self._searched = len(self._pending)
        self._check()
        return frames

    def _check(self) -> None:
        if len(self._pending) > self._max_frame_bytes:
            raise FrameTooLargeError(f"an event of more than {self._max_frame_bytes} bytes")

    @property
    def is_between_frames(self) -> bool:
        """Tell whether all that came was whole frames."""
        return not self._pending

    @property
    def pending(self) -> bytes:
        """Return the bytes of the unfinished frame."""
        return bytes(self._pending)


class _Delta(msgspec.Struct):
    content: str | list[msgspec.Raw] | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: msgspec.Raw = _NULL
    function_call: msgspec.Raw = _NULL

    @property
    def calls(self) -> bool:
        """Whether it calls a tool or a function; mostly neither is there, and nothing is compared."""
        tools, function = self.tool_calls, self.function_call
        return (tools is not _NULL and bytes(tools) not in _NOTHING) or (
            function is not _NULL and bytes(function) != b"null"
        )


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = _NULL


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class ErrorBody(msgspec.Struct):
    """An `error` object as far as the gateway reads it."""

    message: str | None = None
    code: str | int | None = None


class _Completion(msgspec.Struct):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: ErrorBody | str | None = None


_completion_decoder = msgspec.json.Decoder(_Completion)
_completions_decoder = msgspec.json.Decoder(list[_Completion])
_tool_calls_decoder = msgspec.json.Decoder(list[_ToolCall] | None)
_function_decoder = msgspec.json.Decoder(_Function | None)


class Parsed(msgspec.Struct, frozen=True):
    """What one decoded completion (or chunk of one) says; `content` is the first choice's text."""

    model: str | None
    content: str
    has_content: bool
    choices: int
    finish_reason: str | None
    plain: bool
    usage: Usage | None
    error: str | None


def data_of(frame: bytes) -> bytes:
    """Return the data of a frame, its lines joined by newlines; empty for comments."""
    if frame.startswith(b"data: ") and frame.find(b"\n") == len(frame) - 2 and frame.find(b"\r") < 0:
        return frame[6:].strip()  # one line, as most frames have
    return b"\n".join(_DATA_LINE.findall(frame)).strip()


def may_carry_usage(frame: bytes) -> bool:
    """Tell by bytes whether a frame can hold a usage object."""
    if b'"usage"' not in frame:
        return False
    return (b'"usage":null' not in frame and _NULL_USAGE.search(frame) is None) or frame.count(b'"usage"') > 1


def may_carry_error(frame: bytes) -> bool:
    """Tell by bytes whether a frame can hold an error object."""
    return b'"error"' in frame or is_error_event(frame)


def is_error_event(frame: bytes) -> bool:
    """Tell whether a frame is named `error`, whatever its data says."""
    return b"event:" in frame and _ERROR_EVENT.search(frame) is not None


def is_done(frame: bytes) -> bool:
    """Tell whether a frame is the `[DONE]` marker."""
    return b"[DONE]" in frame and data_of(frame) == b"[DONE]"


def parse_completion(data: bytes) -> Parsed:
    """Decode a completion, or one chunk of a streamed one, as far as the gateway needs it.

    Raises:
        msgspec.DecodeError: not JSON, or not shaped like a completion.
    """
    completion = _decoded(data)
    usage, error = _usage(completion.usage), error_text(completion.error)
    if not completion.choices:
        return Parsed(completion.model, "", False, 0, None, True, usage, error)
    has_content, last = False, -1
    for choice in completion.choices:
        has_content = has_content or _says_something(choice)
        last = choice.index if choice.index > last else last
    choice = completion.choices[0]
    said = choice.delta or choice.message
    content = said.content if said is not None and isinstance(said.content, str) else ""
    return Parsed(
        model=completion.model,
        content=content if choice.text is None else choice.text,
        has_content=has_content,
        choices=last + 1,
        finish_reason=choice.finish_reason,
        plain=_is_plain(choice),
        usage=usage,
        error=error,
    )


class WholeText(msgspec.Struct, frozen=True):
    """What the chunks of a stream say together; `plain` means text alone from a single choice."""

    content: str
    finish_reason: str | None
    model: str | None
    plain: bool


def joined(chunks: Sequence[bytes]) -> WholeText:
    """Return what the chunks of a stream say together, at a fifth of the cost of `parse_completion` for each.

    Raises:
        msgspec.DecodeError: one is not JSON, or not shaped like a completion.
    """
    try:
        completions = _completions_decoder.decode(b"[" + b",".join(chunks) + b"]")
    except (UnicodeDecodeError, RecursionError) as problem:
        raise msgspec.DecodeError(str(problem)) from problem
    texts: list[str] = []
    finish_reason, model, plain = None, None, len(completions) == len(chunks)
    for completion in completions:
        model = model or completion.model
        if not completion.choices:
            continue
        choice = completion.choices[0]
        said = choice.delta or choice.message
        if choice.text is not None:
            texts.append(choice.text)
        elif said is not None and isinstance(said.content, str):
            texts.append(said.content)
        finish_reason = choice.finish_reason or finish_reason
        plain = plain and len(completion.choices) == 1 and choice.index == 0 and _is_plain(choice)
    return WholeText("".join(texts), finish_reason, model, plain)


def produced_bytes(data: bytes) -> int:
    """Return how many bytes of text a completion, or a chunk of one, holds over all its choices and tool calls.

    Raises:
        msgspec.DecodeError: not JSON, or not shaped like a completion.
    """
    choices = _decoded(data).choices or []
    said = [choice.delta or choice.message for choice in choices]
    texts = sum(len(choice.text.encode()) for choice in choices if choice.text)
    return texts + sum(_bytes_said(one) for one in said if one is not None)


def _decoded(data: bytes) -> _Completion:
    try:
        return _completion_decoder.decode(data)
    except (UnicodeDecodeError, RecursionError) as problem:
        raise msgspec.DecodeError(str(problem)) from problem


def _bytes_said(said: _Delta) -> int:
    texts = [said.content if isinstance(said.content, str) else None, said.reasoning_content, said.refusal]
    parts = said.content if isinstance(said.content, list) else []
    calls = [call.function for call in _tool_calls_decoder.decode(said.tool_calls) or []]
    for function in (*calls, _function_decoder.decode(said.function_call)):
        if function is not None:
            texts += [function.name, function.arguments]
    return sum(len(text.encode()) for text in texts if text) + sum(len(bytes(part)) for part in parts)


def _says_something(choice: _Choice) -> bool:
    if choice.finish_reason is not None or choice.text:
        return True
    said = choice.delta or choice.message
    return said is not None and bool(said.content or said.refusal or said.reasoning_content or said.calls)


def _is_plain(choice: _Choice) -> bool:
    said = choice.delta or choice.message
    if choice.logprobs is not _NULL and bytes(choice.logprobs) != b"null":
        return False
    return said is None or not (said.refusal or isinstance(said.content, list) or said.reasoning_content or said.calls)


def _usage(usage: _Usage | None) -> Usage | None:
    """Return the token counts, or None unless both required counts are there: None usage is not zero usage.

    A count that no model can have reached is no report either.
    """
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    input_tokens, output_tokens = max(0, usage.prompt_tokens), max(0, usage.completion_tokens)
    if input_tokens > MAX_REPORTED_TOKENS or output_tokens > MAX_REPORTED_TOKENS:
        return None
    of_input, of_output = usage.prompt_tokens_details, usage.completion_tokens_details
    if of_input is None and of_output is None:
        return Usage(input_tokens, output_tokens)
    cached = 0 if of_input is None else max(0, of_input.cached_tokens or 0)
    reasoning = 0 if of_output is None else max(0, of_output.reasoning_tokens or 0)
    return Usage(input_tokens, output_tokens, min(cached, input_tokens), min(reasoning, output_tokens))


def error_text(error: ErrorBody | str | None) -> str | None:
    """Return what an error says, None without one."""
    if error is None:
        return None
    return error if isinstance(error, str) else error.message or "unspecified"
