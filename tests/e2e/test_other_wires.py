"""Completions, embeddings and mapped routes as their clients see them: one pipeline carries them all."""

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.gateway_process import RunningGateway, error_of, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream

OPERATOR = """
listen: 127.0.0.1:8080
state: sqlite:var/headgate.db
policies: tenants
router: {{pair: general}}
tiers: {{small: [chatty], large: [legacy]}}
routes: {{/v1/rerank: flat, /v1/audio/transcriptions: flat}}
deployments:
  chatty: {{backend: remote, base_url: {url}, model: chatty-model, price: {{input_usd_per_m: 1, output_usd_per_m: 2}}}}
  legacy:
    {{backend: remote, base_url: {url}, model: legacy-model, serves: [chat, completions],
      price: {{input_usd_per_m: 10, output_usd_per_m: 20}}}}
  vectors:
    {{backend: remote, base_url: {url}, model: embedding-model, serves: [embeddings],
      price: {{input_usd_per_m: 4, output_usd_per_m: 0}}}}
  minilm: {{backend: encoder, price: {{input_usd_per_m: 1, output_usd_per_m: 0}}}}
  flat:
    {{backend: remote, base_url: {url}, model: flat-model,
      price: {{input_usd_per_m: 0, output_usd_per_m: 0, usd_per_request: "0.002"}}}}
"""
TENANTS = {
    "acme": """
tenant: acme
models: {text-embedding-3-small: minilm, ada: vectors, gpt-3.5-turbo-instruct: large}
deployments: [vectors, minilm, flat, chatty]
budgets: [{window: month, limit_usd: "100"}]
""",
    "other": "tenant: other\n",
}


@pytest.fixture(scope="module")
def gateway(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder: Path = tmp_path_factory.mktemp("wires")
    write_configuration(folder, OPERATOR.format(url=upstream.base_url), TENANTS)
    with run_gateway(folder) as running:
        yield running


@pytest.fixture
def client(gateway: RunningGateway, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url, api_key=key, max_retries=0) as client:
        yield client


def post(gateway: RunningGateway, key: str, path: str, body: Any, **headers: str) -> httpx.Response:
    sent = {"authorization": f"Bearer {key}", "content-type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{gateway.base_url}{path}", content=content, headers=sent, timeout=30, trust_env=False)


def test_a_completion_reaches_a_deployment_that_serves_completions_unharmed(
    client: openai.OpenAI, upstream: RunningUpstream
) -> None:
    answer = client.completions.create(
        model="large", prompt=["one two", "three"], suffix=" end", echo=True, logprobs=2, extra_body={"own_field": 1}
    )
    seen = upstream.seen()[0]
    assert seen["path"] == "/v1/completions"
    assert seen["body"] == {
        "model": "legacy-model",
        "prompt": ["one two", "three"],
        "suffix": " end",
        "echo": True,
        "logprobs": 2,
        "own_field": 1,
    }
    assert answer.object == "text_completion"
    assert answer.choices[0].text == "answer to: three"


def test_a_completion_to_a_chat_model_is_asked_as_a_chat(client: openai.OpenAI, upstream: RunningUpstream) -> None:
    answer = client.completions.create(model="small", prompt="say hi", max_tokens=9, temperature=0.5, echo=True)
    seen = upstream.seen()[0]
    assert seen["path"] == "/v1/chat/completions"
    assert seen["body"]["messages"] == [{"role": "user", "content": "say hi"}]
    assert (seen["body"]["max_tokens"], seen["body"]["temperature"]) == (9, 0.5)
    assert "prompt" not in seen["body"]
    assert answer.choices[0].text == "say hianswer to: say hi"
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


@pytest.mark.parametrize("model", ["small", "large"])
def test_a_completion_streams_text_and_ends_with_done(client: openai.OpenAI, model: str) -> None:
    stream = client.completions.create(
        model=model, prompt="stream this", stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "answer to: stream this"
    assert {chunk.object for chunk in chunks} == {"text_completion"}
    assert chunks[-1].usage is not None
    assert float(chunks[-1].model_extra["headgate"]["cost_usd"]) > 0  # type: ignore[index]


@pytest.mark.parametrize(
    "fields", [{"prompt": ["a", "b"]}, {"prompt": [1, 2]}, {"suffix": "x"}, {"best_of": 2}, {"logprobs": 1}]
)
def test_what_a_chat_cannot_say_is_refused_clearly(gateway: RunningGateway, key: str, fields: dict[str, Any]) -> None:
    refused = post(gateway, key, "/completions", {"model": "small", "prompt": "x"} | fields)
    assert (refused.status_code, error_of(refused)["param"]) == (400, next(iter(fields)))


@pytest.mark.parametrize("model", ["small", "large"])
def test_a_repeated_completion_comes_from_the_cache(gateway: RunningGateway, key: str, model: str) -> None:
    body = {"model": model, "prompt": f"What is the capital of {model}land?", "max_tokens": 50}
    first = post(gateway, key, "/completions", body)
    second = post(gateway, key, "/completions", body)
    streamed = post(gateway, key, "/completions", body | {"stream": True})
    assert [first.headers["x-headgate-cache"], second.headers["x-headgate-cache"]] == ["miss", "exact"]
    assert second.json()["choices"][0]["text"] == first.json()["choices"][0]["text"]
    assert streamed.headers["x-headgate-cache"] == "exact"
    assert '"object":"text_completion"' in streamed.text
    assert streamed.text.endswith("data: [DONE]\n\n")


def test_a_raw_completion_and_a_chat_of_the_same_words_do_not_share_an_answer(
    gateway: RunningGateway, key: str
) -> None:
    text = "Which river is the longest?"
    post(gateway, key, "/chat/completions", {"model": "large", "messages": [{"role": "user", "content": text}]})
    assert post(gateway, key, "/completions", {"model": "large", "prompt": text}).headers["x-headgate-cache"] == "miss"


def test_the_local_encoder_serves_embeddings_as_numbers_and_as_base64(client: openai.OpenAI) -> None:
    texts = ["a cat sat on the mat", "quarterly revenue rose"]
    packed = client.embeddings.create(model="text-embedding-3-small", input=texts)
    plain = client.embeddings.create(model="text-embedding-3-small", input=texts, encoding_format="float")
    assert [len(row.embedding) for row in plain.data] == [384, 384]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert plain.usage.prompt_tokens > 0
    assert sum(value * value for value in plain.data[0].embedding) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    "fields", [{"input": [1, 2, 3]}, {"input": "x", "dimensions": 8}, {"input": "word " * 4_000}, {"input": []}]
)
def test_the_local_encoder_refuses_what_it_cannot_embed_whole(
    gateway: RunningGateway, key: str, fields: dict[str, Any]
) -> None:
    refused = post(gateway, key, "/embeddings", {"model": "minilm"} | fields)
    assert refused.status_code == 400
    assert error_of(refused)["message"]


def test_embeddings_from_upstream_are_passed_priced_and_logged(
    gateway: RunningGateway, key: str, upstream: RunningUpstream
) -> None:
    answer = post(
        gateway,
        key,
        "/embeddings",
        {"model": "ada", "input": [[1, 2], [3]], "dimensions": 4, "encoding_format": "base64"},
    )
    body = answer.json()
    assert upstream.seen()[0]["body"] == {
        "model": "embedding-model",
        "input": [[1, 2], [3]],
        "dimensions": 4,
        "encoding_format": "base64",
    }
    assert len(struct.unpack("<4f", base64.b64decode(body["data"][0]["embedding"]))) == 4
    assert round(float(answer.headers["x-headgate-cost-usd"]) * 1e9) == body["usage"]["prompt_tokens"] * 4_000
    row = gateway.row_of(answer.headers["x-request-id"])
    assert (row["path"], row["deployment"], row["output_tokens"]) == ("/v1/embeddings", "vectors", 0)
    assert row["cost_nano_usd"] == body["usage"]["prompt_tokens"] * 4_000


def test_repeated_embeddings_come_from_the_cache_at_no_cost(gateway: RunningGateway, key: str) -> None:
    body = {"model": "ada", "input": ["the same input, my dear"]}
    first, second = (post(gateway, key, "/embeddings", body) for _ in range(2))
    assert [first.headers["x-headgate-cache"], second.headers["x-headgate-cache"]] == ["miss", "exact"]
    assert second.headers["x-headgate-cost-usd"] == "0"
    assert second.content == first.content


@pytest.mark.parametrize(
    ("path", "model"), [("/embeddings", "small"), ("/chat/completions", "ada"), ("/embeddings", "auto")]
)
def test_a_model_that_does_not_serve_the_path_is_refused(
    gateway: RunningGateway, key: str, path: str, model: str
) -> None:
    refused = post(gateway, key, path, {"model": model, "input": "x", "messages": [{"role": "user", "content": "x"}]})
    assert (refused.status_code, error_of(refused)["param"]) == (400, "model")
    assert "does not serve" in error_of(refused)["message"]


def test_a_model_that_is_not_granted_does_not_exist_on_any_path(gateway: RunningGateway) -> None:
    refused = post(gateway, gateway.key("other"), "/embeddings", {"model": "minilm", "input": "x"})
    assert (refused.status_code, error_of(refused)["code"]) == (404, "model_not_found")


def test_a_mapped_route_is_passed_on_at_its_flat_price(
    gateway: RunningGateway, key: str, upstream: RunningUpstream
) -> None:
    answer = post(gateway, key, "/rerank", {"model": "whatever", "query": "q", "documents": ["d"]})
    seen = upstream.seen()[0]
    assert (seen["path"], seen["body"]["model"], seen["body"]["documents"]) == ("/v1/rerank", "flat-model", ["d"])
    assert answer.json()["model"] == "flat-model"
    assert answer.headers["x-headgate-cost-usd"] == "0.002"


def test_a_mapped_route_takes_bodies_that_are_not_json(
    gateway: RunningGateway, key: str, upstream: RunningUpstream
) -> None:
    body = b"--b\r\ncontent-disposition: form-data; name=file\r\n\r\n\xff\x00\r\n--b--\r\n"
    content_type = "multipart/form-data; boundary=b"
    answer = post(gateway, key, "/audio/transcriptions", body, content_type=content_type)
    assert answer.json() == {"path": "/v1/audio/transcriptions", "model": None, "bytes": len(body)}
    assert upstream.seen()[0]["headers"]["content-type"] == content_type


def test_a_mapped_route_that_fails_upstream_costs_nothing(
    gateway: RunningGateway, key: str, upstream: RunningUpstream
) -> None:
    upstream.obey("status=500")
    answer = post(gateway, key, "/rerank", {"query": "q"})
    assert (answer.status_code, error_of(answer)["code"]) == (502, "upstream_error")
    row = gateway.row_of(answer.headers["x-request-id"])
    assert row["cost_nano_usd"] == 0


def test_a_mapped_route_needs_the_grant_of_its_deployment(gateway: RunningGateway) -> None:
    refused = post(gateway, gateway.key("other"), "/rerank", {"query": "q"})
    assert (refused.status_code, error_of(refused)["code"]) == (404, "model_not_found")


def test_an_unmapped_path_is_not_found(gateway: RunningGateway, key: str) -> None:
    answer = post(gateway, key, "/images/generations", {"model": "x"})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")
