"""What a worker makes of a request body."""

import json
from dataclasses import replace
from typing import Any

import pytest

from backends.engines.worker_request import Limits, RequestRefused, WorkerRequest, parse

LIMITS = Limits(model="m", context_tokens=100, max_output_tokens=40, default_temperature=0.5)


def parsed(limits: Limits = LIMITS, **fields: Any) -> WorkerRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | fields
    return parse(json.dumps(body).encode(), limits)


@pytest.mark.parametrize(
    ("field", "value"),
    [("presence_penalty", 1), ("frequency_penalty", -0.5), ("response_format", {"type": "json_object"})],
)
def test_what_an_engine_would_silently_leave_out_is_refused(field: str, value: Any) -> None:
    few = replace(LIMITS, has_all_controls=False)
    with pytest.raises(RequestRefused) as refusal:
        parsed(few, **{field: value})
    assert (refusal.value.status, refusal.value.param) == (400, field)
    assert parsed(few, presence_penalty=0, response_format={"type": "text"}).choices == 1
    assert parsed(**{field: value}).choices == 1


def test_absent_and_null_fields_take_the_defaults() -> None:
    nulls: dict[str, Any] = {
        "stream": None,
        "n": None,
        "temperature": None,
        "stop": None,
        "max_tokens": None,
        "stream_options": None,
    }
    for request in (parsed(), parsed(**nulls)):
        sampling = request.sampling(10, 0, LIMITS)
        assert (request.stream, request.choices, request.stops, request.include_usage) == (False, 1, (), False)
        assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.5, 1.0, 40)


@pytest.mark.parametrize(
    ("asked", "prompt_tokens", "granted"), [(7, 10, 7), (None, 10, 40), (1000, 10, 40), (30, 95, 5), (None, 99, 1)]
)
def test_the_output_limit_is_cut_to_the_model_and_to_the_room(
    asked: int | None, prompt_tokens: int, granted: int
) -> None:
    assert parsed(max_tokens=asked).sampling(prompt_tokens, 0, LIMITS).max_tokens == granted


def test_the_newer_limit_wins_over_the_older() -> None:
    assert parsed(max_tokens=30, max_completion_tokens=3).sampling(1, 0, LIMITS).max_tokens == 3


@pytest.mark.parametrize("prompt_tokens", [100, 5000])
def test_a_prompt_without_room_for_an_answer_is_refused(prompt_tokens: int) -> None:
    with pytest.raises(RequestRefused, match="holds 100 tokens") as refusal:
        parsed().sampling(prompt_tokens, 0, LIMITS)
    assert refusal.value.code == "context_length_exceeded"


def test_temperatures_that_no_float_can_divide_by_are_greedy() -> None:
    assert parsed(temperature=1e-300).temperature == 0
    assert parsed(top_p=0, temperature=1).temperature == 0
    assert parsed(temperature=1.5).temperature == 1.5


def test_each_choice_has_a_seed_of_its_own_and_requests_without_one_differ() -> None:
    request = parsed(seed=7, n=2)
    assert [request.sampling(1, n, LIMITS).seed for n in range(2)] == [7, 8]
    assert parsed(seed=-1).seed >= 0
    assert len({parsed().seed for _ in range(8)}) > 1


def test_stop_may_be_a_string_or_a_list_and_empty_strings_stop_nothing() -> None:
    assert parsed(stop="x").stops == ("x",)
    assert parsed(stop=["x", "", "y"]).stops == ("x", "y")


def test_text_parts_are_joined_and_missing_content_is_empty() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = parsed(messages=[{"role": "user", "content": parts}, {"role": "assistant", "content": None}])
    assert [dict(message) for message in request.messages] == [
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": ""},
    ]


def test_no_schema_of_the_client_reaches_the_engine() -> None:
    assert parsed(response_format={"type": "text"}).json_schema is None
    assert (
        parsed(response_format={"type": "json_object", "schema": {"type": "bogus"}}).json_schema == '{"type":"object"}'
    )
    with pytest.raises(RequestRefused, match="json_object only"):
        parsed(response_format={"type": "json_schema", "json_schema": {"schema": {}}})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages"),
        ({"temperature": "warm"}, None),
        ({"messages": [{"content": "x"}]}, None),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(fields: dict[str, Any], param: str | None) -> None:
    with pytest.raises(RequestRefused) as refusal:
        parsed(**fields)
    assert (refusal.value.status, refusal.value.param) == (400, param)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b'"x"', b'{"model":"m"}', b"\xff", b'{"model":"m","messages":["\\ud800"]}']
)
def test_a_body_that_is_no_chat_request_is_refused(raw: bytes) -> None:
    with pytest.raises(RequestRefused, match="not a valid chat request"):
        parse(raw, LIMITS)


def test_another_model_is_not_found() -> None:
    with pytest.raises(RequestRefused, match="serves 'm', not 'other'") as refusal:
        parsed(model="other")
    assert (refusal.value.status, refusal.value.code) == (404, "model_not_found")
