"""Render a cached answer as what was asked for: one JSON body, or SSE frames that read like a live stream."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from core.cached import CachedAnswer
from core.chat import ChatRequest
from core.endpoints import CHAT, EMBEDDINGS

_WORDS = re.compile(r"\S+\s*|\s+")


async def replay(answer: CachedAnswer, request: ChatRequest, created_s: int) -> AsyncIterator[bytes]:
    """Yield `answer` in the shape that `request` asked for."""
    if request.path == EMBEDDINGS:
        yield answer.content.encode()
    elif request.stream:
        for frame in _frames(answer, request, created_s):
            yield frame
    else:
        yield msgspec.json.encode(_completion(answer, request, created_s))


def _completion(answer: CachedAnswer, request: ChatRequest, created_s: int) -> dict[str, Any]:
    is_chat = request.path == CHAT
    said = {"message": {"role": "assistant", "content": answer.content, "refusal": None}}
    choice = {
        "index": 0,
        **(said if is_chat else {"text": answer.content}),
        "logprobs": None,
        "finish_reason": answer.finish_reason,
    }
    kind = "chat.completion" if is_chat else "text_completion"
    return _head(answer, request, created_s, kind) | {"choices": [choice], "usage": _usage(answer)}


def _frames(answer: CachedAnswer, request: ChatRequest, created_s: int) -> Iterator[bytes]:
    is_chat = request.path == CHAT
    head = _head(answer, request, created_s, "chat.completion.chunk" if is_chat else "text_completion")
    if is_chat:
        yield _frame(head | {"choices": [_choice({"delta": {"role": "assistant", "content": ""}})]})
    for word in _WORDS.findall(answer.content):
        yield _frame(head | {"choices": [_choice({"delta": {"content": word}} if is_chat else {"text": word})]})
    yield _frame(head | {"choices": [_choice({"delta": {}} if is_chat else {"text": ""}, answer.finish_reason)]})
    if request.include_usage:
        yield _frame(head | {"choices": [], "usage": _usage(answer), "headgate": {"cost_usd": "0"}})
    yield b"data: [DONE]\n\n"


def _head(answer: CachedAnswer, request: ChatRequest, created_s: int, kind: str) -> dict[str, Any]:
    return {
        "id": f"{'chatcmpl' if request.path == CHAT else 'cmpl'}-{request.request_id}",
        "object": kind,
        "created": created_s,
        "model": answer.response_model,
    }


def _choice(said: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason}


def _usage(answer: CachedAnswer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _frame(chunk: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"
