"""Keyed hashes that say which requests may share an answer: the scope, and the last user text raw and normalised.

The scope holds everything that can change an answer: tenant, user where it counts, requested name and its target, the
policy's version, and every field of the body, unknown ones included, except those in `NOT_ANSWER_CHANGING`. Only the
last user text stays outside; it alone enters `exact` and `normalised`.

Equality is that of JSON values: key order, spaces and string escapes do not matter. Numbers are equal when they are
the same integer or the same double, so `1E2` and `100.0` agree while `1` and `1.0` do not: an integer and a float are
kept apart, which can cost a hit and never makes a false one. A field left out differs from one that is null.
"""

import hashlib
from typing import Any

import msgspec

from cache.eligibility import needs_user_scope
from cache.normalise import normalise
from core.chat import ChatRequest
from core.endpoints import CHAT
from core.identity import Caller
from core.rules import AutoTarget, DeploymentTarget, EffectivePolicy, RuledTarget, Target, TierTarget

SCHEMA = 1
NOT_ANSWER_CHANGING = frozenset({"stream", "stream_options", "metadata", "store", "user"})
_NAMED_APART = NOT_ANSWER_CHANGING | {"model", "messages"}
_HASH_BYTES = 16

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="deterministic").encode


class CacheKeys(msgspec.Struct, frozen=True, gc=False):
    """Keyed hashes in hex, 128 bits each; `exact` and `normalised` include the scope.

    `is_fuzzy` is false when nothing but the whole request may match: the last turn is not one plain user text.
    """

    scope: str
    exact: str
    normalised: str
    is_fuzzy: bool = True


class Fingerprinter:
    """Computes keys under one secret, so that stored hashes tell nothing without it."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 16:
            raise ValueError("the fingerprint secret needs at least 16 bytes")
        self._secret = hashlib.blake2b(secret, digest_size=32, person=b"headgate-cache").digest()

    def keys(self, caller: Caller, request: ChatRequest, policy: EffectivePolicy) -> CacheKeys:
        """Return the keys of `request`; equal scopes if and only if every answer-changing field is equal."""
        messages, text = _split_last_text(request)
        parts = {
            "schema": SCHEMA,
            "tenant": caller.tenant,
            "user": request.user if request.user is not None and needs_user_scope(request, policy) else None,
            "alias": policy.alias,
            "target": _target_name(policy.target),
            "policy": policy.tenant_policy.version,
            "body": {name: _value(raw) for name, raw in request.fields.items() if name not in _NAMED_APART},
            "messages": messages,
        }
        if request.demands.passed:
            parts["headers"] = request.demands.passed
        scope = self._digest(b"scope", _encode(parts))
        shared = scope.encode()
        raw = (text or "").encode("utf-8", "surrogatepass")
        plain = raw if text is None else normalise(text).encode("utf-8", "surrogatepass")
        return CacheKeys(
            scope=scope,
            exact=self._digest(b"exact", shared + raw),
            normalised=self._digest(b"normalised", shared + plain),
            is_fuzzy=text is not None,
        )

    def _digest(self, purpose: bytes, content: bytes) -> str:
        return hashlib.blake2b(content, key=self._secret, digest_size=_HASH_BYTES, person=purpose).hexdigest()


def _split_last_text(request: ChatRequest) -> tuple[Any, str | None]:
    """Return the messages without the last user text, and that text; (all messages, None) where it is not one text.

    Requests other than chat match as a whole, and only among those of their path: their prompts are raw text.
    A last turn of several text parts stays in the scope as a whole: joined, `a\\nb` and two parts `a`, `b` look alike.
    """
    if request.path != CHAT:
        return {"path": request.path}, None
    messages = _value(request.fields["messages"])
    if request.last_user_text is None or not isinstance(messages, list) or not messages:
        return messages, None
    last = messages[-1]
    content = last.get("content") if isinstance(last, dict) else None
    if isinstance(content, str):
        return [*messages[:-1], last | {"content": 0}], content
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        text = content[0].get("text")
        if isinstance(text, str):
            return [*messages[:-1], last | {"content": [content[0] | {"text": 0}]}], text
    return messages, None


def _value(raw: msgspec.Raw) -> Any:
    """Decode to plain values; what cannot be decoded (a number beyond a double) stands for itself, byte for byte."""
    try:
        return _decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return {"undecoded": bytes(raw).hex()}


def _target_name(target: Target) -> list[str]:
    match target:
        case AutoTarget():
            return ["auto"]
        case TierTarget(tier):
            return ["tier", tier]
        case DeploymentTarget(deployment):
            return ["deployment", deployment]
        case RuledTarget(_, use):
            return ["rule", use] if isinstance(use, str) else ["rule", "deployments", *use]
