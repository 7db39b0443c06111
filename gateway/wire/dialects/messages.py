"""Anthropic's Messages wire: `/v1/messages` asked as a chat, answered as a message or as its stream of events.

Order of a stream: message_start, ping; for each block start, deltas, stop; message_delta with stop reason and usage;
message_stop. What ends early ends with an `error` event, on which the official SDK raises.
"""

from typing import Any

import msgspec

from backends.sse import is_done
from core.chat import Demands, parse_chat_request
from core.errors import HeadgateError, UpstreamFailed
from gateway.wire.dialects.chat_answer import ChatAnswer, Choice, ToolCall, Usage, event, read_answer, read_frame
from gateway.wire.dialects.dialect import Dialect, Spoken
from gateway.wire.dialects.json_body import Json, json_object
from gateway.wire.dialects.messages_request import chat_fields

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class MessagesVoice:
    """Anthropic's error object and its `ping`."""

    heartbeat = event("ping", {})

    def error_body(self, error: HeadgateError, request_id: str) -> bytes:
        """Return the error object."""
        return msgspec.json.encode({"type": "error", "error": _said_of(error), "request_id": request_id})

    def error_event(self, error: HeadgateError) -> bytes:
        """Return the event that ends a stream."""
        return event("error", {"error": _said_of(error)})


VOICE = MessagesVoice()


def _said_of(error: HeadgateError) -> Json:
    return {"type": ERROR_TYPES.get(error.http_status, "api_error"), "message": error.message}


def _read(body: bytes, request_id: str, demands: Demands) -> Spoken:
    given = json_object(body)
    request = parse_chat_request(msgspec.json.encode(chat_fields(given)), request_id, demands)
    return Spoken(request, MessagesTranslator(given, request_id), VOICE)


MESSAGES_DIALECT = Dialect("/v1/messages", _read, VOICE)


class MessagesTranslator:
    """Renders one chat answer as a message; of several choices the first is the answer."""

    def __init__(self, given: Json, request_id: str) -> None:
        self._id = f"msg_{request_id.removeprefix('req_')}"
        self._stop_sequences = given.get("stop_sequences") or []
        self._has_begun = False
        self._blocks = 0
        self._open: int | str | None = None
        self._stop: tuple[str, str | None] = ("end_turn", None)
        self._usage = Usage()
        self._headgate: Json | None = None

    def whole(self, body: bytes) -> bytes:
        """Translate a whole answer."""
        answer = read_answer(body)
        choice = answer.first() or Choice()
        content: list[Json] = []
        if (said := choice.message) is not None:
            content += [{"type": "text", "text": text} for text in (said.text, said.refusal) if text]
            content += [_tool_use(call, self._call_id(call, at)) for at, call in enumerate(said.tool_calls or [])]
        reason, sequence = self._stop_of(choice)
        message = self._message(answer, content, answer.usage or Usage())
        return msgspec.json.encode(message | {"stop_reason": reason, "stop_sequence": sequence})

    def frame(self, frame: bytes) -> bytes:
        """Translate one frame."""
        if is_done(frame):
            return b"".join(self._closing())
        answer = read_frame(frame)
        if answer is None:
            return b""
        events = [] if self._has_begun else self._opening(answer)
        self._usage, self._headgate = answer.usage or self._usage, answer.headgate or self._headgate
        if (choice := answer.first()) is not None:
            events += self._taken(choice)
        return b"".join(events)

    def _opening(self, answer: ChatAnswer) -> list[bytes]:
        self._has_begun = True
        message = self._message(answer, [], Usage()) | {"stop_reason": None, "stop_sequence": None}
        return [event("message_start", {"message": message}), VOICE.heartbeat]

    def _taken(self, choice: Choice) -> list[bytes]:
        events: list[bytes] = []
        if choice.finish_reason is not None:
            self._stop = self._stop_of(choice)
        said = choice.delta
        if said is None:
            return events
        for text in (said.text, said.refusal):
            if text:
                events += self._block("text", {"type": "text", "text": ""})
                events.append(self._delta({"type": "text_delta", "text": text}))
        for call in said.tool_calls or []:
            head = {"type": "tool_use", "id": self._call_id(call, call.index or 0), "name": call.name}
            events += self._block(call.index or 0, head | {"input": {}})
            if call.arguments:
                events.append(self._delta({"type": "input_json_delta", "partial_json": call.arguments}))
        return events

    def _block(self, key: int | str, start: Json) -> list[bytes]:
        """Open the block that `key` names unless it is open; blocks never overlap on this wire."""
        if self._open == key:
            return []
        if isinstance(key, int) and isinstance(self._open, int) and key < self._open:
            raise UpstreamFailed("The answer cannot be translated: its tool calls are interleaved.")
        events = self._stopped()
        self._open = key
        return [*events, event("content_block_start", {"index": self._blocks, "content_block": start})]

    def _stopped(self) -> list[bytes]:
        if self._open is None:
            return []
        self._open, at = None, self._blocks
        self._blocks += 1
        return [event("content_block_stop", {"index": at})]

    def _delta(self, delta: Json) -> bytes:
        return event("content_block_delta", {"index": self._blocks, "delta": delta})

    def _closing(self) -> list[bytes]:
        reason, sequence = self._stop
        more = {} if self._headgate is None else {"headgate": self._headgate}
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        return [
            *self._stopped(),
            event("message_delta", {"delta": delta, "usage": _usage(self._usage), **more}),
            event("message_stop", {}),
        ]

    def _stop_of(self, choice: Choice) -> tuple[str, str | None]:
        if choice.stop_reason in self._stop_sequences:
            return "stop_sequence", str(choice.stop_reason)
        return STOP_REASONS.get(choice.finish_reason or "", "end_turn"), None

    def _call_id(self, call: ToolCall, at: int) -> str:
        return call.id or f"toolu_{self._id.removeprefix('msg_')}_{at}"

    def _message(self, answer: ChatAnswer, content: list[Json], usage: Usage) -> Json:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": answer.model or "",
            "content": content,
            "usage": _usage(usage),
        }


def _tool_use(call: ToolCall, call_id: str) -> Json:
    """Return the block of one call.

    Raises:
        UpstreamFailed: its arguments are no JSON object, which this wire cannot carry.
    """
    try:
        arguments: Any = msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError as problem:
        raise UpstreamFailed("The model called a tool with arguments that are not JSON.") from problem
    if not isinstance(arguments, dict):
        raise UpstreamFailed("The model called a tool with arguments that are no JSON object.")
    return {"type": "tool_use", "id": call_id, "name": call.name, "input": arguments}


def _usage(usage: Usage) -> Json:
    """Return the counts as this wire has them: input without what was cached."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.completion_tokens,
    }
