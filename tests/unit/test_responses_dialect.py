"""The Responses wire to chat and back, by bytes."""

import json
from typing import Any

import msgspec
import pytest

from core.chat import Demands
from core.errors import InvalidRequest, UpstreamFailed
from gateway.wire.dialects.dialect import Spoken
from gateway.wire.dialects.responses import RESPONSES_DIALECT
from tests.unit.test_messages_dialect import DONE, USAGE, chunk


def spoken(**fields: Any) -> Spoken:
    body = {"model": "m", "input": "hi"} | fields
    return RESPONSES_DIALECT.read(msgspec.json.encode(body), "req_ab", Demands())


def chat(**fields: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(spoken(**fields).request.upstream_body("m", ask_usage=False, max_tokens=None))
    return decoded


def events(*frames: bytes, **fields: Any) -> list[dict[str, Any]]:
    translator = spoken(stream=True, **fields).translator
    assert translator is not None
    return split(b"".join(translator.frame(frame) for frame in frames))


def split(text: bytes) -> list[dict[str, Any]]:
    parts = [part.split("\n") for part in text.decode().split("\n\n") if part]
    told = [(part[0].removeprefix("event: "), json.loads(part[1].removeprefix("data: "))) for part in parts]
    assert all(name == fields["type"] for name, fields in told)
    return [fields for _, fields in told]


def test_a_text_becomes_the_very_chat_that_a_chat_client_would_send() -> None:
    assert chat() == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_instructions_wishes_and_tools_find_their_places() -> None:
    sent = chat(
        instructions="be kind",
        max_output_tokens=7,
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
        tools=[{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}],
        tool_choice={"type": "function", "name": "f"},
        top_logprobs=2,
        store=True,
        temperature=0.25,
        own_field=[1],
    )
    assert sent["messages"] == [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    assert (sent["max_completion_tokens"], sent["reasoning_effort"], sent["temperature"]) == (7, "low", 0.25)
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True}
    assert sent["response_format"] == {"type": "json_schema", "json_schema": schema}
    function = {"name": "f", "parameters": {"type": "object"}, "strict": True}
    assert sent["tools"] == [{"type": "function", "function": function}]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert (sent["logprobs"], sent["top_logprobs"], sent["own_field"]) == (True, 2, [1])
    assert "store" not in sent


def test_items_become_messages_calls_and_results() -> None:
    sent = chat(
        input=[
            {"role": "developer", "content": "rules"},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "see"},
                    {"type": "input_image", "image_url": "https://h/i.png", "detail": "low"},
                ],
            },
            {"type": "reasoning", "id": "rs", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ok"}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "42"},
        ]
    )
    image = {"type": "image_url", "image_url": {"url": "https://h/i.png", "detail": "low"}}
    assert sent["messages"][0] == {"role": "system", "content": "rules"}
    assert sent["messages"][1]["content"] == [{"type": "text", "text": "see"}, image]
    assert sent["messages"][2]["content"] == "ok"
    assert [call["id"] for call in sent["messages"][2]["tool_calls"]] == ["c1", "c2"]
    assert sent["messages"][3] == {"role": "tool", "tool_call_id": "c1", "content": "42"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "c"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "input"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"text": "json"}, None),
    ],
)
def test_what_a_chat_cannot_say_is_refused_by_name(fields: dict[str, Any], param: str | None) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        spoken(**fields)
    assert refusal.value.param == param


def test_a_whole_answer_is_a_response_with_items_and_usage() -> None:
    translator = spoken(instructions="be", temperature=0.5).translator
    assert translator is not None
    call = {"id": "call_1", "function": {"name": "f", "arguments": "{}"}}
    answer = {
        "id": "c",
        "created": 5,
        "model": "up",
        "choices": [{"message": {"content": "text", "tool_calls": [call]}, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4},
    }
    response = json.loads(translator.whole(msgspec.json.encode(answer)))
    assert (response["id"], response["status"], response["model"]) == ("resp_ab", "completed", "up")
    assert response["output"][0]["content"][0]["text"] == "text"
    assert (response["output"][1]["type"], response["output"][1]["call_id"]) == ("function_call", "call_1")
    assert (response["instructions"], response["temperature"], response["store"]) == ("be", 0.5, False)
    assert response["usage"]["total_tokens"] == 13


def test_a_cut_answer_is_incomplete_and_says_why() -> None:
    told = events(chunk({"content": "x"}), chunk({}, "length"), USAGE, DONE)
    assert told[-1]["type"] == "response.incomplete"
    assert told[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_a_stream_has_every_event_in_order_and_counts_them() -> None:
    head = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": ""}}
    told = events(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "he"}),
        chunk({"content": "llo"}),
        chunk({"tool_calls": [head]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        chunk({}, "tool_calls"),
        USAGE,
        DONE,
    )
    assert [fields["type"].removeprefix("response.") for fields in told] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    assert [fields["sequence_number"] for fields in told] == list(range(len(told)))
    assert told[6]["text"] == "hello"
    assert told[-1]["response"]["output"][1]["arguments"] == "{}"
    assert told[-1]["response"]["usage"]["input_tokens_details"]["cached_tokens"] == 3


def test_an_abnormal_end_is_a_failed_response_and_an_error() -> None:
    one = spoken(stream=True)
    assert one.translator is not None
    one.translator.frame(chunk({"content": "x"}))
    told = split(one.voice.error_event(UpstreamFailed("cut")))
    assert [fields["type"] for fields in told] == ["response.failed", "error"]
    assert told[0]["response"]["status"] == "failed"
    assert told[1]["error"]["code"] == "upstream_error"


def test_a_response_repeats_what_its_request_set_to_zero_or_false() -> None:
    translator = spoken(temperature=0, top_p=0.0, parallel_tool_calls=False).translator
    assert translator is not None
    response = json.loads(translator.whole(b'{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}'))
    assert (response["temperature"], response["top_p"], response["parallel_tool_calls"]) == (0, 0.0, False)
