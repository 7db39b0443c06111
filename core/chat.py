"""A chat request as it arrived: top-level fields kept as raw JSON, only what decisions need is decoded.

Nothing that the client sent is re-encoded: the upstream body is put together from the original slices, so key order,
number text and unknown fields survive.
"""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from core.endpoints import CHAT
from core.errors import InvalidRequest

REFUSED_FIELDS = frozenset({"api_base", "base_url", "custom_host", "api_key"})
OWN_FIELDS = ("cache_salt", "priority")
LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")
PROMPT_FIELDS = ("messages", "tools", "functions", "response_format")
MAX_TOKENS = 2**31 - 1
NULL = msgspec.Raw(b"null")
Known = TypeVar("Known")


class Message(msgspec.Struct, frozen=True):
    """One message of the conversation; its content stays raw JSON."""

    role: str
    content: msgspec.Raw = NULL
    tool_calls: msgspec.Raw = NULL


class _Part(msgspec.Struct, frozen=True):
    type: str
    text: str | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    """What of `stream_options` the gateway reads."""

    include_usage: bool | None = None


class _ResponseFormat(msgspec.Struct, frozen=True):
    type: str = "text"


class _Known(msgspec.Struct, frozen=True):
    """The fields that the gateway decides on, with the types OpenAI documents."""

    model: str
    messages: list[Message]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    user: str | None = None
    tools: msgspec.Raw = NULL
    functions: msgspec.Raw = NULL
    response_format: _ResponseFormat | None = None


_COMMON = (
    "model", "messages", "temperature", "top_p", "stop", "seed", "user", "stream", "stream_options",
    "max_tokens", "max_completion_tokens", "tools", "tool_choice", "response_format", "cache_salt",
)  # fmt: skip
BEGINNINGS = {name: f',"{name}":'.encode() for name in _COMMON}
"""How the fields that most bodies have are written; any other name is encoded as it comes."""
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_known_decoder = msgspec.json.Decoder(_Known)
_parts_decoder = msgspec.json.Decoder(list[_Part])
_string_decoder = msgspec.json.Decoder(str)


class CacheControls(msgspec.Struct, frozen=True, gc=False):
    """What the caller asked of the cache; `min_score` in [0, 1] may only raise the threshold of a semantic hit."""

    bypass: bool = False
    refresh: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age_s: int | None = None
    min_score: float | None = None
    tags: tuple[str, ...] = ()


class Demands(msgspec.Struct, frozen=True, gc=False):
    """What the caller asked for in headers: cache controls, a session, a deadline, an explanation, a tier, tags.

    `content_type` says how its body is written; `passed` are headers that the operator lets through to deployments.
    `read_timeout_ms` is how long the SDK waits for the next bytes: the whole answer of a plain request, and no limit
    on a stream that flows.
    """

    cache: CacheControls = CacheControls()
    deadline_ms: int | None = None
    read_timeout_ms: int | None = None
    session: str | None = None
    explain: bool = False
    tier: str | None = None
    tags: tuple[str, ...] = ()
    content_type: str = "application/json"
    passed: tuple[tuple[str, str], ...] = ()


class ChatRequest(msgspec.Struct, frozen=True, gc=False):
    """One parsed request; `fields` holds every top-level field as raw JSON.

    `path` is where it goes below a deployment's base URL: chat, or one of `core.passed_requests`, which have no
    messages. A `payload` is a body that is not JSON and goes out as it is.
    """

    request_id: str
    fields: Mapping[str, msgspec.Raw]
    model: str
    messages: tuple[Message, ...]
    last_user_text: str | None
    stream: bool
    include_usage: bool
    max_tokens: int | None
    n: int
    user: str | None
    has_tools: bool
    has_media: bool
    wants_json: bool
    prompt_bytes: int
    demands: Demands = Demands()
    path: str = CHAT
    payload: bytes | None = None
    content_type: str = "application/json"

    def __repr__(self) -> str:
        """Show which request it is and nothing of what it says."""
        return f"ChatRequest(request_id={self.request_id!r}, model={self.model!r}, path={self.path!r})"

    def estimated_input_tokens(self) -> int:
        """Estimate the prompt's tokens as bytes / 3, rounded up: above what common tokenizers need for most text."""
        return -(-self.prompt_bytes // 3) + 4 * len(self.messages)

    def upstream_body(
        self, model: str, *, ask_usage: bool, max_tokens: int | None, cache_salt: str | None = None
    ) -> bytes:
        """Return the JSON body for an upstream: the client's own bytes with `model` and, where asked, usage and a cap.

        Args:
            model: the name that the upstream knows.
            ask_usage: add `stream_options.include_usage` to a stream that lacks it.
            max_tokens: replace the client's output limit, or None to keep it.
            cache_salt: what keeps the tenant's prefixes apart in the upstream's cache; the client's own never leaves.
        """
        if self.payload is not None:
            return self.payload
        fields = self.fields
        changed: dict[str, bytes | msgspec.Raw] = {"model": msgspec.json.encode(model)} if "model" in fields else {}
        if max_tokens is not None:
            named = [name for name in LIMIT_FIELDS if name in fields] or ["max_tokens"]
            changed |= dict.fromkeys(named, str(max_tokens).encode())
        if cache_salt is not None:
            changed["cache_salt"] = msgspec.json.encode(cache_salt)
        if ask_usage and self.stream and not self.include_usage:
            options = msgspec.json.decode(fields.get("stream_options", NULL)) or {}
            changed["stream_options"] = msgspec.json.encode(options | {"include_usage": True})
        parts: list[bytes | msgspec.Raw] = []
        for name, raw in {**fields, **changed}.items():
            if name not in OWN_FIELDS or name in changed:
                parts += (BEGINNINGS.get(name) or b"," + msgspec.json.encode(name) + b":", raw)
        return b"{" + b"".join(parts)[1:] + b"}"


def parse_chat_request(body: bytes, request_id: str, demands: Demands | None = None) -> ChatRequest:
    """Decode `body` partially.

    Raises:
        InvalidRequest: not UTF-8, not JSON, a known field of a wrong type, or a field that chooses an upstream.
    """
    fields, known = decode_fields(body, _known_decoder, "chat request")
    if not known.messages:
        raise InvalidRequest("'messages' must hold at least one message.", param="messages")
    check_limits(known.n, max_tokens=known.max_tokens, max_completion_tokens=known.max_completion_tokens)
    return ChatRequest(  # by position: see `core.trace`
        request_id,
        fields,
        known.model,
        tuple(known.messages),  # messages
        _last_user_text(known.messages),  # last_user_text
        bool(known.stream),  # stream
        known.stream_options is not None and bool(known.stream_options.include_usage),  # include_usage
        known.max_completion_tokens if known.max_completion_tokens is not None else known.max_tokens,
        known.n or 1,  # n
        known.user,
        _present(known.tools) or _present(known.functions),  # has_tools
        _have_media(known.messages),  # has_media
        known.response_format is not None and known.response_format.type != "text",  # wants_json
        _prompt_bytes(fields),  # prompt_bytes
        demands or Demands(),  # demands
    )


def decode_fields(
    body: bytes, decoder: msgspec.json.Decoder[Known], what: str
) -> tuple[Mapping[str, msgspec.Raw], Known]:
    """Return every top-level field as raw JSON, and what `decoder` makes of the body.

    Raises:
        InvalidRequest: not UTF-8, not JSON, a known field of a wrong type, or a field that chooses an upstream.
    """
    try:
        body.decode()  # raw slices are not checked by the decoder, so text read later would fail there
        fields = _fields_decoder.decode(body)
        known = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise InvalidRequest(f"The request body is not a valid {what}: {problem}") from problem
    if not REFUSED_FIELDS.isdisjoint(fields):
        name = min(REFUSED_FIELDS.intersection(fields))
        raise InvalidRequest(f"The field {name!r} is not accepted; upstreams are the operator's choice.", param=name)
    return fields, known


def check_limits(n: int | None, **limits: int | None) -> None:
    """Check the number of choices and the output limits by their names.

    Raises:
        InvalidRequest: one of them is out of its range.
    """
    for name, value in limits.items():
        if value is not None and not 1 <= value <= MAX_TOKENS:
            raise InvalidRequest(f"{name!r} must be between 1 and {MAX_TOKENS}.", param=name)
    if n is not None and not 1 <= n <= 128:
        raise InvalidRequest("'n' must be between 1 and 128.", param="n")


def _present(raw: msgspec.Raw) -> bool:
    return bytes(raw) not in (b"null", b"[]", b"{}")


def _last_user_text(messages: list[Message]) -> str | None:
    """Return the text of the last message when it is the user's and holds nothing but text."""
    last = messages[-1]
    return message_text(last) if last.role == "user" else None


def message_text(message: Message) -> str | None:
    """Return a message's text, the parts joined by newlines, or None when it is not text alone."""
    raw = bytes(message.content)
    if raw[:1] == b'"':
        return _string_decoder.decode(raw)
    if raw[:1] != b"[":
        return None
    parts = _parts(raw)
    if parts is None or any(part.type != "text" or part.text is None for part in parts):
        return None
    return "\n".join(part.text or "" for part in parts)


def _have_media(messages: list[Message]) -> bool:
    for message in messages:
        raw = bytes(message.content)
        if raw[:1] == b"[":
            parts = _parts(raw)
            if parts is None or any(part.type not in ("text", "refusal") for part in parts):
                return True
    return False


def _prompt_bytes(fields: Mapping[str, msgspec.Raw]) -> int:
    size_bytes = 0
    for name in PROMPT_FIELDS:
        if name in fields:
            size_bytes += len(bytes(fields[name]))
    return size_bytes


def _parts(raw: bytes) -> list[_Part] | None:
    try:
        return _parts_decoder.decode(raw)
    except msgspec.ValidationError:
        return None
