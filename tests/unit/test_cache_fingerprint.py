"""Which requests share a scope and which share a key."""

import json
from typing import Any

import pytest

from cache.fingerprint import Fingerprinter
from core.chat import parse_chat_request
from core.rules import DeploymentTarget, TierTarget
from tests.caching import caller, policy, request

SECRET = b"0123456789abcdef"
PRINTS = Fingerprinter(SECRET)
BASE = PRINTS.keys(caller(), request(), policy())


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"max_tokens": 8},
        {"seed": 1},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"a_field_of_tomorrow": None},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}]},
        {"messages": [{"role": "user", "content": "a", "name": "ann"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
    ],
)
def test_every_other_field_changes_the_scope(fields: dict[str, Any]) -> None:
    assert PRINTS.keys(caller(), request(**fields), policy()).scope != BASE.scope


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": True},
        {"stream_options": {"include_usage": True}},
        {"metadata": {"a": "b"}},
        {"store": True},
        {"user": "ann"},
    ],
)
def test_fields_that_change_no_answer_stay_out(fields: dict[str, Any]) -> None:
    assert PRINTS.keys(caller(), request(**fields), policy()) == BASE


def test_tenant_alias_target_policy_and_secret_change_the_scope() -> None:
    others = [
        PRINTS.keys(caller("other"), request(), policy()),
        PRINTS.keys(caller(), request(), policy(alias="gpt-4o")),
        PRINTS.keys(caller(), request(), policy(target=TierTarget("large"))),
        PRINTS.keys(caller(), request(), policy(target=DeploymentTarget("large"))),
        PRINTS.keys(caller(), request(), policy(version="v2")),
        Fingerprinter(b"another secret of 16").keys(caller(), request(), policy()),
    ]
    assert len({keys.scope for keys in others} | {BASE.scope}) == 7


def test_the_user_counts_under_a_per_user_policy_and_for_personal_questions() -> None:
    ann, bob = request("Where is my parcel?", user="ann"), request("Where is my parcel?", user="bob")
    assert PRINTS.keys(caller(), ann, policy()).scope != PRINTS.keys(caller(), bob, policy()).scope
    ann, bob = request(user="ann"), request(user="bob")
    assert PRINTS.keys(caller(), ann, policy()).scope == PRINTS.keys(caller(), bob, policy()).scope
    per_user = policy(per_user=True)
    assert PRINTS.keys(caller(), ann, per_user).scope != PRINTS.keys(caller(), bob, per_user).scope


def test_only_the_last_user_text_enters_the_keys() -> None:
    other = PRINTS.keys(caller(), request("what is the capital of france"), policy())
    assert other.scope == BASE.scope
    assert other.exact != BASE.exact
    assert other.normalised == BASE.normalised


def test_several_text_parts_are_matched_as_a_whole() -> None:
    def parts(*texts: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": [{"type": "text", "text": text} for text in texts]}]}

    one = PRINTS.keys(caller(), request(**parts("a", "b")), policy())
    other = PRINTS.keys(caller(), request(**parts("a\nb")), policy())
    assert one.exact != other.exact
    assert not one.is_fuzzy
    assert other.is_fuzzy


def test_key_order_spaces_and_escapes_do_not_matter() -> None:
    one = b'{"model":"auto","messages":[{"role":"user","content":"caf\\u00e9"}],"x":{"a":1,"b":1E2}}'
    other = '{"x": {"b": 100.0, "a": 1},  "messages": [{"content": "café", "role": "user"}], "model": "auto"}'
    keys = [PRINTS.keys(caller(), parse_chat_request(body, "r"), policy()) for body in (one, other.encode())]
    assert keys[0] == keys[1]


def test_numbers_beyond_a_double_are_told_apart() -> None:
    def keys(number: str) -> str:
        body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "a"}]})[:-1] + f', "x": {number}}}'
        return PRINTS.keys(caller(), parse_chat_request(body.encode(), "r"), policy()).scope

    assert keys("1e400") != keys("1e401")
    assert keys("123456789012345678901234567890") != keys("123456789012345678901234567891")


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Fingerprinter(b"short")
