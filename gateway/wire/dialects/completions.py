"""Legacy completions: passed on where a deployment serves them, else one prompt asked as a chat with one user turn.

Mapped to chat, `echo` is played back here; what chat cannot say (`suffix`, `best_of`, `logprobs`, several prompts,
token ids) is refused.
"""

from typing import Any

import msgspec

from backends.sse import is_done
from core.chat import ChatRequest, Demands, parse_chat_request
from core.errors import InvalidRequest
from core.passed_requests import parse_completion_request
from gateway.wire.dialects.chat_answer import ChatAnswer, Choice, read_answer, read_frame
from gateway.wire.dialects.dialect import Dialect, Spoken

NOT_CHAT = {"suffix": (b"null", b'""'), "best_of": (b"null", b"1"), "logprobs": (b"null",)}
"""What chat cannot say, with the values that ask for nothing."""


def _read(body: bytes, request_id: str, demands: Demands) -> Spoken:
    return Spoken(parse_completion_request(body, request_id, demands))


COMPLETIONS_DIALECT = Dialect("/v1/completions", _read)


def as_chat(request: ChatRequest) -> Spoken:
    """Ask a completion as a chat.

    Raises:
        InvalidRequest: it asks for something that a chat cannot give.
    """
    for name, unasked in NOT_CHAT.items():
        if name in request.fields and bytes(request.fields[name]) not in unasked:
            raise InvalidRequest(f"{name!r} needs a model whose deployment serves completions.", param=name)
    prompt = _only_prompt(request)
    fields = {name: bytes(raw) for name, raw in request.fields.items() if name not in (*NOT_CHAT, "prompt", "echo")}
    fields["messages"] = msgspec.json.encode([{"role": "user", "content": prompt}])
    body = b"{" + b",".join(msgspec.json.encode(name) + b":" + raw for name, raw in fields.items()) + b"}"
    echo = prompt if bytes(request.fields.get("echo", msgspec.Raw(b"false"))) == b"true" else ""
    return Spoken(parse_chat_request(body, request.request_id, request.demands), _CompletionTranslator(echo))


def _only_prompt(request: ChatRequest) -> str:
    value = msgspec.json.decode(request.fields["prompt"])
    prompts = value if isinstance(value, list) else [value]
    if len(prompts) != 1 or not isinstance(prompts[0], str):
        raise InvalidRequest(
            "Several prompts and token ids need a model whose deployment serves completions; send one text.",
            param="prompt",
        )
    return prompts[0]


class _CompletionTranslator:
    """Renders a chat answer as text completions."""

    def __init__(self, echo: str) -> None:
        self._echo = echo
        self._echoed: set[int] = set()

    def whole(self, body: bytes) -> bytes:
        """Translate a whole answer."""
        answer = read_answer(body)
        texts = [(choice, self._echo + (choice.message.text if choice.message else ""))
                 for choice in answer.choices or []]  # fmt: skip
        return msgspec.json.encode(self._body(answer, texts))

    def frame(self, frame: bytes) -> bytes:
        """Translate one frame."""
        if is_done(frame):
            return frame
        answer = read_frame(frame)
        if answer is None:
            return b""
        texts = [(choice, self._text(choice)) for choice in answer.choices or []]
        said = [(choice, text) for choice, text in texts if text or choice.finish_reason]
        if not said and answer.usage is None:
            return b""
        return b"data: " + msgspec.json.encode(self._body(answer, said)) + b"\n\n"

    def _text(self, choice: Choice) -> str:
        text = choice.delta.text if choice.delta else ""
        if self._echo and (choice.index or 0) not in self._echoed and (text or choice.finish_reason):
            self._echoed.add(choice.index or 0)
            return self._echo + text
        return text

    def _body(self, answer: ChatAnswer, texts: list[tuple[Choice, str]]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "id": "cmpl-" + (answer.id or "").removeprefix("chatcmpl-"),
            "object": "text_completion",
            "created": int(answer.created or 0),
            "model": answer.model or "",
            "choices": [
                {"text": text, "index": choice.index or 0, "logprobs": None, "finish_reason": choice.finish_reason}
                for choice, text in texts
            ],
        }
        if answer.system_fingerprint is not None:
            body["system_fingerprint"] = answer.system_fingerprint
        if answer.usage is not None:
            sent, made = answer.usage.prompt_tokens, answer.usage.completion_tokens
            body["usage"] = {"prompt_tokens": sent, "completion_tokens": made, "total_tokens": sent + made}
        if answer.headgate is not None:
            body["headgate"] = answer.headgate
        return body
