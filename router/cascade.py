"""Whether a small model's answer will do, judged from the answer alone: pure, and strict only where it can be sure.

An answer is refused with one of these tokens: `truncated` (it ended at a limit that the client did not set), `empty`,
`refusal` (it begins with one, in English, or says so in its `refusal` field), `invalid_json` (JSON was asked for and it
is none, or it misses the schema's types, required keys or enumerations), `uncertain` (the engine gave log-probabilities
and the mean margin between the two likeliest tokens is small). A self-assessment by the model is not asked for: small
models judge themselves badly.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from core.rules import CascadeRules

Refused = Literal["truncated", "empty", "refusal", "invalid_json", "uncertain"]
MAX_DEPTH = 16
_REFUSAL = re.compile(
    r"\W*(?:i(?:'|’)?m (?:sorry|afraid|unable|not able)|i am (?:sorry|afraid|unable|not able)|sorry,|i can(?:no|'|’)t "
    r"(?:help|assist|answer|do|provide)|as an ai\b|i do(?:n't|n’t| not) know)",
    re.IGNORECASE,
)
_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


class _Likely(msgspec.Struct, frozen=True):
    logprob: float


class _Token(msgspec.Struct, frozen=True):
    top_logprobs: list[_Likely] = []


class _Logprobs(msgspec.Struct, frozen=True):
    content: list[_Token] | None = None


class _Message(msgspec.Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct, frozen=True):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Completion(msgspec.Struct, frozen=True):
    choices: list[_Choice]


class _JsonSchema(msgspec.Struct, frozen=True):
    schema: Any = None


class _ResponseFormat(msgspec.Struct, frozen=True):
    type: str = "text"
    json_schema: _JsonSchema | None = None


_completion_decoder = msgspec.json.Decoder(_Completion)
_format_decoder = msgspec.json.Decoder(_ResponseFormat | None)


def refused(
    body: bytes, response_format: msgspec.Raw | None, max_tokens: int | None, rules: CascadeRules
) -> Refused | None:
    """Return why the answer in `body` will not do, or None when nothing speaks against it.

    Args:
        body: a whole chat completion.
        response_format: what the request asked for, as it stands in its body.
        max_tokens: the client's own output limit; an answer that ends there is as long as was asked for.
        rules: the policy's bounds.
    """
    choice = _completion_decoder.decode(body).choices[0]
    if choice.finish_reason == "length" and max_tokens is None:
        return "truncated"
    content = (choice.message.content or "").strip()
    if choice.message.refusal or _REFUSAL.match(content):
        return "refusal"
    if not content and not choice.message.tool_calls:
        return "empty"
    if content and not _is_in_format(content, response_format):
        return "invalid_json"
    margin = _mean_margin(choice.logprobs)
    return "uncertain" if margin is not None and margin < rules.min_margin else None


def _is_in_format(content: str, response_format: msgspec.Raw | None) -> bool:
    wanted = None if response_format is None else _format_decoder.decode(response_format)
    if wanted is None or wanted.type == "text":
        return True
    try:
        value = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return False
    schema = None if wanted.json_schema is None else wanted.json_schema.schema
    return matches(value, schema) if isinstance(schema, dict) else isinstance(value, dict)


def matches(value: Any, schema: Any, depth: int = 0) -> bool:
    """Tell whether a JSON value keeps to the types, required keys, enumerations and items of a JSON Schema.

    What else a schema says is not looked at, so that this refuses too little rather than too much.
    """
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return True
    named = schema.get("type")
    if named is not None and not any(_is_of(value, one) for one in (named if isinstance(named, list) else [named])):
        return False
    if isinstance(schema.get("enum"), list) and value not in schema["enum"]:
        return False
    if isinstance(value, dict):
        return _matches_object(value, schema, depth)
    if isinstance(value, list) and "items" in schema:
        return all(matches(item, schema["items"], depth + 1) for item in value)
    return True


def _matches_object(value: dict[str, Any], schema: dict[str, Any], depth: int) -> bool:
    known = schema.get("properties")
    properties: dict[str, Any] = known if isinstance(known, dict) else {}
    required = schema.get("required")
    if isinstance(required, list) and any(name not in value for name in required):
        return False
    if schema.get("additionalProperties") is False and any(name not in properties for name in value):
        return False
    return all(matches(item, properties[name], depth + 1) for name, item in value.items() if name in properties)


def _is_of(value: Any, named: object) -> bool:
    if isinstance(value, bool):
        return named == "boolean"
    expected = _TYPES.get(str(named))
    return expected is None or isinstance(value, expected)


def _mean_margin(logprobs: _Logprobs | None) -> float | None:
    """Return the mean difference in probability between the two likeliest tokens, None without such figures."""
    tokens = [] if logprobs is None or logprobs.content is None else logprobs.content
    margins = [_margin(token.top_logprobs) for token in tokens if len(token.top_logprobs) >= 2]
    return sum(margins) / len(margins) if margins else None


def _margin(likely: Sequence[_Likely]) -> float:
    first, second = sorted((one.logprob for one in likely), reverse=True)[:2]
    return math.exp(min(0.0, first)) - math.exp(min(0.0, second))
