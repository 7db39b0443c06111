"""Requests other than chat that reach a deployment as they were sent: completions, embeddings, mapped routes.

Each becomes a `ChatRequest` without messages, whose `path` says where it goes, so that one pipeline carries them all.
"""

from typing import Any

import msgspec
from msgspec.structs import replace

from core.chat import (
    ChatRequest,
    Demands,
    Message,
    StreamOptions,
    check_limits,
    decode_fields,
    message_text,
)
from core.endpoints import COMPLETIONS, EMBEDDINGS
from core.errors import InvalidRequest

MAX_INPUTS = 2_048
JSON_TYPE = "application/json"

_value_decoder = msgspec.json.Decoder()


class _Completion(msgspec.Struct, frozen=True):
    model: str
    prompt: msgspec.Raw
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    user: str | None = None


class _Embeddings(msgspec.Struct, frozen=True):
    model: str
    input: msgspec.Raw
    user: str | None = None


_completion_decoder = msgspec.json.Decoder(_Completion)
_embeddings_decoder = msgspec.json.Decoder(_Embeddings)


def parse_completion_request(body: bytes, request_id: str, demands: Demands | None = None) -> ChatRequest:
    """Decode the body of a legacy completion; every field is kept.

    Raises:
        InvalidRequest: not a completion request.
    """
    fields, known = decode_fields(body, _completion_decoder, "completion request")
    prompts = prompt_count(known.prompt)
    check_limits(known.n, max_tokens=known.max_tokens)
    if known.best_of is not None and not 1 <= known.best_of <= 128:
        raise InvalidRequest("'best_of' must be between 1 and 128.", param="best_of")
    return ChatRequest(
        request_id=request_id,
        fields=fields,
        model=known.model,
        messages=(),
        last_user_text=message_text(Message("user", known.prompt)) if bytes(known.prompt)[:1] == b'"' else None,
        stream=bool(known.stream),
        include_usage=known.stream_options is not None and bool(known.stream_options.include_usage),
        max_tokens=known.max_tokens,
        n=max(known.n or 1, known.best_of or 1) * prompts,
        user=known.user,
        has_tools=False,
        has_media=False,
        wants_json=False,
        prompt_bytes=len(bytes(known.prompt)),
        demands=demands or Demands(),
        path=COMPLETIONS,
    )


def parse_embedding_request(body: bytes, request_id: str, demands: Demands | None = None) -> ChatRequest:
    """Decode the body of an embedding request; texts and token ids are left as they are.

    Raises:
        InvalidRequest: not an embedding request, no input, or more than `MAX_INPUTS` of them.
    """
    fields, known = decode_fields(body, _embeddings_decoder, "embedding request")
    value = _value_decoder.decode(known.input)
    if not value or not isinstance(value, str | list):
        raise InvalidRequest("'input' must be a text, a list of texts, or token ids, and not empty.", param="input")
    if isinstance(value, list) and not isinstance(value[0], int) and len(value) > MAX_INPUTS:
        raise InvalidRequest(f"'input' holds more than {MAX_INPUTS} texts.", param="input")
    request = _unspoken(request_id, known.model, EMBEDDINGS, demands)
    return replace(request, fields=fields, user=known.user, prompt_bytes=len(bytes(known.input)))


def routed_request(
    body: bytes, content_type: str, path: str, deployment: str, request_id: str, demands: Demands | None = None
) -> ChatRequest:
    """Wrap the body of a route that the operator mapped to `deployment`; a JSON object gets the upstream's `model`.

    Raises:
        InvalidRequest: said to be JSON and is not, or a field that chooses an upstream.
    """
    request = _unspoken(request_id, deployment, path, demands)
    if content_type.partition(";")[0].strip().lower() != JSON_TYPE:
        return replace(request, payload=body, content_type=content_type)
    fields, _ = decode_fields(body, msgspec.json.Decoder(dict[str, Any]), "JSON object")
    return replace(request, fields=fields)


def prompt_count(prompt: msgspec.Raw) -> int:
    """Return how many prompts the field holds.

    Raises:
        InvalidRequest: it is neither text, nor texts, nor token ids.
    """
    value = _value_decoder.decode(prompt)
    if isinstance(value, str):
        return 1
    if not isinstance(value, list) or not value:
        raise InvalidRequest("'prompt' must be a text, a list of texts, or token ids, and not empty.", param="prompt")
    return 1 if isinstance(value[0], int) else len(value)


def _unspoken(request_id: str, model: str, path: str, demands: Demands | None) -> ChatRequest:
    """Return a request whose answer holds no generated tokens: it asks for no choice."""
    return ChatRequest(
        request_id=request_id,
        fields={},
        model=model,
        messages=(),
        last_user_text=None,
        stream=False,
        include_usage=False,
        max_tokens=1,
        n=0,
        user=None,
        has_tools=False,
        has_media=False,
        wants_json=False,
        prompt_bytes=0,
        demands=demands or Demands(),
        path=path,
    )
