"""The chat route as its clients see it: a real gateway process, the scripted upstream, the official SDK."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from gateway.telemetry.request_rows import attempts_decoder
from tests.e2e.gateway_process import RunningGateway, error_of
from tests.upstream.process import RunningUpstream


def ask(text: str, **fields: object) -> dict[str, object]:
    return {"model": "large", "messages": [{"role": "user", "content": text}], **fields}


def post(gateway: RunningGateway, key: str, body: object, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"authorization": f"Bearer {key}", "content-type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return httpx.post(
        f"{gateway.base_url}/chat/completions", content=content, headers=sent, timeout=30, trust_env=False
    )


@pytest.fixture
def client(gateway: RunningGateway, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url, api_key=key) as client:
        yield client


def test_the_official_sdk_gets_a_plain_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="large", messages=[{"role": "user", "content": "plain hello"}])
    assert answer.choices[0].message.content == "answer to: plain hello"
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


def test_the_official_sdk_gets_a_stream_with_usage_when_it_asks(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="large",
        messages=[{"role": "user", "content": "streamed hello"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "answer to: streamed hello"
    assert chunks[-1].usage is not None
    assert float(chunks[-1].model_extra["headgate"]["cost_usd"]) > 0  # type: ignore[index]


def test_a_stream_without_include_usage_has_no_usage_chunk(
    gateway: RunningGateway, upstream: RunningUpstream, key: str
) -> None:
    answer = post(gateway, key, ask("no usage please", stream=True))
    assert '"usage":{' not in answer.text.replace(" ", "")
    assert answer.text.endswith("data: [DONE]\n\n")
    assert upstream.seen()[0]["body"]["stream_options"] == {"include_usage": True}


def test_the_response_headers_tell_who_answered_and_what_it_cost(gateway: RunningGateway, key: str) -> None:
    answer = post(gateway, key, ask("headers please"))
    assert answer.headers["x-headgate-tier"] == "large"
    assert answer.headers["x-headgate-deployment"] == "two"
    assert answer.headers["x-headgate-reason"] == "requested"
    assert answer.headers["x-headgate-cache"] == "miss"
    assert answer.headers["x-request-id"].startswith("req_")
    assert float(answer.headers["x-headgate-overhead-ms"]) >= 0
    usage = answer.json()["usage"]
    expected_nano_usd = usage["prompt_tokens"] * 10_000 + usage["completion_tokens"] * 20_000
    assert round(float(answer.headers["x-headgate-cost-usd"]) * 1e9) == expected_nano_usd


def test_unknown_fields_reach_the_upstream_unharmed(
    gateway: RunningGateway, upstream: RunningUpstream, key: str
) -> None:
    extra = {"frobnicate": {"a": [1, 2.50]}, "logit_bias": {"50256": -100}}
    post(gateway, key, ask("fields", **extra))
    body = upstream.seen()[0]["body"]
    assert body["frobnicate"] == {"a": [1, 2.5]}
    assert body["logit_bias"] == {"50256": -100}
    assert body["model"] == "scripted-large"


def test_our_own_key_never_reaches_the_upstream(gateway: RunningGateway, upstream: RunningUpstream, key: str) -> None:
    post(gateway, key, ask("no key"))
    assert key not in json.dumps(upstream.seen()[0])


def test_a_field_that_chooses_an_upstream_is_refused(
    gateway: RunningGateway, upstream: RunningUpstream, key: str
) -> None:
    answer = post(gateway, key, ask("steal", api_base="http://127.0.0.1:9"))
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "api_base"
    assert upstream.seen() == []


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer hg_unknown_secret", "Basic abc"])
def test_a_wrong_key_is_401(gateway: RunningGateway, authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    answer = httpx.post(f"{gateway.base_url}/chat/completions", json=ask("x"), headers=headers, trust_env=False)
    assert answer.status_code == 401
    assert error_of(answer)["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_wrong_key_is_refused_before_the_body_is_read(gateway: RunningGateway) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(head.encode())
        assert b" 401 " in connection.recv(65536).split(b"\r\n")[0]


@pytest.mark.parametrize("model", ["does-not-exist", "gpt-4o-mini"])
def test_an_unknown_model_is_404(gateway: RunningGateway, key: str, model: str) -> None:
    answer = post(gateway, key, ask("x") | {"model": model})
    assert answer.status_code == 404
    assert error_of(answer)["code"] == "model_not_found"


def test_a_model_that_exists_and_is_not_granted_looks_like_one_that_does_not(gateway: RunningGateway) -> None:
    stranger = gateway.key("other")
    hidden = error_of(post(gateway, stranger, ask("x") | {"model": "two"}))
    missing = error_of(post(gateway, stranger, ask("x") | {"model": "owt"}))
    assert hidden["message"].replace("two", "owt") == missing["message"]
    assert hidden["code"] == missing["code"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"model": "large"}', b'{"model": "large", "messages": []}', b'{"model": 1, "messages": []}'],
)
def test_a_body_that_is_no_chat_request_is_400(gateway: RunningGateway, key: str, body: bytes) -> None:
    answer = post(gateway, key, body)
    assert answer.status_code == 400
    assert error_of(answer)["type"] == "invalid_request_error"


def test_a_body_beyond_the_limit_is_413(gateway: RunningGateway, key: str) -> None:
    answer = post(gateway, key, ask("x" * (11 * 1024 * 1024)))
    assert answer.status_code == 413


def test_a_chunked_body_beyond_the_limit_is_413(gateway: RunningGateway, key: str) -> None:
    def endless() -> object:
        for _ in range(12):
            yield b" " * 1024 * 1024

    answer = httpx.post(
        f"{gateway.base_url}/chat/completions",
        content=endless(),  # type: ignore[arg-type]
        headers={"authorization": f"Bearer {key}"},
        timeout=30,
        trust_env=False,
    )
    assert answer.status_code == 413


def test_a_refusal_before_the_request_is_known_is_logged_under_the_id_that_the_client_was_told(
    gateway: RunningGateway, key: str
) -> None:
    refusals = [post(gateway, "hg_wrong", ask("a refused prompt")), post(gateway, key, b'{"a refused prompt"')]
    lines = [refusal_line(gateway, answer.headers["x-request-id"]) for answer in refusals]
    assert [(line["status"], line["code"]) for line in lines] == [
        (401, "invalid_api_key"),
        (400, "invalid_request_error"),
    ]
    assert "tenant" not in lines[0]
    assert lines[1]["tenant"] == "acme"
    assert lines[1]["key_id"] in key
    assert "a refused prompt" not in gateway.log()


def test_an_exhausted_budget_is_429_and_the_sdk_asks_only_once(
    gateway: RunningGateway, upstream: RunningUpstream
) -> None:
    with (
        openai.OpenAI(base_url=gateway.base_url, api_key=gateway.key("poor")) as client,
        pytest.raises(openai.RateLimitError) as refused,
    ):
        client.chat.completions.create(model="large", messages=[{"role": "user", "content": "too dear"}])
    assert refused.value.code == "insufficient_quota"
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert upstream.seen() == []
    wait_for_row(gateway, tenant="poor")
    assert len([row for row in gateway.request_rows(1) if row["tenant"] == "poor"]) == 1


def test_a_passed_deadline_is_504_and_not_retried(gateway: RunningGateway, upstream: RunningUpstream, key: str) -> None:
    upstream.obey("headers=5000")
    answer = post(gateway, key, ask("slow") | {"model": "small"})
    assert answer.status_code == 504
    assert error_of(answer)["code"] == "deadline_exceeded"
    assert answer.headers["x-should-retry"] == "false"
    assert upstream.seen()[0]["disconnected"]


def test_the_callers_own_deadline_tightens_the_sla(
    gateway: RunningGateway, upstream: RunningUpstream, key: str
) -> None:
    upstream.obey("headers=1500")
    answer = post(gateway, key, ask("hurry"), x_headgate_deadline_ms="100")
    assert answer.status_code == 504


def test_the_same_request_again_is_an_exact_hit_that_costs_nothing(
    gateway: RunningGateway, upstream: RunningUpstream, key: str
) -> None:
    first = post(gateway, key, ask("cache me"))
    again = post(gateway, key, ask("cache me"))
    assert again.headers["x-headgate-cache"] == "exact"
    assert again.headers["x-headgate-cost-usd"] == "0"
    assert again.headers["x-headgate-cache-saved-usd"] == first.headers["x-headgate-cost-usd"]
    assert again.json()["choices"][0]["message"]["content"] == first.json()["choices"][0]["message"]["content"]
    assert len(upstream.seen()) == 1


def test_a_hit_replays_as_a_stream_that_the_sdk_reads(gateway: RunningGateway, client: openai.OpenAI, key: str) -> None:
    post(gateway, key, ask("replay me"))
    stream = client.chat.completions.create(
        model="large", messages=[{"role": "user", "content": "replay me"}], stream=True
    )
    assert stream.response.headers["x-headgate-cache"] == "exact"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "answer to: replay me"


def test_an_answer_streamed_first_is_a_hit_later(gateway: RunningGateway, key: str) -> None:
    post(gateway, key, ask("streamed first", stream=True))
    assert post(gateway, key, ask("streamed first")).headers["x-headgate-cache"] == "exact"


def test_another_tenant_never_gets_the_entry(gateway: RunningGateway, key: str) -> None:
    post(gateway, key, ask("mine alone"))
    answer = post(gateway, gateway.key("other"), ask("mine alone"))
    assert answer.headers["x-headgate-cache"] == "miss"


def test_only_if_cached_without_an_entry_is_504_and_not_retried(gateway: RunningGateway, key: str) -> None:
    answer = post(gateway, key, ask("never asked"), x_headgate_cache="only-if-cached")
    assert answer.status_code == 504
    assert answer.headers["x-should-retry"] == "false"


def test_a_broken_stream_raises_in_the_sdk_and_has_no_done(
    gateway: RunningGateway, upstream: RunningUpstream, client: openai.OpenAI, key: str
) -> None:
    upstream.obey("cut=2")
    with pytest.raises(openai.APIError):
        list(
            client.chat.completions.create(
                model="large", messages=[{"role": "user", "content": "break this long one"}], stream=True
            )
        )
    raw = post(gateway, key, ask("break this long one", stream=True))
    assert "[DONE]" not in raw.text
    assert '"code":"upstream_error"' in raw.text


def test_an_upstream_error_before_the_first_token_keeps_its_status(
    gateway: RunningGateway, upstream: RunningUpstream, key: str
) -> None:
    upstream.obey("cut=0")
    answer = post(gateway, key, ask("fails early", stream=True))
    assert answer.status_code == 502
    assert error_of(answer)["code"] == "upstream_error"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_cancels_the_upstream_and_is_charged_for_what_it_got(
    gateway: RunningGateway, upstream: RunningUpstream, key: str, stream: bool
) -> None:
    upstream.obey("n=400;gap=20" if stream else "headers=8000")
    body = json.dumps(ask(f"leave {stream}", stream=stream)).encode()
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        if stream:
            received = b""
            while received.count(b"data:") < 4:
                received += connection.recv(65536)
        else:
            wait_until(lambda: any(row["path"].endswith("completions") for row in upstream.seen(0)))
    row = wait_for_row(gateway, status=499)
    sighting = upstream.seen()[-1]
    assert sighting["disconnected"]
    assert row["cost_nano_usd"] > 0
    attempt = attempts_decoder.decode(row["attempts"])[0]
    assert attempt.outcome == "client_gone"
    if stream:
        assert attempt.output_tokens is not None
        assert 3 <= attempt.output_tokens < 400


def test_the_files_of_the_state_are_their_owners_alone(gateway: RunningGateway, key: str) -> None:
    post(gateway, key, ask("leave a trace"))
    gateway.request_rows(1)
    files = [path for path in (gateway.folder / "var").rglob("*") if path.is_file()]
    assert {"headgate-requests.db", "headgate-cache.db"} <= {path.name for path in files}
    assert [path.name for path in files if path.stat().st_mode & 0o077] == []


def test_models_lists_the_names_a_tenant_may_send(client: openai.OpenAI) -> None:
    names = {model.id for model in client.models.list()}
    assert {"auto", "small", "large", "gpt-4o", "large-only", "one", "two"} <= names


@pytest.mark.parametrize("method", ["DELETE", "POST", "PUT"])
def test_models_can_only_be_read(gateway: RunningGateway, key: str, method: str) -> None:
    answer = httpx.request(
        method, f"{gateway.base_url}/models", headers={"authorization": f"Bearer {key}"}, trust_env=False
    )
    assert answer.status_code == 404
    assert error_of(answer)["code"] == "not_found"


def test_two_authorization_headers_are_401(gateway: RunningGateway, key: str) -> None:
    headers = [("authorization", "Bearer wrong"), ("authorization", f"Bearer {key}")]
    for path in ("/models", "/chat/completions"):
        answer = httpx.request(
            "GET" if path == "/models" else "POST", gateway.base_url + path, headers=headers, trust_env=False
        )
        assert answer.status_code == 401


@pytest.mark.parametrize("path", ["/v1/nothing", "/", "/v1/chat/completions/x"])
def test_an_unknown_path_answers_with_the_error_object(gateway: RunningGateway, path: str) -> None:
    answer = httpx.post(f"{gateway.url}{path}", json={}, trust_env=False)
    assert answer.status_code == 404
    assert set(error_of(answer)) == {"message", "type", "param", "code"}


def test_health_and_readiness_need_no_key(gateway: RunningGateway) -> None:
    assert httpx.get(f"{gateway.url}/healthz", trust_env=False).json() == {"status": "ok"}
    assert httpx.get(f"{gateway.url}/readyz", trust_env=False).json()["ready"] is True


def test_metrics_need_the_admin_key_and_count_requests(gateway: RunningGateway, key: str) -> None:
    assert httpx.get(f"{gateway.admin_url}/metrics", trust_env=False).status_code == 401
    wrong = {"authorization": f"Bearer {key}"}
    assert httpx.get(f"{gateway.admin_url}/metrics", headers=wrong, trust_env=False).status_code == 401
    post(gateway, key, ask("count me"))
    assert 'headgate_requests_total{cache="miss",status="200",tenant="acme",tier="large"}' in gateway.metrics()


def test_the_log_holds_no_prompt_no_answer_and_no_key(gateway: RunningGateway, key: str) -> None:
    post(gateway, key, ask("a very secret prompt"))
    gateway.request_rows(1)
    assert "very secret" not in gateway.log()
    assert key not in gateway.log()
    assert all("very secret" not in json.dumps(row) for row in gateway.request_rows(1))


def wait_for_row(gateway: RunningGateway, **wanted: object) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []

    def found() -> bool:
        rows[:] = [row for row in gateway.request_rows(1) if wanted.items() <= row.items()]
        return bool(rows)

    wait_until(found)
    return rows[-1]


def refusal_line(gateway: RunningGateway, request_id: str) -> dict[str, Any]:
    """Return the line that tells of a refusal, once the thread that writes lines has written it."""

    def found() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in gateway.log().splitlines() if request_id in line]
        return [line for line in lines if line["message"] == "refused"]

    wait_until(lambda: len(found()) > 0)
    (line,) = found()
    return line


def wait_until(fact: Callable[[], bool], timeout_s: float = 10.0) -> None:
    give_up_at_s = time.monotonic() + timeout_s
    while not fact():
        assert time.monotonic() < give_up_at_s, "waited in vain"


def test_hits_are_served_although_the_budget_is_used_up(gateway: RunningGateway, upstream: RunningUpstream) -> None:
    key = gateway.key("thin")
    first = post(gateway, key, ask("thin question"))
    assert first.status_code == 200
    refused = post(gateway, key, ask("another question that costs"))
    assert error_of(refused)["code"] == "insufficient_quota"
    hit = post(gateway, key, ask("thin question"))
    assert (hit.status_code, hit.headers["x-headgate-cache"], hit.headers["x-headgate-cost-usd"]) == (200, "exact", "0")
    assert len(upstream.seen()) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_identical_requests_in_flight_share_one_answer(
    gateway: RunningGateway, upstream: RunningUpstream, key: str, stream: bool
) -> None:
    upstream.obey("headers=700" if not stream else "ttft=700;gap=20")
    body = ask(
        f"all at once {stream}", stream=stream, **({"stream_options": {"include_usage": True}} if stream else {})
    )
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: post(gateway, key, body), range(5)))
    assert len(upstream.seen()) == 1
    outcomes = sorted(answer.headers["x-headgate-cache"] for answer in answers)
    assert outcomes == ["joined"] * 4 + ["miss"]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 5
    for answer in answers:
        assert f"all at once {stream}".split()[0] in answer.text
        if stream:
            assert answer.text.endswith("data: [DONE]\n\n")
            free = '"cost_usd":"0"' in answer.text
            assert free == (answer.headers["x-headgate-cache"] == "joined")
    rows = [gateway.row_of(answer.headers["x-request-id"]) for answer in answers]
    assert len({(row["input_tokens"], row["output_tokens"], row["baseline_nano_usd"]) for row in rows}) == 1
    (paid,) = (row["cost_nano_usd"] for row in rows if row["cache"] == "miss")
    assert {row["saved_nano_usd"] for row in rows if row["cache"] == "joined"} == {paid}


def test_a_leader_that_fails_does_not_fail_the_others(
    gateway: RunningGateway, upstream: RunningUpstream, key: str
) -> None:
    upstream.obey("headers=500;status=500;times=3")
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: post(gateway, key, ask("one of us fails")), range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 502]
