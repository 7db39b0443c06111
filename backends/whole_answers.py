"""What a whole (not streamed) answer says, by the path that was asked: completions, embeddings, or a mapped route."""

import msgspec

from backends.sse import ErrorBody, Parsed, error_text, parse_completion
from core.endpoints import CHAT, COMPLETIONS, EMBEDDINGS
from core.money import Usage


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None


class _Embeddings(msgspec.Struct):
    model: str | None = None
    data: list[msgspec.Raw] | None = None
    usage: _Usage | None = None
    error: ErrorBody | str | None = None


_embeddings_decoder = msgspec.json.Decoder(_Embeddings)


def parse_whole(path: str, body: bytes) -> Parsed:
    """Decode a whole answer as far as the gateway needs it; it has no choice where it holds nothing.

    Raises:
        msgspec.DecodeError: not shaped like an answer of that path.
    """
    if path in (CHAT, COMPLETIONS):
        return parse_completion(body)
    if path == EMBEDDINGS:
        return _parse_embeddings(body)
    return _parsed(None, "", 1, Usage(0, 0), None)


def _parse_embeddings(body: bytes) -> Parsed:
    """Return the vectors as text, which is how the cache keeps them: their body is its own canonical form."""
    try:
        text, answer = body.decode(), _embeddings_decoder.decode(body)
    except (UnicodeDecodeError, RecursionError) as problem:
        raise msgspec.DecodeError(str(problem)) from problem
    tokens = None if answer.usage is None else answer.usage.prompt_tokens
    usage = None if tokens is None else Usage(max(0, tokens), 0)
    return _parsed(answer.model, text, 1 if answer.data else 0, usage, error_text(answer.error))


def _parsed(model: str | None, content: str, choices: int, usage: Usage | None, error: str | None) -> Parsed:
    return Parsed(
        model=model,
        content=content,
        has_content=True,
        choices=choices,
        finish_reason="stop",
        plain=True,
        usage=usage,
        error=error,
    )
