"""The official SDKs of OpenAI and Anthropic, unchanged, against a gateway: text, streams, tools, errors, cancel."""

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.e2e.gateway_process import RunningGateway
from tests.upstream.process import RunningUpstream

SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}}
FUNCTION = {"name": "look_up", "description": "d", "parameters": SCHEMA}
TOOL: Any = {"name": "look_up", "description": "d", "input_schema": SCHEMA}


class City(BaseModel):
    name: str
    people: int


@pytest.fixture
def client(gateway: RunningGateway, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url, api_key=key, max_retries=0) as client:
        yield client


@pytest.fixture
def claude(gateway: RunningGateway, key: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key=key, max_retries=0) as client:
        yield client


def test_responses_answers_with_text_and_usage(client: openai.OpenAI, upstream: RunningUpstream) -> None:
    answer = client.responses.create(model="large", instructions="be brief", input="hello there", temperature=0.5)
    assert answer.output_text == "answer to: hello there"
    assert (answer.status, answer.error, answer.temperature) == ("completed", None, 0.5)
    assert answer.usage is not None
    assert answer.usage.output_tokens > 0
    sent = upstream.seen()[0]
    assert sent["path"] == "/v1/chat/completions"
    assert [message["role"] for message in sent["body"]["messages"]] == ["system", "user"]


def test_responses_streams_events_in_order(client: openai.OpenAI) -> None:
    with client.responses.stream(model="large", input="stream please") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert final.output_text == "answer to: stream please"
    assert final.usage is not None


def test_responses_parses_structured_output(client: openai.OpenAI) -> None:
    answer = client.responses.parse(model="large", input="a city", text_format=City)
    assert answer.output_parsed == City(name="sample", people=1)


def test_responses_calls_functions_and_takes_their_results(client: openai.OpenAI, upstream: RunningUpstream) -> None:
    tools: Any = [{"type": "function", **FUNCTION}]
    call: Any = client.responses.create(model="large", input="go", tools=tools, tool_choice="required").output[0]
    assert (call.type, call.name) == ("function_call", "look_up")
    turn: Any = [{"role": "user", "content": "go"}, call.model_dump(), _output(call.call_id)]
    client.responses.create(model="large", input=turn, tools=tools)
    messages = upstream.seen()[-1]["body"]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
    assert messages[1]["tool_calls"][0]["id"] == messages[2]["tool_call_id"] == call.call_id


def _output(call_id: str) -> dict[str, str]:
    return {"type": "function_call_output", "call_id": call_id, "output": "42"}


def test_responses_refuses_what_needs_a_memory(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.responses.create(model="large", input="x", previous_response_id="resp_1")
    assert refusal.value.param == "previous_response_id"


def test_responses_streams_raise_when_the_upstream_breaks_off(client: openai.OpenAI, upstream: RunningUpstream) -> None:
    upstream.obey("n=8;cut=3")
    with pytest.raises(openai.APIError) as failure:
        list(client.responses.create(model="large", input="cut me", stream=True))
    assert failure.value.code == "upstream_error"


def test_messages_answers_with_text_and_usage(claude: anthropic.Anthropic, upstream: RunningUpstream) -> None:
    answer = claude.messages.create(
        model="large", max_tokens=50, system="be brief", messages=[{"role": "user", "content": "hello claude"}]
    )
    assert answer.content[0].text == "answer to: hello claude"  # type: ignore[union-attr]
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens > 0
    sent = upstream.seen()[0]
    assert (sent["path"], sent["body"]["max_tokens"]) == ("/v1/chat/completions", 50)
    assert "x-api-key" not in sent["headers"]


def test_messages_streams_text_and_usage(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(
        model="large", max_tokens=50, messages=[{"role": "user", "content": "stream claude"}]
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "answer to: stream claude"
    assert final.stop_reason == "end_turn"
    assert final.usage.input_tokens > 0
    assert final.usage.output_tokens > 0


@pytest.mark.parametrize("is_streamed", [False, True])
def test_messages_calls_tools_and_takes_their_results(
    claude: anthropic.Anthropic, upstream: RunningUpstream, is_streamed: bool
) -> None:
    asked: Any = {
        "model": "large",
        "max_tokens": 50,
        "tools": [TOOL],
        "tool_choice": {"type": "any"},
        "messages": [{"role": "user", "content": f"go {is_streamed}"}],
    }
    answer: Any
    if is_streamed:
        with claude.messages.stream(**asked) as stream:
            answer = stream.get_final_message()
    else:
        answer = claude.messages.create(**asked)
    use: Any = answer.content[0]
    assert (answer.stop_reason, use.type, use.name, use.input) == ("tool_use", "tool_use", "look_up", {"q": "sample"})
    result: Any = {"type": "tool_result", "tool_use_id": use.id, "content": "42"}
    claude.messages.create(
        model="large",
        max_tokens=50,
        tools=[TOOL],
        messages=[
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": answer.content},
            {"role": "user", "content": [result]},
        ],
    )
    assert [message["role"] for message in upstream.seen()[-1]["body"]["messages"]] == ["user", "assistant", "tool"]


def test_messages_errors_have_anthropics_types(gateway: RunningGateway, claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        claude.messages.create(model="nope", max_tokens=5, messages=[{"role": "user", "content": "x"}])
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        stranger.messages.create(model="large", max_tokens=5, messages=[{"role": "user", "content": "x"}])


def test_messages_streams_raise_when_the_upstream_breaks_off(
    claude: anthropic.Anthropic, upstream: RunningUpstream
) -> None:
    upstream.obey("n=8;cut=3")
    stream = claude.messages.create(
        model="large", max_tokens=50, messages=[{"role": "user", "content": "cut claude"}], stream=True
    )
    with pytest.raises(anthropic.APIStatusError, match="cut"):
        list(stream)


def test_messages_counts_tokens(claude: anthropic.Anthropic) -> None:
    counted = claude.messages.count_tokens(model="large", messages=[{"role": "user", "content": "count these words"}])
    assert counted.input_tokens > 3


def test_a_stream_that_the_client_leaves_is_cancelled_upstream(
    claude: anthropic.Anthropic, gateway: RunningGateway, upstream: RunningUpstream
) -> None:
    upstream.obey("n=200;gap=50")
    with claude.messages.stream(
        model="large", max_tokens=500, messages=[{"role": "user", "content": "leave early"}]
    ) as stream:
        request_id = stream.response.headers["x-request-id"]
        next(iter(stream.text_stream))
    assert gateway.row_of(request_id)["status"] == 499
    assert upstream.seen()[0]["state"] == "disconnected"


def test_both_wires_share_the_cache_with_chat(
    client: openai.OpenAI, claude: anthropic.Anthropic, gateway: RunningGateway, key: str
) -> None:
    text = "Which mountain is the highest?"
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": text}])
    body = {"model": "gpt-4o", "input": text}
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx.post(f"{gateway.base_url}/responses", json=body, headers=headers, trust_env=False)
    assert answer.headers["x-headgate-cache"] == "exact"
    assert answer.json()["output"][0]["content"][0]["text"] == f"answer to: {text}"


def test_one_model_can_be_looked_up(client: openai.OpenAI) -> None:
    assert client.models.retrieve("large").id == "large"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nope")
