"""A gateway that is stopped while it works: what its clients read, and what it leaves behind."""

import json
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import httpx
import pytest

from tests.e2e.gateway_process import REMOTE, STOP_TIMEOUT_S, RunningGateway, error_of, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream, run_upstream

TENANT = "tenant: acme\ncache: {enabled: false}\n"
ENDLESS = "n=1000;gap=100"


@pytest.fixture(scope="module")
def upstream() -> Iterator[RunningUpstream]:
    with run_upstream() as running:
        yield running


@pytest.fixture
def gateway(upstream: RunningUpstream, tmp_path: Path) -> Iterator[RunningGateway]:
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large=f"scripted;{ENDLESS}")
    write_configuration(tmp_path, operator, {"acme": TENANT})
    with run_gateway(tmp_path) as running:
        yield running


def ask(gateway: RunningGateway, key: str, *, stream: bool, began: Event) -> tuple[int, bytes]:
    """Ask for an answer that takes minutes; return its status and what was read of it."""
    body = {"model": "large", "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    url, headers = f"{gateway.base_url}/chat/completions", {"authorization": f"Bearer {key}"}
    with httpx.stream("POST", url, headers=headers, json=body, timeout=60, trust_env=False) as answer:
        read = b""
        for chunk in answer.iter_raw():
            read += chunk
            if b'"content"' in read:
                began.set()
        return answer.status_code, read


@contextmanager
def asking(
    gateway: RunningGateway, upstream: RunningUpstream, *, stream: bool
) -> Iterator[tuple[str, Future[tuple[int, bytes]]]]:
    """Have such a request under way; a plain one is when the upstream has seen it."""
    key, began = gateway.key("acme"), Event()
    upstream.reset()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, gateway, key, stream=stream, began=began)
        while not upstream.seen(0):
            assert not asked.done()
        if stream:
            assert began.wait(30)
        yield key, asked


def stop_twice(gateway: RunningGateway) -> int:
    gateway.process.send_signal(signal.SIGINT)
    wait_until_draining(gateway)
    gateway.process.send_signal(signal.SIGINT)
    return gateway.process.wait(STOP_TIMEOUT_S)


def wait_until_draining(gateway: RunningGateway) -> dict[str, object]:
    while True:
        answer = httpx.get(f"{gateway.url}/readyz", trust_env=False)
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return dict(answer.json())


def test_a_stream_that_a_shutdown_ends_gets_an_error_event(gateway: RunningGateway, upstream: RunningUpstream) -> None:
    with asking(gateway, upstream, stream=True) as (_, asked):
        assert stop_twice(gateway) == 0
        status, read = asked.result(30)
    assert status == 200
    last = json.loads(read.strip().split(b"\n\n")[-1].removeprefix(b"data: "))
    assert last["error"]["code"] == "service_unavailable"
    assert b"[DONE]" not in read
    assert_clean(gateway)


def test_a_plain_request_that_a_shutdown_ends_gets_503(gateway: RunningGateway, upstream: RunningUpstream) -> None:
    with asking(gateway, upstream, stream=False) as (_, asked):
        assert stop_twice(gateway) == 0
        status, read = asked.result(30)
    assert status == 503
    assert json.loads(read)["error"]["code"] == "service_unavailable"
    assert_clean(gateway)


def test_while_draining_nothing_new_is_taken(gateway: RunningGateway, upstream: RunningUpstream) -> None:
    with asking(gateway, upstream, stream=True) as (key, _):
        gateway.process.send_signal(signal.SIGTERM)
        assert wait_until_draining(gateway) == {"ready": False, "draining": True}
        refused = httpx.post(
            f"{gateway.base_url}/chat/completions",
            headers={"authorization": f"Bearer {key}"},
            json={"model": "small", "messages": [{"role": "user", "content": "hi"}]},
            trust_env=False,
        )
        assert refused.status_code == 503
        assert error_of(refused)["code"] == "service_unavailable"
        assert int(refused.headers["retry-after"]) >= 1
        gateway.process.send_signal(signal.SIGTERM)


def test_without_another_signal_what_still_runs_is_ended_in_time(
    gateway: RunningGateway, upstream: RunningUpstream
) -> None:
    with asking(gateway, upstream, stream=True) as (_, asked):
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(STOP_TIMEOUT_S) == 0
        assert b'"code":"service_unavailable"' in asked.result(30)[1]
    assert_clean(gateway)


def assert_clean(gateway: RunningGateway) -> None:
    """Nothing that looks like a fault of ours is in the log, and the request has its row with its cost."""
    assert "Traceback" not in gateway.log()
    assert [line for line in gateway.log().splitlines() if '"level":"error"' in line] == []
    (row,) = gateway.request_rows(1)
    assert row["cost_nano_usd"] > 0
    assert (row["status"], row["error_code"]) == (503, "service_unavailable")
