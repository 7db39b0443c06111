"""A cached answer reads like a live one."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from backends.sse import FrameSplitter, data_of, is_done, parse_completion
from core.cached import CachedAnswer
from core.chat import ChatRequest, parse_chat_request
from core.money import Usage
from gateway.wire.replay import replay

ANSWER = CachedAnswer(
    content="Sorted:  3 7 9\n",
    finish_reason="stop",
    response_model="small-model",
    tier="small",
    deployment="s1",
    usage=Usage(12, 5),
    cost_nano_usd=99,
)


def chat(**fields: Any) -> ChatRequest:
    body = {"model": "auto", "messages": [{"role": "user", "content": "Sort 9 3 7"}], **fields}
    return parse_chat_request(msgspec.json.encode(body), "req_1")


async def replayed(answer: CachedAnswer, **fields: Any) -> list[bytes]:
    return [chunk async for chunk in replay(answer, chat(**fields), created_s=1_700_000_000)]


async def events(answer: CachedAnswer = ANSWER, **fields: Any) -> list[dict[str, Any]]:
    frames = await replayed(answer, stream=True, **fields)
    assert [is_done(frame) for frame in frames] == [False] * (len(frames) - 1) + [True]
    return [json.loads(data_of(frame)) for frame in frames[:-1]]


async def test_a_plain_replay_is_one_whole_completion() -> None:
    (body,) = await replayed(ANSWER)
    completion = json.loads(body)
    assert (completion["object"], completion["model"], completion["created"]) == (
        "chat.completion",
        "small-model",
        1_700_000_000,
    )
    assert completion["id"] == "chatcmpl-req_1"
    assert completion["usage"] == {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    (choice,) = completion["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (ANSWER.content, "stop")
    assert (choice["message"]["role"], choice["index"]) == ("assistant", 0)


async def test_a_streamed_replay_opens_with_the_role_and_ends_with_the_reason() -> None:
    said = await events()
    deltas = [event["choices"][0]["delta"] for event in said]
    reasons = [event["choices"][0]["finish_reason"] for event in said]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas[-1] == {}
    assert reasons == [None] * (len(said) - 1) + ["stop"]
    assert len({(event["id"], event["created"], event["model"], event["object"]) for event in said}) == 1
    assert said[0]["object"] == "chat.completion.chunk"


async def test_usage_comes_last_and_costs_nothing_for_who_asked() -> None:
    last = (await events(stream_options={"include_usage": True}))[-1]
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    assert last["headgate"] == {"cost_usd": "0"}


@pytest.mark.parametrize("options", [None, {"include_usage": False}])
async def test_usage_is_left_out_for_who_did_not_ask(options: object) -> None:
    assert all("usage" not in event for event in await events(stream_options=options))


@settings(deadline=None)
@given(st.text())
def test_no_character_of_an_answer_is_lost_and_every_frame_parses(content: str) -> None:
    frames = asyncio.run(replayed(replace(ANSWER, content=content), stream=True))
    assert FrameSplitter().feed(b"".join(frames)) == frames
    assert "".join(parse_completion(data_of(frame)).content for frame in frames[:-1]) == content
