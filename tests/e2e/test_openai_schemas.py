"""Answers of a real gateway against the schemas that OpenAI publishes; skipped where the schemas are not at hand."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from tests.e2e.conftest import ACME
from tests.e2e.gateway_process import REMOTE, RunningGateway, run_gateway, write_configuration
from tests.openai_tolerances import NULLS
from tests.upstream.process import RunningUpstream

SCHEMAS = Path(__file__).parents[3] / "shared" / "data" / "openai-spec" / "schemas.json"
pytestmark = pytest.mark.skipif(not SCHEMAS.is_file(), reason="OpenAI's schemas are not at hand")
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}}
FORCED = {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "required"}
ITEMS = {"input": "go", "tools": [{"type": "function", "strict": True, **FUNCTION}], "tool_choice": "required"}


@pytest.fixture(scope="module")
def schemas() -> Any:
    return json.loads(SCHEMAS.read_text())["components"]


@pytest.fixture(scope="module")
def gateway(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder: Path = tmp_path_factory.mktemp("schemas")
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
    operator += '  minilm: {backend: encoder, price: {input_usd_per_m: "0", output_usd_per_m: "0"}}\n'
    write_configuration(folder, operator, {"acme": ACME.replace("[one, two]", "[one, two, minilm]")})
    with run_gateway(folder) as running:
        yield running


def problems(value: Any, name: str, components: Any) -> list[str]:
    schema = {"$ref": f"#/components/schemas/{name}", "components": components}
    errors = Draft202012Validator(schema).iter_errors(value)
    return [f"{list(error.absolute_path)}: {error.message[:200]}" for error in errors if not is_tolerated(error)]


def is_tolerated(error: ValidationError) -> bool:
    """Tell whether the only fault is a null that the real service sends too."""
    if error.instance is None and error.absolute_path and error.absolute_path[-1] in NULLS:
        return True
    return bool(error.context) and any(
        all(is_tolerated(one) for one in (error.context or []) if one.schema_path[0] == branch)
        for branch in {one.schema_path[0] for one in error.context or []}
    )


def test_a_fault_is_found(schemas: Any) -> None:
    choice = {"index": 0, "finish_reason": None, "logprobs": None, "message": {"role": "assistant", "content": "x"}}
    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    assert "refusal" in problems(answer, "CreateChatCompletionResponse", schemas)[0]
    assert problems({"type": "response.completed", "sequence_number": 1}, "ResponseStreamEvent", schemas)
    assert problems({"type": "response.new_kind"}, "ResponseStreamEvent", schemas)


def post(gateway: RunningGateway, key: str, path: str, body: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{gateway.base_url}{path}", json=body, headers=headers, timeout=30, trust_env=False)


CHAT = {"messages": [{"role": "user", "content": "validate me"}]}
WHOLE = [
    ("/chat/completions", CHAT, "CreateChatCompletionResponse"),
    ("/chat/completions", CHAT | FORCED, "CreateChatCompletionResponse"),
    ("/completions", {"prompt": "validate me"}, "CreateCompletionResponse"),
    ("/embeddings", {"model": "minilm", "input": ["a", "b"]}, "CreateEmbeddingResponse"),
    ("/responses", {"input": "validate me"}, "Response"),
    (
        "/responses",
        ITEMS,
        "Response",
    ),
    ("/chat/completions", {"messages": []}, "ErrorResponse"),
    ("/responses", {"input": []}, "ErrorResponse"),
]


@pytest.mark.parametrize(("path", "body", "name"), WHOLE)
def test_whole_answers_fit_the_published_schema_fresh_and_cached(
    gateway: RunningGateway, key: str, schemas: Any, path: str, body: dict[str, Any], name: str
) -> None:
    for _ in range(2):
        answer = post(gateway, key, path, {"model": "large"} | body).json()
        assert problems(answer, name, schemas) == []


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/chat/completions", CHAT | {"stream_options": {"include_usage": True}}, "CreateChatCompletionStreamResponse"),
        ("/chat/completions", CHAT | FORCED, "CreateChatCompletionStreamResponse"),
        ("/completions", {"prompt": "validate me"}, "CreateCompletionResponse"),
        ("/responses", {"input": "validate me"}, "ResponseStreamEvent"),
        (
            "/responses",
            ITEMS,
            "ResponseStreamEvent",
        ),
    ],
)
def test_streamed_answers_fit_the_published_schema(
    gateway: RunningGateway, key: str, schemas: Any, path: str, body: dict[str, Any], name: str
) -> None:
    text = post(gateway, key, path, {"model": "large", "stream": True} | body).text
    data = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    frames = [json.loads(one) for one in data if one != "[DONE]"]
    assert len(frames) > 2
    for frame in frames:
        assert problems(frame, name, schemas) == [], frame


def test_the_list_of_models_fits_the_published_schema(gateway: RunningGateway, key: str, schemas: Any) -> None:
    headers = {"authorization": f"Bearer {key}"}
    models = httpx.get(f"{gateway.base_url}/models", headers=headers, trust_env=False).json()
    assert problems(models, "ListModelsResponse", schemas) == []
