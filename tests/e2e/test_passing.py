"""What passes unharmed in both directions, what does not pass, and an answer of another model than was asked."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.telemetry.request_rows import attempts_decoder
from tests.e2e.conftest import ACME
from tests.e2e.gateway_process import REMOTE, RunningGateway, error_of, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream

STRICT = ", request_headers: [openai-beta], response_headers: [x-scripted], on_other_model: error"
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}}
SCHEMA = {"type": "object", "properties": {"$ref": {"type": "string"}}, "required": ["$ref"]}


@pytest.fixture(scope="module")
def gateway(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder: Path = tmp_path_factory.mktemp("passing")
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
    operator = operator.replace("output_usd_per_m: 20}}", "output_usd_per_m: 20}" + STRICT + "}")
    write_configuration(folder, operator, {"acme": ACME})
    with run_gateway(folder) as running:
        yield running


def post(gateway: RunningGateway, key: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    sent = {"authorization": f"Bearer {key}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{gateway.base_url}/chat/completions", json=body, headers=sent, timeout=30, trust_env=False)


def test_tools_schemas_parts_and_log_probabilities_reach_the_upstream_as_sent(
    gateway: RunningGateway, key: str, upstream: RunningUpstream
) -> None:
    body = {
        "model": "large",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "see"}, IMAGE]},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{ \"a\": 1 }"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}}],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
        "logprobs": True,
        "top_logprobs": 3,
        "n": 2,
        "temperature": 1.0,
        "seed": 1234567890123456789,
    }  # fmt: skip
    answer = post(gateway, key, body)
    assert upstream.seen()[0]["body"] == body | {"model": "scripted-large"}
    choices = answer.json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1]
    assert json.loads(choices[0]["message"]["content"]) == {"$ref": "sample"}


def test_only_listed_headers_pass_and_only_to_their_deployment(
    gateway: RunningGateway, key: str, upstream: RunningUpstream
) -> None:
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "with headers"}]}
    headers = {"openai_beta": "x=1", "cookie": "secret", "x_forwarded_for": "203.0.113.7", "x_own": "y"}
    upstream.obey("leak=1")
    large = post(gateway, key, {"model": "large"} | asked, **headers)
    small = post(gateway, key, {"model": "small"} | asked, **headers)
    to_large, to_small = (sighting["headers"] for sighting in upstream.seen())
    assert to_large["openai-beta"] == "x=1"
    assert {"openai-beta", "cookie", "x-forwarded-for", "x-own"}.isdisjoint(to_small)
    assert {"cookie", "x-forwarded-for", "x-own"}.isdisjoint(to_large)
    assert large.headers["x-scripted"] == "1"
    assert "x-scripted" not in small.headers


def test_a_header_that_passes_keeps_answers_apart_in_the_cache(gateway: RunningGateway, key: str) -> None:
    asked = {"model": "large", "messages": [{"role": "user", "content": "What is the tallest tree?"}]}
    answers = [post(gateway, key, asked, openai_beta=value) for value in ("a", "a", "b")]
    assert [answer.headers["x-headgate-cache"] for answer in answers] == ["miss", "exact", "miss"]


@pytest.mark.parametrize("stream", [False, True])
def test_another_model_than_asked_is_flagged_and_not_cached(
    gateway: RunningGateway, key: str, upstream: RunningUpstream, stream: bool
) -> None:
    upstream.obey("model=cheaper")
    asked = {"model": "small", "stream": stream, "messages": [{"role": "user", "content": f"Who answers {stream}?"}]}
    first, second = (post(gateway, key, asked) for _ in range(2))
    assert [first.headers["x-headgate-cache"], second.headers["x-headgate-cache"]] == ["miss", "miss"]
    row = gateway.row_of(first.headers["x-request-id"])
    assert attempts_decoder.decode(row["attempts"])[0].other_model == "cheaper"
    assert 'headgate_other_model_total{deployment="one"}' in gateway.metrics()


@pytest.mark.parametrize("stream", [False, True])
def test_another_model_than_asked_is_an_error_where_the_operator_says_so(
    gateway: RunningGateway, key: str, upstream: RunningUpstream, stream: bool
) -> None:
    upstream.obey("model=cheaper")
    asked = {"model": "large", "stream": stream, "messages": [{"role": "user", "content": f"Who is it {stream}?"}]}
    answer = post(gateway, key, asked)
    assert (answer.status_code, error_of(answer)["code"]) == (502, "upstream_error")
    assert "another model" in error_of(answer)["message"]
    assert gateway.row_of(answer.headers["x-request-id"])["cost_nano_usd"] > 0
