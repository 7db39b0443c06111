"""Renders replies as the JSON objects of the OpenAI wire: completions, chunks, embeddings, models and errors."""

from typing import Any

from gateway.faults.upstream.reply import CREATED_S, Json, Reply, embed, encode_base64, inputs_of, usage_object
from gateway.faults.upstream.script import Script

_ERRORS: dict[int, tuple[str, str | None]] = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    402: ("insufficient_quota", "insufficient_quota"),
    403: ("invalid_request_error", "permission_denied"),
    404: ("invalid_request_error", "model_not_found"),
    408: ("timeout", "request_timeout"),
    429: ("requests", "rate_limit_exceeded"),
    503: ("server_error", "overloaded"),
}


def error_body(status: int, message: str, code: str | None = None) -> Json:
    """The OpenAI error object for a status."""
    kind, usual_code = _ERRORS.get(status, ("invalid_request_error" if status < 500 else "server_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code or usual_code}}


def chat_body(script: Script, reply: Reply) -> Json:
    """A `chat.completion`."""
    message: Json = {"role": "assistant", "content": reply.text, "refusal": None}
    if reply.tool_calls:
        message["tool_calls"] = list(reply.tool_calls)
    choice = {"message": message, "logprobs": None, "finish_reason": reply.finish}
    return _envelope(reply, "chat.completion", _numbered(choice, reply)) | _usage(script, reply)


def text_body(script: Script, reply: Reply) -> Json:
    """A `text_completion`, the answer of `/v1/completions`."""
    choice = {"text": reply.text or "", "logprobs": None, "finish_reason": reply.finish}
    return _envelope(reply, "text_completion", _numbered(choice, reply)) | _usage(script, reply)


def chunk_body(reply: Reply, is_chat: bool, choices: list[Json], usage: Json | None, with_usage: bool) -> Json:
    """One streamed chunk; `with_usage` puts the field there even when it is null, as OpenAI does."""
    chunk = _envelope(reply, "chat.completion.chunk" if is_chat else "text_completion", choices)
    return chunk | {"usage": usage} if with_usage or usage else chunk


def choice_body(is_chat: bool, index: int, delta: Json, finish: str | None) -> Json:
    """One choice of a streamed chunk."""
    content: Json = {"delta": delta} if is_chat else {"text": delta.get("content", "")}
    return {"index": index, **content, "logprobs": None, "finish_reason": finish}


def embeddings_body(script: Script, body: Json, prompt_tokens: int) -> Json:
    """A list of unit vectors, as numbers or base64 as asked."""
    asked = body.get("dimensions")
    dims = asked if isinstance(asked, int) and 0 < asked <= 4096 else script.dims
    vectors = [embed(item, dims) for item in inputs_of(body.get("input"))]
    is_base64 = body.get("encoding_format") == "base64"
    rows = [
        {"object": "embedding", "index": index, "embedding": encode_base64(vector) if is_base64 else vector}
        for index, vector in enumerate(vectors)
    ]
    usage = usage_object(script, prompt_tokens, 0)
    del usage["completion_tokens"]
    usage["total_tokens"] = usage["prompt_tokens"]
    model = script.model if script.model is not None else body.get("model", "scripted")
    answer: Json = {"object": "list", "data": rows, "model": model}
    return answer if script.usage == "none" else answer | {"usage": usage}


def models_body() -> Json:
    """The model list: one name, since every name is served."""
    return {"object": "list", "data": [model_body("scripted")]}


def model_body(name: str) -> Json:
    """One model card."""
    return {"id": name, "object": "model", "created": CREATED_S, "owned_by": "upstream"}


def _envelope(reply: Reply, kind: str, choices: list[Json]) -> Json:
    return {
        "id": reply.id,
        "object": kind,
        "created": CREATED_S,
        "model": reply.model,
        "system_fingerprint": "fp_scripted",
        "choices": choices,
    }


def _numbered(choice: Json, reply: Reply) -> list[Json]:
    return [{"index": index, **choice} for index in range(reply.choices)]


def _usage(script: Script, reply: Reply) -> dict[str, Any]:
    if script.usage == "none":
        return {}
    return {"usage": usage_object(script, reply.prompt_tokens, reply.completion_tokens)}
