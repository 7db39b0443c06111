"""The Responses wire: `/v1/responses` asked as a chat, answered as a response object or as its stream of events.

Order of a stream: created, in_progress; for each item added, its parts and deltas, their done, item done; completed
(or incomplete); every event counts up `sequence_number`. What ends early ends with `response.failed` and an error.
"""

from typing import Any

import msgspec

from backends.sse import is_done
from core.chat import Demands, parse_chat_request
from core.errors import HeadgateError
from gateway.wire.dialects.chat_answer import ChatAnswer, Choice, ToolCall, Usage, event, read_answer, read_frame
from gateway.wire.dialects.dialect import Dialect, OpenAiVoice, Spoken
from gateway.wire.dialects.json_body import Json, json_object
from gateway.wire.dialects.responses_request import chat_fields

ECHOED: Json = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "user": None,
    "service_tier": None,
}
"""What a response repeats of its request, with the value where the request said nothing."""
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def _read(body: bytes, request_id: str, demands: Demands) -> Spoken:
    given = json_object(body)
    request = parse_chat_request(msgspec.json.encode(chat_fields(given)), request_id, demands)
    translator = ResponsesTranslator(given, request_id)
    return Spoken(request, translator, translator)


RESPONSES_DIALECT = Dialect("/v1/responses", _read)


class ResponsesTranslator(OpenAiVoice):
    """Renders one chat answer as a response; of several choices the first is the answer."""

    def __init__(self, given: Json, request_id: str) -> None:
        self._suffix = request_id.removeprefix("req_")
        self._echo = {name: usual if given.get(name) is None else given[name] for name, usual in ECHOED.items()}
        self._number = -1
        self._head = ChatAnswer()
        self._text: _Text | None = None
        self._calls: dict[int, _Call] = {}
        self._items: list[_Text | _Call] = []
        self._finish: str | None = None

    def whole(self, body: bytes) -> bytes:
        """Translate a whole answer."""
        answer = self._head = read_answer(body)
        choice = answer.first() or Choice()
        self._finish = choice.finish_reason
        if (said := choice.message) is not None:
            for kind, text in (("output_text", said.text), ("refusal", said.refusal)):
                if text:
                    item = _Text(len(self._items), self._suffix, kind)
                    item.add(text, choice.logprobs)
                    self._items.append(item)
            for call in said.tool_calls or []:
                self._items.append(_Call(len(self._items), self._suffix, call))
                self._items[-1].add(call.arguments, None)
        return msgspec.json.encode(self._response(self._status(), answer.usage))

    def frame(self, frame: bytes) -> bytes:
        """Translate one frame."""
        if is_done(frame):
            return self._closing()
        answer = read_frame(frame)
        if answer is None:
            return b""
        events = [] if self._number >= 0 else self._opening(answer)
        self._head.usage = answer.usage or self._head.usage
        self._head.headgate = answer.headgate or self._head.headgate
        if (choice := answer.first()) is not None:
            events += self._taken(choice)
        return b"".join(events)

    def error_event(self, error: HeadgateError) -> bytes:
        """End a stream that has begun: the failed response, then the error, on which the official SDK raises."""
        said = {"code": error.code, "message": error.message}
        failed = self._response("failed", self._head.usage) | {"error": said | {"code": "server_error"}}
        body = said | {"type": error.type, "param": error.param}
        return self._event("response.failed", response=failed) + self._event("error", **said, param=None, error=body)

    def _taken(self, choice: Choice) -> list[bytes]:
        events: list[bytes] = []
        said = choice.delta
        self._finish = choice.finish_reason or self._finish
        if said is None:
            return events
        for kind, text in (("output_text", said.text), ("refusal", said.refusal)):
            if text:
                events += self._text_taken(kind, text, choice.logprobs)
        for call in said.tool_calls or []:
            events += self._call_taken(call)
        return events

    def _text_taken(self, kind: str, text: str, logprobs: Json | None) -> list[bytes]:
        events: list[bytes] = []
        if self._text is None or self._text.kind != kind:
            events += self._text_closed()
            self._text = _Text(len(self._items), self._suffix, kind)
            self._items.append(self._text)
            events.append(self._item("response.output_item.added", self._text, "in_progress"))
            events.append(self._part("response.content_part.added", self._text, part=self._text.part(empty=True)))
        said = self._text.add(text, logprobs)
        more = {"logprobs": said} if kind == "output_text" else {}
        events.append(self._part(f"response.{kind}.delta", self._text, delta=text, **more))
        return events

    def _text_closed(self) -> list[bytes]:
        text, self._text = self._text, None
        if text is None:
            return []
        done = {text.word: text.text} | ({"logprobs": text.logprobs} if text.kind == "output_text" else {})
        return [
            self._part(f"response.{text.kind}.done", text, **done),
            self._part("response.content_part.done", text, part=text.part()),
            self._item("response.output_item.done", text, "completed"),
        ]

    def _call_taken(self, piece: ToolCall) -> list[bytes]:
        events: list[bytes] = []
        call = self._calls.get(piece.index or 0)
        if call is None:
            events += self._text_closed()
            call = self._calls[piece.index or 0] = _Call(len(self._items), self._suffix, piece)
            self._items.append(call)
            events.append(self._item("response.output_item.added", call, "in_progress"))
        if piece.arguments:
            call.add(piece.arguments, None)
            where = {"item_id": call.id, "output_index": call.at, "delta": piece.arguments}
            events.append(self._event("response.function_call_arguments.delta", **where))
        return events

    def _opening(self, answer: ChatAnswer) -> list[bytes]:
        self._head = answer
        begun = self._response("in_progress", None) | {"output": []}
        return [self._event("response.created", response=begun), self._event("response.in_progress", response=begun)]

    def _closing(self) -> bytes:
        events = self._text_closed()
        for call in self._calls.values():
            where = {"item_id": call.id, "output_index": call.at, "name": call.name, "arguments": call.text}
            events.append(self._event("response.function_call_arguments.done", **where))
            events.append(self._item("response.output_item.done", call, "completed"))
        status = self._status()
        events.append(self._event(f"response.{status}", response=self._response(status, self._head.usage)))
        return b"".join(events)

    def _status(self) -> str:
        return "incomplete" if self._finish in INCOMPLETE else "completed"

    def _response(self, status: str, usage: Usage | None) -> Json:
        reason = INCOMPLETE.get(self._finish or "")
        more = {} if self._head.headgate is None or usage is None else {"headgate": self._head.headgate}
        ended = "completed" if status == "completed" else "incomplete"
        return {
            "id": f"resp_{self._suffix}",
            "object": "response",
            "created_at": int(self._head.created or 0),
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": reason} if status == "incomplete" else None,
            "model": self._head.model or "",
            "output": [item.body(ended) for item in self._items],
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "truncation": "disabled",
            "usage": None if usage is None else _usage(usage),
            **self._echo,
            **more,
        }

    def _item(self, name: str, item: "_Text | _Call", status: str) -> bytes:
        body = item.body(status, empty=name.endswith("added"))
        return self._event(name, output_index=item.at, item=body)

    def _part(self, name: str, item: "_Text", **fields: Any) -> bytes:
        return self._event(name, item_id=item.id, output_index=item.at, content_index=0, **fields)

    def _event(self, event_type: str, /, **fields: Any) -> bytes:
        self._number += 1
        return event(event_type, {"sequence_number": self._number, **fields})


class _Text:
    """One message item: text, or a refusal."""

    def __init__(self, at: int, suffix: str, kind: str) -> None:
        self.at = at
        self.id = f"msg_{suffix}_{at}"
        self.kind = kind
        self.word = "text" if kind == "output_text" else "refusal"
        self.text = ""
        self.logprobs: list[Json] = []

    def add(self, text: str, logprobs: Json | None) -> list[Json]:
        """Take a piece; return its log-probabilities."""
        said = (logprobs or {}).get("content") or []
        self.text += text
        self.logprobs += said
        return said

    def part(self, *, empty: bool = False) -> Json:
        """Return the content part."""
        text = "" if empty else self.text
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": [] if empty else self.logprobs}

    def body(self, status: str, *, empty: bool = False) -> Json:
        """Return the output item."""
        content = [] if empty else [self.part()]
        return {"type": "message", "id": self.id, "status": status, "role": "assistant", "content": content}


class _Call:
    """One function call."""

    def __init__(self, at: int, suffix: str, call: ToolCall) -> None:
        self.at = at
        self.id = f"fc_{suffix}_{at}"
        self.call_id = call.id or f"call_{suffix}_{at}"
        self.name = call.name
        self.text = ""

    def add(self, text: str, logprobs: Json | None) -> None:
        """Take a piece of the arguments."""
        self.text += text

    def body(self, status: str, *, empty: bool = False) -> Json:
        """Return the output item."""
        arguments = "" if empty else self.text
        head = {"type": "function_call", "id": self.id, "call_id": self.call_id, "name": self.name}
        return head | {"arguments": arguments, "status": status}


def _usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
