"""Completions, embeddings and mapped routes become requests of the one pipeline without losing a field."""

import json

import pytest

from core.endpoints import COMPLETIONS, EMBEDDINGS
from core.errors import InvalidRequest
from core.passed_requests import parse_completion_request, parse_embedding_request, routed_request


def test_a_completion_keeps_its_fields_and_counts_every_answer_that_it_asks_for() -> None:
    body = b'{"model":"m","prompt":["a","b"],"n":3,"best_of":5,"top_p":1.0,"own":{"z":1}}'
    request = parse_completion_request(body, "req_1")
    assert (request.path, request.n) == (COMPLETIONS, 10)
    sent = request.upstream_body("up", ask_usage=True, max_tokens=None)
    assert sent == b'{"model":"up","prompt":["a","b"],"n":3,"best_of":5,"top_p":1.0,"own":{"z":1}}'


def test_one_text_is_what_the_router_reads_of_a_completion() -> None:
    assert parse_completion_request(b'{"model":"m","prompt":"hi"}', "r").last_user_text == "hi"
    assert parse_completion_request(b'{"model":"m","prompt":[1,2]}', "r").last_user_text is None


@pytest.mark.parametrize(
    "body", [b"{}", b'{"model":"m"}', b'{"model":"m","prompt":[]}', b'{"model":"m","prompt":7}', b"[1]", b"\xff"]
)
def test_what_is_no_completion_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_completion_request(body, "r")


def test_embeddings_ask_for_no_output() -> None:
    request = parse_embedding_request(b'{"model":"m","input":[[1,2]],"dimensions":5}', "r")
    assert (request.path, request.n, request.prompt_bytes) == (EMBEDDINGS, 0, 7)
    assert json.loads(request.upstream_body("up", ask_usage=True, max_tokens=None)) == {
        "model": "up",
        "input": [[1, 2]],
        "dimensions": 5,
    }


@pytest.mark.parametrize("value", ['""', "[]", "{}", "7", "null", json.dumps(["x"] * 2_049)])
def test_an_input_that_cannot_be_embedded_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_embedding_request(b'{"model":"m","input":%b}' % value.encode(), "r")


def test_a_routed_body_that_is_not_json_goes_out_as_it_came() -> None:
    request = routed_request(b"\xff\x00", "audio/wav", "/audio", "whisper", "r")
    assert request.upstream_body("up", ask_usage=True, max_tokens=5) == b"\xff\x00"
    assert (request.model, request.content_type) == ("whisper", "audio/wav")


def test_a_routed_body_may_not_choose_its_upstream() -> None:
    with pytest.raises(InvalidRequest):
        routed_request(b'{"api_base":"http://elsewhere"}', "application/json", "/rerank", "flat", "r")
