"""Scopes are equal if and only if every answer-changing field is equal, over random bodies."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cache.fingerprint import NOT_ANSWER_CHANGING, Fingerprinter
from core.chat import parse_chat_request
from tests.caching import caller, policy

PRINTS = Fingerprinter(b"0123456789abcdef")
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
OWN_NAMES = st.sampled_from(["temperature", "seed", "logit_bias", "x1", "x2", "tool_choice"])
BODIES = st.fixed_dictionaries(
    {
        "system": st.sampled_from(["a", "b"]),
        "text": st.text(max_size=8),
        "fields": st.dictionaries(OWN_NAMES, VALUES, max_size=3),
        "aside": st.dictionaries(st.sampled_from(["metadata", "store"]), VALUES, max_size=2),
    }
)


def scope_and_key(body: dict[str, Any], *, shuffle: bool = False) -> tuple[str, str]:
    messages = [{"role": "system", "content": body["system"]}, {"role": "user", "content": body["text"]}]
    wire = {"model": "auto", "messages": messages} | body["fields"] | body["aside"]
    if shuffle:
        wire = dict(reversed(wire.items()))
    raw = json.dumps(wire, indent=1 if shuffle else None, ensure_ascii=shuffle).encode()
    keys = PRINTS.keys(caller(), parse_chat_request(raw, "r"), policy())
    return keys.scope, keys.exact


def identity(body: dict[str, Any]) -> str:
    """Spell out what may change the answer; JSON text tells 1 from 1.0 and from true."""
    return json.dumps([body["system"], body["fields"]], sort_keys=True)


@settings(max_examples=300, deadline=None)
@given(BODIES, BODIES)
def test_scopes_are_equal_if_and_only_if_the_answer_changing_fields_are(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert (scope_and_key(one)[0] == scope_and_key(other)[0]) == (identity(one) == identity(other))
    same_text = identity(one) == identity(other) and one["text"] == other["text"]
    assert (scope_and_key(one)[1] == scope_and_key(other)[1]) == same_text


@settings(max_examples=200, deadline=None)
@given(BODIES)
def test_neither_order_nor_spaces_nor_escapes_matter(body: dict[str, Any]) -> None:
    assert scope_and_key(body) == scope_and_key(body, shuffle=True)


@settings(max_examples=100, deadline=None)
@given(BODIES, OWN_NAMES, VALUES)
def test_changing_one_field_changes_the_scope(body: dict[str, Any], name: str, value: Any) -> None:
    changed = body | {"fields": body["fields"] | {name: value}}
    assert name not in NOT_ANSWER_CHANGING
    assert (scope_and_key(changed)[0] == scope_and_key(body)[0]) == (identity(changed) == identity(body))
