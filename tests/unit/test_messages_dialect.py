"""Anthropic's wire to chat and back, by bytes."""

import json
from typing import Any

import msgspec
import pytest

from core.chat import Demands
from core.errors import BudgetExhausted, HeadgateError, InvalidRequest, Unavailable, UpstreamFailed
from gateway.wire.dialects.dialect import Spoken
from gateway.wire.dialects.messages import MESSAGES_DIALECT, VOICE

BASE: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


def spoken(**fields: Any) -> Spoken:
    return MESSAGES_DIALECT.read(msgspec.json.encode(BASE | fields), "req_ab", Demands())


def chat(**fields: Any) -> dict[str, Any]:
    body = spoken(**fields).request.upstream_body("m", ask_usage=False, max_tokens=None)
    decoded: dict[str, Any] = json.loads(body)
    return decoded


def whole(answer: dict[str, Any], **fields: Any) -> dict[str, Any]:
    translator = spoken(**fields).translator
    assert translator is not None
    decoded: dict[str, Any] = json.loads(translator.whole(msgspec.json.encode(answer)))
    return decoded


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
    return b"data: %b\n\n" % msgspec.json.encode({"id": "c", "created": 1, "model": "up", "choices": [choice]})


USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13,' \
        b'"prompt_tokens_details":{"cached_tokens":3}}}\n\n'  # fmt: skip
DONE = b"data: [DONE]\n\n"


def events(*frames: bytes, **fields: Any) -> list[tuple[str, dict[str, Any]]]:
    translator = spoken(**fields).translator
    assert translator is not None
    text = b"".join(translator.frame(frame) for frame in frames).decode()
    parts = [part.split("\n") for part in text.split("\n\n") if part]
    return [(part[0].removeprefix("event: "), json.loads(part[1].removeprefix("data: "))) for part in parts]


def test_a_plain_message_becomes_the_very_chat_that_an_openai_client_would_send() -> None:
    assert chat() == {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


def test_system_tools_and_wishes_find_their_places() -> None:
    sent = chat(
        system=[
            {"type": "text", "text": "be"},
            {"type": "text", "text": "kind", "cache_control": {"type": "ephemeral"}},
        ],
        tools=[{"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {"$ref": {}}}}],
        tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        stop_sequences=["END"],
        metadata={"user_id": "u1"},
        temperature=0.5,
        thinking={"type": "enabled", "budget_tokens": 2048},
        own_field={"kept": 1},
        stream=True,
    )
    assert sent["messages"][0] == {"role": "system", "content": "be\nkind"}
    assert sent["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "f",
                "description": "d",
                "parameters": {"type": "object", "properties": {"$ref": {}}},
            },
        }
    ]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert (sent["parallel_tool_calls"], sent["stop"], sent["user"]) == (False, ["END"], "u1")
    assert (sent["temperature"], sent["own_field"]) == (0.5, {"kept": 1})
    assert sent["stream_options"] == {"include_usage": True}
    assert "thinking" not in sent


def test_a_round_of_tools_becomes_calls_results_and_then_what_the_user_says() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}
    sent = chat(
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "look"}, image]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "calling"},
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "and?"},
                    {"type": "tool_result", "tool_use_id": "t1", "content": "42", "is_error": True},
                ],
            },
        ]
    )
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
    assert sent["messages"][0]["content"] == [{"type": "text", "text": "look"}, url]
    assert sent["messages"][1] == {
        "role": "assistant",
        "content": "calling",
        "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
    }
    assert sent["messages"][2:] == [
        {"role": "tool", "tool_call_id": "t1", "content": "Error: 42"},
        {"role": "user", "content": "and?"},
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "alien", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "server_tool_use"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": "x"}]}]}, "messages"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"mcp_servers": [{"url": "http://x"}]}, "mcp_servers"),
        ({"tools": "none"}, None),
        ({"metadata": 3}, None),
    ],
)
def test_what_a_chat_cannot_say_is_refused_by_name(fields: dict[str, Any], param: str | None) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        spoken(**fields)
    assert refusal.value.param == param


def test_a_whole_answer_has_blocks_a_stop_reason_and_usage_without_what_was_cached() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    message = whole(
        {
            "id": "c",
            "model": "up",
            "choices": [{"message": {"content": "text", "tool_calls": [call]}, "finish_reason": "tool_calls"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}},
        }
    )
    assert message["content"] == [
        {"type": "text", "text": "text"},
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}},
    ]
    assert (message["type"], message["role"], message["stop_reason"]) == ("message", "assistant", "tool_use")
    assert (message["usage"]["input_tokens"], message["usage"]["cache_read_input_tokens"]) == (6, 3)


def test_a_matched_stop_sequence_is_told_where_the_server_tells_it() -> None:
    answer = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop", "stop_reason": "END"}]}
    assert whole(answer, stop_sequences=["END"])["stop_reason"] == "stop_sequence"
    assert whole(answer)["stop_reason"] == "end_turn"


@pytest.mark.parametrize("arguments", ["{", "[1]", "7"])
def test_arguments_that_are_no_object_are_an_error_and_not_an_empty_call(arguments: str) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    with pytest.raises(UpstreamFailed):
        whole({"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]})


def test_a_stream_of_text_and_tools_has_every_event_in_order() -> None:
    head = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": ""}}
    told = events(
        chunk({"role": "assistant", "content": ""}),
        b": keep-alive\n\n",
        chunk({"content": "he"}),
        chunk({"content": "llo"}),
        chunk({"tool_calls": [head]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}),
        chunk({"tool_calls": [head | {"index": 1, "id": "call_2"}]}),
        chunk({}, "tool_calls"),
        USAGE,
        DONE,
        stream=True,
    )
    assert [name for name, _ in told] == [
        "message_start", "ping",
        "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "content_block_start", "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert [fields["index"] for name, fields in told if name == "content_block_start"] == [0, 1, 2]
    assert told[6][1]["content_block"] == {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}
    assert told[-2][1]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert (told[-2][1]["usage"]["input_tokens"], told[-2][1]["usage"]["output_tokens"]) == (6, 4)


def test_interleaved_calls_are_an_error_and_not_a_mixture() -> None:
    def call(index: int) -> bytes:
        return chunk({"tool_calls": [{"index": index, "id": f"c{index}", "function": {"name": "f", "arguments": "{"}}]})

    with pytest.raises(UpstreamFailed):
        events(call(0), call(1), call(0), stream=True)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequest("no"), "invalid_request_error"),
        (BudgetExhausted("no"), "rate_limit_error"),
        (Unavailable("no", 1.0), "overloaded_error"),
        (UpstreamFailed("no"), "api_error"),
    ],
)
def test_errors_have_anthropics_shape(error: HeadgateError, kind: str) -> None:
    body = json.loads(VOICE.error_body(error, "req_1"))
    assert body == {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": "req_1"}
    assert VOICE.error_event(error).startswith(b"event: error\ndata: ")
