"""The scripted upstream does over a real socket what its table of behaviours promises."""

import base64
import gzip
import json
import os
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.faults.upstream.script import KEYS
from tests.upstream.process import RunningUpstream, run_upstream, unused_port

Json = dict[str, Any]
CHAT = "/v1/chat/completions"


@pytest.fixture
def client(upstream: RunningUpstream) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=upstream.url, timeout=10, trust_env=False, verify=False) as opened:
        yield opened


def ask(script: str = "", text: str = "two words", **fields: Any) -> Json:
    model = f"scripted;{script}" if script else "scripted"
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def read_stream(client: httpx.Client, script: str = "", **fields: Any) -> bytes:
    answer = client.post(CHAT, json=ask(script, stream=True, **fields))
    assert answer.status_code == 200, answer.text
    return answer.content


def payloads(raw: bytes) -> list[str]:
    """Split events as the SSE standard does: any line end, comments ignored, data lines joined."""
    events: list[list[str]] = [[]]
    for line in raw.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line:
            events.append([])
        elif line.startswith("data:"):
            events[-1].append(line.removeprefix("data:").removeprefix(" "))
    return ["\n".join(event) for event in events if event]


def chunks(raw: bytes) -> list[Json]:
    return [json.loads(payload) for payload in payloads(raw) if payload != "[DONE]"]


def text_in(raw: bytes) -> str:
    deltas = [choice["delta"] for chunk in chunks(raw) for choice in chunk.get("choices", [])]
    return "".join(delta.get("content") or "" for delta in deltas)


def finishes(raw: bytes) -> list[str]:
    return [c["finish_reason"] for chunk in chunks(raw) for c in chunk.get("choices", []) if c["finish_reason"]]


def read_until_failure(client: httpx.Client, script: str, patience_s: float = 10) -> tuple[bytes, httpx.TransportError]:
    received = b""
    with client.stream("POST", CHAT, json=ask(script, stream=True), timeout=patience_s) as answer:
        try:
            for piece in answer.iter_raw():
                received += piece
        except httpx.TransportError as failure:
            return received, failure
    raise AssertionError("the stream ended without a failure")


# ---- healthy answers


def test_a_plain_answer_echoes_the_last_user_text_and_counts_words(client: httpx.Client) -> None:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "how are you"}]
    answer = client.post(CHAT, json={"model": "scripted", "messages": messages}).json()
    assert answer["choices"][0]["message"]["content"] == "answer to: how are you"
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}


def test_a_stream_says_what_the_plain_answer_says(client: httpx.Client) -> None:
    raw = read_stream(client)
    assert text_in(raw) == "answer to: two words"
    assert chunks(raw)[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert finishes(raw) == ["stop"]
    assert payloads(raw)[-1] == "[DONE]"


@pytest.mark.parametrize("n", [1, 3, 40])
def test_n_sets_the_number_of_content_chunks_and_of_completion_tokens(client: httpx.Client, n: int) -> None:
    raw = read_stream(client, f"n={n}", stream_options={"include_usage": True})
    assert sum(bool(c["choices"] and c["choices"][0]["delta"].get("content")) for c in chunks(raw)) == n
    assert chunks(raw)[-1]["usage"]["completion_tokens"] == n
    assert text_in(raw).startswith("answer to: two words")


def test_the_header_outranks_the_model_name_which_outranks_the_server(
    client: httpx.Client, upstream: RunningUpstream
) -> None:
    upstream.obey("text=server;finish=length")
    both = client.post(CHAT, json=ask("text=model"), headers={"x-script": "text=header"}).json()
    model_only = client.post(CHAT, json=ask("text=model")).json()
    assert both["choices"][0]["message"]["content"] == "header"
    assert both["choices"][0]["finish_reason"] == "length"
    assert model_only["choices"][0]["message"]["content"] == "model"


def test_a_misspelt_key_is_refused_with_the_known_ones(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=ask("tttf=5"))
    assert answer.status_code == 400
    assert "ttft" in answer.json()["error"]["message"]


@pytest.mark.parametrize("script", ["n=-1", "status=99", "cut=x", "usage=sometimes", "comment=maybe", "ttft=-3"])
def test_a_value_out_of_range_is_refused(client: httpx.Client, script: str) -> None:
    assert client.post(CHAT, json=ask(script)).status_code == 400


def test_max_tokens_truncates_with_finish_reason_length(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=ask("n=8", max_tokens=2)).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


def test_several_choices_are_numbered(client: httpx.Client) -> None:
    plain = client.post(CHAT, json=ask(n=3)).json()
    raw = read_stream(client, n=2)
    assert [choice["index"] for choice in plain["choices"]] == [0, 1, 2]
    assert finishes(raw) == ["stop", "stop"]


def test_text_completions_work_plain_and_streamed(client: httpx.Client) -> None:
    plain = client.post("/v1/completions", json={"model": "scripted", "prompt": "once upon"}).json()
    raw = client.post("/v1/completions", json={"model": "scripted", "prompt": "once upon", "stream": True}).content
    assert plain["choices"][0]["text"] == "answer to: once upon"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks(raw)) == "answer to: once upon"


def test_embeddings_depend_on_the_text_alone_and_come_as_base64_when_asked(client: httpx.Client) -> None:
    body = {"model": "scripted;dims=4", "input": ["red", "blue", "red"]}
    rows = client.post("/v1/embeddings", json=body).json()["data"]
    coded = client.post("/v1/embeddings", json={**body, "encoding_format": "base64"}).json()["data"]
    assert rows[0]["embedding"] == rows[2]["embedding"] != rows[1]["embedding"]
    assert struct.unpack("<4f", base64.b64decode(coded[0]["embedding"])) == pytest.approx(rows[0]["embedding"])


def test_embeddings_take_token_ids(client: httpx.Client) -> None:
    answer = client.post("/v1/embeddings", json={"model": "scripted", "input": [7, 8, 9]}).json()
    assert len(answer["data"]) == 1
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_models_are_listed(client: httpx.Client) -> None:
    assert client.get("/v1/models").json()["data"][0]["id"] == "scripted"
    assert client.get("/v1/models/any-name").json()["id"] == "any-name"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"model": "scripted"}),
        (CHAT, ask(stream_options={"include_usage": True})),
        (CHAT, ask("usage=refuse", stream=True, stream_options={"include_usage": True})),
        ("/v1/embeddings", {"model": "scripted"}),
    ],
)
def test_what_openai_refuses_is_refused(client: httpx.Client, path: str, body: Json) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


# ---- tools and structured output


def test_a_forced_tool_is_called_with_arguments_that_fit_its_schema(client: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
    tool = {"type": "function", "function": {"name": "weather", "parameters": schema}}
    forced = {"type": "function", "function": {"name": "weather"}}
    message = client.post(CHAT, json=ask(tools=[tool], tool_choice=forced)).json()["choices"][0]["message"]
    assert message["content"] is None
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"city": "sample", "days": 1}


def test_tool_calls_stream_in_fragments(client: httpx.Client) -> None:
    raw = read_stream(client, "tools=2")
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(raw)]
    fragments = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    joined = ["".join(f["function"]["arguments"] for f in fragments if f["index"] == index) for index in (0, 1)]
    assert [json.loads(arguments) for arguments in joined] == [{"query": "sample"}] * 2
    assert len(fragments) > 4
    assert finishes(raw) == ["tool_calls"]


def test_a_json_schema_is_answered_with_a_fitting_value(client: httpx.Client) -> None:
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {"ok": {"type": "boolean"}}}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    answer = client.post(CHAT, json=ask(response_format=wanted)).json()
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"ok": True}


# ---- status and headers


def test_a_status_comes_with_error_object_and_retry_headers(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=ask("status=429;retry_after=1;retry_after_ms=900;should_retry=false"))
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("1", "900")
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 422, 429, 500, 502, 503, 504, 529])
def test_any_status_can_be_asked_for_and_none_brings_retry_after_of_itself(client: httpx.Client, status: int) -> None:
    answer = client.post(CHAT, json=ask(f"status={status};code=my_code", stream=True))
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == "my_code"
    assert "retry-after" not in answer.headers


def test_times_ends_the_fault_after_that_many_requests(client: httpx.Client) -> None:
    statuses = [client.post(CHAT, json=ask("status=500;times=2")).status_code for _ in range(4)]
    assert statuses == [500, 500, 200, 200]


def test_a_redirect_points_at_a_path_that_the_record_can_show(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=ask("status=307"))
    assert answer.status_code == 307
    assert answer.headers["location"] == "/v1/redirected"


def test_leak_adds_the_headers_that_a_gateway_must_not_pass_on(client: httpx.Client) -> None:
    assert "set-cookie" not in client.post(CHAT, json=ask()).headers
    headers = client.post(CHAT, json=ask("leak")).headers
    assert {"set-cookie", "openai-organization", "x-internal-route"} <= set(headers)


# ---- how a stream ends


@pytest.mark.parametrize(("point", "text"), [(0, ""), (2, "answer to:"), (99, "answer to: two words")])
def test_cut_ends_cleanly_without_finish_reason_or_done(client: httpx.Client, point: int, text: str) -> None:
    raw = read_stream(client, f"cut={point}")
    assert text_in(raw) == text
    assert finishes(raw) == []
    assert b"[DONE]" not in raw


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ("close=2", httpx.RemoteProtocolError),
        ("reset=2", httpx.ReadError),
        ("badchunk=2", httpx.RemoteProtocolError),
        ("wire=http10;reset=2", httpx.ReadError),
    ],
)
def test_a_broken_connection_fails_after_the_chunks_before_it(
    client: httpx.Client, upstream: RunningUpstream, script: str, failure: type[httpx.TransportError]
) -> None:
    received, raised = read_until_failure(client, script)
    assert isinstance(raised, failure)
    assert text_in(received) == "answer to:"
    assert [sighting["chunks_sent"] for sighting in upstream.seen()] == [2]


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ("close=headers", httpx.RemoteProtocolError),
        ("reset=headers", httpx.ReadError),
        ("wire=garbage", httpx.RemoteProtocolError),
        ("wire=bigheader", httpx.RemoteProtocolError),
        ("close=1", httpx.RemoteProtocolError),
        ("reset=1", httpx.ReadError),
        ("badchunk=1", httpx.RemoteProtocolError),
    ],
)
def test_a_plain_answer_breaks_too(client: httpx.Client, script: str, failure: type[httpx.TransportError]) -> None:
    with pytest.raises(failure):
        client.post(CHAT, json=ask(script))


def test_cut_before_the_first_token_can_be_a_stream_without_any_frame(client: httpx.Client) -> None:
    assert read_stream(client, "cut=0;role=0") == b""


def test_a_cut_plain_answer_is_half_a_document(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=ask("cut=1"))
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_an_error_object_inside_the_stream_ends_it_without_done(client: httpx.Client) -> None:
    raw = read_stream(client, "error=1;code=engine_died")
    assert text_in(raw) == "answer"
    assert chunks(raw)[-1]["error"]["code"] == "engine_died"
    assert b"[DONE]" not in raw


def test_an_error_object_can_come_with_status_200(client: httpx.Client) -> None:
    answer = client.post(CHAT, json=ask("error=0"))
    assert answer.status_code == 200
    assert "choices" not in answer.json()


@pytest.mark.parametrize("count", [0, 2])
def test_done_may_be_missing_or_double(client: httpx.Client, count: int) -> None:
    raw = read_stream(client, f"done={count}")
    assert payloads(raw).count("[DONE]") == count
    assert finishes(raw) == ["stop"]


@pytest.mark.parametrize(("script", "expected"), [("finish=length", ["length"]), ("finish=none", [])])
def test_the_finish_reason_is_scripted(client: httpx.Client, script: str, expected: list[str]) -> None:
    assert finishes(read_stream(client, script)) == expected


# ---- time; each wait is far longer than the client's patience, so nothing here measures


@pytest.mark.parametrize("script", ["headers=60000", "ttft=60000;role=0", "stall=headers", "ttft=60000"])
def test_a_late_plain_answer_outlasts_the_clients_patience(
    client: httpx.Client, upstream: RunningUpstream, script: str
) -> None:
    with pytest.raises(httpx.ReadTimeout):
        client.post(CHAT, json=ask(script), timeout=httpx.Timeout(10, read=0.2))
    (sighting,) = upstream.seen()
    assert (sighting["state"], sighting["bytes_sent"]) == ("disconnected", 0)


@pytest.mark.parametrize(
    ("script", "text"),
    [("ttft=60000", ""), ("gap=60000", "answer"), ("stall=2", "answer to:"), ("stall=0", "")],
)
def test_a_stream_sends_the_head_and_then_waits(client: httpx.Client, script: str, text: str) -> None:
    received, raised = read_until_failure(client, script, patience_s=1.0)
    assert isinstance(raised, httpx.ReadTimeout)
    assert text_in(received) == text


def test_a_stall_may_end(client: httpx.Client) -> None:
    raw = read_stream(client, "stall=2;stall_for=20")
    assert text_in(raw) == "answer to: two words"
    assert payloads(raw)[-1] == "[DONE]"


def test_a_client_that_leaves_is_recorded_with_the_chunks_it_was_sent(
    client: httpx.Client, upstream: RunningUpstream
) -> None:
    with client.stream("POST", CHAT, json=ask("stall=3", stream=True)) as answer:
        pieces = answer.iter_raw()
        received = b""
        while b"two" not in received:
            received += next(pieces)
    (sighting,) = upstream.seen()
    assert (sighting["state"], sighting["disconnected"], sighting["chunks_sent"]) == ("disconnected", True, 3)
    assert sighting["ended_s"] > sighting["arrived_s"]


# ---- dialects of the stream


@pytest.mark.parametrize(
    ("script", "mark"),
    [
        ("eol=crlf", b"\r\n\r\n"),
        ("eol=cr", b"\r\r"),
        ("comment", b": ping\n\n"),
        ("multiline", b"data: {\ndata:  "),
        ("space=0", b'data:{"id"'),
        ("comment;multiline;eol=crlf", b": ping\r\n\r\ndata: {\r\ndata:"),
        ("drip=7;drip_gap=0", b"data: "),
        ("role=3", b'"role"'),
    ],
)
def test_every_dialect_carries_the_same_answer(client: httpx.Client, script: str, mark: bytes) -> None:
    raw = read_stream(client, script)
    assert mark in raw
    assert text_in(raw) == "answer to: two words"
    assert payloads(raw)[-1] == "[DONE]"


@pytest.mark.parametrize(("script", "roles"), [("role=0", 1), ("role=1", 1), ("role=3", 3)])
def test_role_sets_the_number_of_empty_opening_frames(client: httpx.Client, script: str, roles: int) -> None:
    deltas = [c["choices"][0]["delta"] for c in chunks(read_stream(client, script))]
    assert sum("role" in delta for delta in deltas) == roles
    assert bool(deltas[0]["content"]) is (script == "role=0")


def test_split_breaks_a_character_between_two_pieces(client: httpx.Client) -> None:
    with client.stream("POST", CHAT, json=ask("split;text=na%C3%AFve", stream=True)) as answer:
        pieces = list(answer.iter_raw())
    broken = [piece for piece in pieces if piece.endswith(b"\xc3")]
    assert len(broken) == 1
    assert text_in(b"".join(pieces)) == "naïve"


def test_drip_sends_pieces_of_that_size(client: httpx.Client) -> None:
    with client.stream("POST", CHAT, json=ask("drip=64")) as answer:
        pieces = list(answer.iter_raw())
    assert len(pieces) > 3
    assert json.loads(b"".join(pieces))["object"] == "chat.completion"


def test_a_malformed_frame_stands_between_right_ones(client: httpx.Client) -> None:
    found = payloads(read_stream(client, "malformed=1"))
    wrong = [payload for payload in found if payload.startswith('{"id":"broken"')]
    assert len(wrong) == 1
    with pytest.raises(json.JSONDecodeError):
        json.loads(wrong[0])
    assert found[-1] == "[DONE]"


def test_a_huge_frame_arrives_whole(client: httpx.Client) -> None:
    assert len(text_in(read_stream(client, "huge=3000000"))) == 3_000_000 + len("answer to: two words")


# ---- usage


@pytest.mark.parametrize(
    ("script", "asked", "expected"),
    [
        ("", False, []),
        ("", True, [4]),
        ("usage=none", True, []),
        ("usage=wrong", True, [47]),
        ("usage=cumulative", False, [1, 2, 3, 4]),
        ("usage=last", False, [4]),
        ("usage=finish", False, [4]),
        ("usage=extra", False, [4]),
        ("completion=1000", True, [1000]),
    ],
)
def test_usage_comes_where_the_script_says(client: httpx.Client, script: str, asked: bool, expected: list[int]) -> None:
    options: Json = {"stream_options": {"include_usage": True}} if asked else {}
    found = chunks(read_stream(client, script, **options))
    assert [chunk["usage"]["completion_tokens"] for chunk in found if chunk.get("usage")] == expected


def test_usage_asked_for_comes_in_a_chunk_of_its_own_and_is_null_before(client: httpx.Client) -> None:
    found = chunks(read_stream(client, stream_options={"include_usage": True}))
    assert found[-1]["choices"] == []
    assert [chunk["usage"] for chunk in found[:-1]] == [None] * (len(found) - 1)


def test_usage_last_shares_a_chunk_with_content_and_finish_reason(client: httpx.Client) -> None:
    found = chunks(read_stream(client, "usage=last"))
    choice = found[-1]["choices"][0]
    assert (choice["delta"]["content"], choice["finish_reason"]) == (" words", "stop")
    assert found[-1]["usage"]["total_tokens"] == 6


def test_plain_usage_is_scripted_too(client: httpx.Client) -> None:
    assert "usage" not in client.post(CHAT, json=ask("usage=none")).json()
    cached = client.post(CHAT, json=ask("prompt=1000;cached=900")).json()["usage"]
    assert (cached["prompt_tokens"], cached["prompt_tokens_details"]["cached_tokens"]) == (1000, 900)


def test_the_served_model_can_differ_from_the_asked_one(client: httpx.Client) -> None:
    assert client.post(CHAT, json=ask("model=other")).json()["model"] == "other"
    assert {chunk["model"] for chunk in chunks(read_stream(client, "model=other"))} == {"other"}
    assert client.post(CHAT, json=ask()).json()["model"] == "scripted"


# ---- bodies, encodings and connections


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "content_type", "start"),
    [
        ("body=html", "text/html", b"<html>"),
        ("body=text", "application/json", b"upstream exploded"),
        ("body=array", "application/json", b"[]"),
        ("status=502;body=html", "text/html", b"<html>"),
        ("body=html;type=text/plain", "text/plain", b"<html>"),
    ],
)
def test_the_body_need_not_be_an_answer(
    client: httpx.Client, script: str, content_type: str, start: bytes, stream: bool
) -> None:
    answer = client.post(CHAT, json=ask(script, stream=stream))
    assert answer.headers["content-type"] == content_type
    assert answer.content.startswith(start)


@pytest.mark.parametrize("stream", [False, True])
def test_the_body_may_be_empty(client: httpx.Client, stream: bool) -> None:
    answer = client.post(CHAT, json=ask("body=empty", stream=stream))
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream" if stream else "application/json")


def test_no_choices_is_valid_json_without_an_answer(client: httpx.Client) -> None:
    assert client.post(CHAT, json=ask("body=nochoices")).json()["choices"] == []


def test_json_may_come_for_a_stream_and_a_stream_for_json(client: httpx.Client) -> None:
    as_json = client.post(CHAT, json=ask("body=json", stream=True))
    as_stream = client.post(CHAT, json=ask("body=sse"))
    assert as_json.json()["object"] == "chat.completion"
    assert payloads(as_stream.content)[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
def test_gzip_is_real(client: httpx.Client, stream: bool) -> None:
    with client.stream("POST", CHAT, json=ask("gzip=on", stream=stream)) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert b"answer" in gzip.decompress(raw)


def test_gzip_may_be_a_lie(client: httpx.Client) -> None:
    with pytest.raises(httpx.DecodingError):
        client.post(CHAT, json=ask("gzip=broken"))


@pytest.mark.parametrize("script", ["wire=http10", "wire=chunked", "wire=hints", "keepalive=0", "drop=now"])
@pytest.mark.parametrize("stream", [False, True])
def test_unusual_framing_still_carries_the_answer(client: httpx.Client, script: str, stream: bool) -> None:
    answer = client.post(CHAT, json=ask(script, stream=stream))
    assert answer.status_code == 200
    assert b"words" in answer.content
    assert answer.http_version == ("HTTP/1.0" if script == "wire=http10" else "HTTP/1.1")


def test_connections_are_reused_unless_the_script_closes_them(client: httpx.Client, upstream: RunningUpstream) -> None:
    for script in ("", "", "keepalive=0", ""):
        client.post(CHAT, json=ask(script))
    first, second, third, fourth = (sighting["connection"] for sighting in upstream.seen())
    assert first == second == third != fourth


def test_drop_next_closes_a_kept_connection_at_its_next_request(
    client: httpx.Client, upstream: RunningUpstream
) -> None:
    assert client.post(CHAT, json=ask("drop=next")).status_code == 200
    with pytest.raises(httpx.RemoteProtocolError):
        client.post(CHAT, json=ask())
    assert [sighting["state"] for sighting in upstream.seen()] == ["complete", "dropped"]


def test_a_tls_handshake_fails_and_is_recorded(upstream: RunningUpstream) -> None:
    with pytest.raises(httpx.ConnectError, match="SSL"):
        httpx.get(upstream.url.replace("http:", "https:"), verify=ssl.create_default_context(), trust_env=False)
    assert [sighting["method"] for sighting in upstream.seen()] == ["TLS"]


def test_an_unused_port_refuses_connections() -> None:
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{unused_port()}", trust_env=False)


# ---- what it saw


def test_the_record_shows_headers_body_script_and_fate(client: httpx.Client, upstream: RunningUpstream) -> None:
    client.post(CHAT, json=ask("n=2", user="u1"), headers={"authorization": "Bearer k"})
    (sighting,) = upstream.seen()
    assert (sighting["method"], sighting["path"], sighting["script"]) == ("POST", CHAT, "n=2")
    assert sighting["headers"]["authorization"] == "Bearer k"
    assert sighting["body"]["user"] == "u1"
    assert (sighting["state"], sighting["chunks_sent"]) == ("complete", 1)


def test_a_large_body_is_counted_but_not_kept(client: httpx.Client, upstream: RunningUpstream) -> None:
    client.post(CHAT, json=ask(text="long " * 20_000))
    (sighting,) = upstream.seen()
    assert sighting["body"] is None
    assert sighting["body_bytes"] > 100_000


def test_a_chunked_request_is_read(client: httpx.Client, upstream: RunningUpstream) -> None:
    body = json.dumps(ask()).encode()
    answer = client.post(CHAT, content=iter([body[:9], body[9:]]))
    assert answer.status_code == 200
    assert upstream.seen()[0]["body"]["model"] == "scripted"


def test_pipelined_requests_are_answered_in_order(upstream: RunningUpstream) -> None:
    host, port = upstream.url.removeprefix("http://").split(":")
    request = b"GET /v1/models/%s HTTP/1.1\r\nhost: x\r\n%s\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request % (b"first", b"") + request % (b"second", b"connection: close\r\n"))
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert 0 < received.find(b'"first"') < received.find(b'"second"')


def test_what_is_not_http_is_refused(upstream: RunningUpstream) -> None:
    host, port = upstream.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"EHLO there\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400")


def test_reset_forgets_the_record_the_script_and_the_counts(client: httpx.Client, upstream: RunningUpstream) -> None:
    upstream.obey("text=changed")
    client.post(CHAT, json=ask("status=500;times=1"))
    upstream.reset()
    again = client.post(CHAT, json=ask("status=500;times=1"))
    healthy = client.post(CHAT, json=ask())
    assert again.status_code == 500
    assert healthy.json()["choices"][0]["message"]["content"] == "answer to: two words"
    assert len(upstream.seen()) == 2


# ---- the process


def test_two_upstreams_run_side_by_side_and_leave_nothing_behind() -> None:
    with run_upstream("text=one") as one, run_upstream("text=two") as two:
        texts = [
            httpx.post(running.base_url + "/chat/completions", json=ask(), trust_env=False).json()["choices"][0][
                "message"
            ]["content"]
            for running in (one, two)
        ]
    assert texts == ["one", "two"]
    for running in (one, two):
        with pytest.raises(httpx.ConnectError):
            httpx.get(running.url + "/healthz", trust_env=False)
        with pytest.raises(ProcessLookupError):
            os.kill(running.pid, 0)


def test_the_readme_lists_every_key() -> None:
    text = (Path(__file__).parents[2] / "gateway" / "faults" / "upstream" / "README.md").read_text()
    assert [key for key in KEYS if f"`{key}=" not in text] == []
