"""What is read of a chat request, what is refused, and what an upstream gets of it."""

import json
from typing import Any

import msgspec
import pytest

from core.chat import ChatRequest, Demands, Message, message_text, parse_chat_request
from core.errors import InvalidRequest

USER = {"role": "user", "content": "hello"}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}


def body(**fields: Any) -> bytes:
    return msgspec.json.encode({"model": "auto", "messages": [USER], **fields})


def parse(**fields: Any) -> ChatRequest:
    return parse_chat_request(body(**fields), "req_1")


def refusal(raw: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat_request(raw, "req_1")
    return caught.value


def sent(request: ChatRequest, *, ask_usage: bool = True, max_tokens: int | None = None) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(request.upstream_body("real", ask_usage=ask_usage, max_tokens=max_tokens))
    return decoded


def test_a_tenants_cache_salt_replaces_the_clients_own() -> None:
    raw = b'{"model":"m","messages":[{"role":"user","content":"x"}],"cache_salt":"mine","priority":9}'
    request = parse_chat_request(raw, "req_1")
    salted = json.loads(request.upstream_body("real", ask_usage=True, max_tokens=None, cache_salt="of the tenant"))
    assert salted["cache_salt"] == "of the tenant"
    plain = json.loads(request.upstream_body("real", ask_usage=True, max_tokens=None))
    assert {"cache_salt", "priority"} & set(plain) == set()


def test_the_least_request_gets_the_documented_defaults() -> None:
    request = parse()
    assert (request.model, request.last_user_text, request.stream, request.include_usage) == (
        "auto",
        "hello",
        False,
        False,
    )
    assert (request.max_tokens, request.n, request.user, request.demands) == (None, 1, None, Demands())
    assert (request.has_tools, request.has_media, request.wants_json) == (False, False, False)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b'{"model": "a"}',
        b'{"messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "a", "messages": [{"role": "user"}',
        b'{"model": 5, "messages": [{"role": "user"}]}',
        b'{"model": "a", "messages": "x"}',
        b'{"model": "a", "messages": [{"content": "x"}]}',
        b'{"model": "a", "messages": [{"role": "user", "content": "x"}]} and more',
        b'{"model": "a", "messages": [{"role": "user", "content": "\\q"}]}',
        b'{"model": "a", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "a", "messages": [{"role": "user", "content": NaN}]}',
    ],
)
def test_what_is_no_chat_request_is_refused(raw: bytes) -> None:
    assert refusal(raw).http_status == 400


@pytest.mark.parametrize(
    "content",
    [b'"\xff"', b'[{"type": "text", "text": "\xc3"}]', b'[{"type": "\xff"}]'],
)
def test_text_that_is_not_utf8_is_refused(content: bytes) -> None:
    refusal(b'{"model": "a", "messages": [{"role": "user", "content": ' + content + b"}]}")


def test_text_that_is_not_utf8_is_refused_before_the_last_message_too() -> None:
    refusal(b'{"model": "a", "messages": [{"role": "system", "content": "\xff"}, {"role": "user", "content": "x"}]}')


def test_nesting_without_end_is_refused() -> None:
    refusal(body(metadata=None).replace(b"null", b"[" * 100_000 + b"]" * 100_000))


@pytest.mark.parametrize("name", ["api_base", "base_url", "custom_host", "api_key"])
def test_a_field_that_would_choose_the_upstream_is_refused(name: str) -> None:
    assert refusal(body(**{name: None})).param == name


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_completion_tokens": 2**63}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refusal(body(**fields)).param == param


def test_max_completion_tokens_goes_before_max_tokens() -> None:
    assert parse(max_tokens=9, max_completion_tokens=4).max_tokens == 4


@pytest.mark.parametrize("empty", [None, [], {}])
def test_empty_tools_are_no_tools(empty: object) -> None:
    assert not parse(tools=empty, functions=empty).has_tools


@pytest.mark.parametrize("name", ["tools", "functions"])
def test_tools_are_noticed(name: str) -> None:
    assert parse(**{name: [{"name": "f"}]}).has_tools


@pytest.mark.parametrize(
    ("wanted", "json_is_wanted"),
    [
        (None, False),
        ({"type": "text"}, False),
        ({"type": "json_object"}, True),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"properties": {"text": {}}}}}, True),
    ],
)
def test_json_is_wanted_by_the_type_of_the_response_format(wanted: object, json_is_wanted: bool) -> None:
    assert parse(response_format=wanted).wants_json is json_is_wanted


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([USER], "hello"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], "a\nb"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]}], None),
        ([{"role": "user", "content": []}], ""),
        ([{"role": "user", "content": None}], None),
        ([{"role": "user"}], None),
        ([{"role": "user", "content": {"type": "text"}}], None),
        ([{"role": "user", "content": ["bare"]}], None),
        ([USER, {"role": "assistant", "content": "yes?"}], None),
        ([{"role": "user", "content": "naïve 😀 \\"}], "naïve 😀 \\"),
    ],
)
def test_the_last_user_text_is_text_alone(messages: list[Any], text: str | None) -> None:
    assert parse(messages=messages).last_user_text == text


@pytest.mark.parametrize(
    ("content", "has_media"),
    [
        ("text", False),
        (None, False),
        ([{"type": "text", "text": "a"}], False),
        ([{"type": "refusal", "refusal": "no"}], False),
        ([IMAGE], True),
        ([{"type": "input_audio", "input_audio": {}}], True),
        (["bare"], True),
    ],
)
def test_media_is_noticed_in_any_message(content: object, has_media: bool) -> None:
    assert parse(messages=[{"role": "user", "content": content}, USER]).has_media is has_media


def test_the_text_of_a_tool_message_is_read_too() -> None:
    assert message_text(Message(role="tool", content=msgspec.Raw(b'"42"'))) == "42"


def test_the_estimate_grows_with_every_byte_of_prompt_and_tools() -> None:
    plain = parse().estimated_input_tokens()
    longer = parse(messages=[{"role": "user", "content": "x" * 300}]).estimated_input_tokens()
    with_tools = parse(tools=[{"name": "f" * 300}]).estimated_input_tokens()
    with_functions = parse(functions=[{"name": "f" * 300}]).estimated_input_tokens()
    assert longer >= plain + 95
    assert with_tools >= plain + 100
    assert with_functions >= plain + 100


def test_only_the_model_changes_in_a_plain_body() -> None:
    raw = b'{"b":1.50,"model" : "auto","messages":[ {"role":"user","content":"\\u00e9"} ],"a":{"z":1e3,"y":[]}}'
    changed = parse_chat_request(raw, "req_1").upstream_body("real", ask_usage=True, max_tokens=None)
    assert (
        changed == b'{"b":1.50,"model":"real","messages":[ {"role":"user","content":"\\u00e9"} ],"a":{"z":1e3,"y":[]}}'
    )


def test_a_repeated_field_counts_once_and_the_same_for_us_and_the_upstream() -> None:
    raw = b'{"model": "a", "model": "b", "messages": [{"role": "user", "content": "x"}], "n": 3, "n": 2}'
    request = parse_chat_request(raw, "req_1")
    assert (request.model, request.n, sent(request)["n"]) == ("b", 2, 2)
    assert request.upstream_body("real", ask_usage=True, max_tokens=None).count(b'"n"') == 1


@pytest.mark.parametrize("name", ["cache_salt", "priority"])
def test_fields_of_our_own_are_not_forwarded(name: str) -> None:
    assert name not in sent(parse(**{name: 1}))


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"stream": True}, {"include_usage": True}),
        ({"stream": True, "stream_options": None}, {"include_usage": True}),
        ({"stream": True, "stream_options": {"include_usage": False}}, {"include_usage": True}),
        ({"stream": True, "stream_options": {"x": 1}}, {"x": 1, "include_usage": True}),
        ({"stream": True, "stream_options": {"include_usage": True, "x": 1}}, {"include_usage": True, "x": 1}),
    ],
)
def test_usage_is_asked_of_every_stream(fields: dict[str, Any], options: dict[str, Any]) -> None:
    assert sent(parse(**fields))["stream_options"] == options


@pytest.mark.parametrize("fields", [{}, {"stream": False}, {"stream": None}])
def test_usage_is_not_asked_of_a_plain_answer(fields: dict[str, Any]) -> None:
    assert "stream_options" not in sent(parse(**fields))


def test_usage_is_not_asked_where_the_upstream_is_not_to_be_asked() -> None:
    assert "stream_options" not in sent(parse(stream=True), ask_usage=False)


@pytest.mark.parametrize(
    ("fields", "capped"),
    [
        ({}, {"max_tokens": 7}),
        ({"max_tokens": 900}, {"max_tokens": 7}),
        ({"max_completion_tokens": 900}, {"max_completion_tokens": 7}),
        ({"max_tokens": 900, "max_completion_tokens": 800}, {"max_tokens": 7, "max_completion_tokens": 7}),
        ({"max_tokens": 900, "max_completion_tokens": None}, {"max_tokens": 7, "max_completion_tokens": 7}),
    ],
)
def test_a_cap_replaces_every_limit_that_the_client_named(fields: dict[str, Any], capped: dict[str, int]) -> None:
    body = sent(parse(**fields), max_tokens=7)
    assert {name: value for name, value in body.items() if "tokens" in name} == capped


def test_a_model_name_is_escaped() -> None:
    request = parse()
    assert json.loads(request.upstream_body('we"ird\n', ask_usage=True, max_tokens=None))["model"] == 'we"ird\n'


def test_neither_prompt_nor_fields_show_in_the_repr() -> None:
    assert "hello" not in repr(parse(messages=[USER], user="someone"))
