"""Two workers on one port: one gateway to those who call it, whatever happens to a worker."""

import os
import re
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event

import httpx
import pytest

from benchmarks.process_cost import with_children
from tests.e2e.gateway_process import (
    REMOTE,
    STOP_TIMEOUT_S,
    RunningGateway,
    headgate,
    run_gateway,
    write_configuration,
)
from tests.e2e.test_chat_api import post, wait_until
from tests.e2e.test_shutdown import ask as ask_for_long
from tests.redis_server import BINARY, WHY_NOT, RedisServer
from tests.upstream.process import RunningUpstream

pytestmark = [pytest.mark.redis, pytest.mark.skipif(BINARY is None, reason=WHY_NOT)]

WORKERS = 2
POOR_USD = 0.0003
TENANT = """
tenant: acme
budgets: [{window: month, limit_usd: "100"}]
cache: {semantic: false}
"""
POOR = f"""
tenant: poor
budgets: [{{window: month, limit_usd: "{POOR_USD}"}}]
max_output_tokens: 20
cache: {{enabled: false}}
"""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    try:
        yield server
    finally:
        server.close()


def configured(folder: Path, redis: RedisServer, upstream: RunningUpstream) -> None:
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted;n=1000;gap=100")
    operator = operator.replace("state: sqlite:var/headgate.db", f"state: {redis.url}\nworkers: {WORKERS}")
    write_configuration(folder, operator, {"acme": TENANT, "poor": POOR})


@pytest.fixture
def gateway(redis: RedisServer, upstream: RunningUpstream, tmp_path: Path) -> Iterator[RunningGateway]:
    configured(tmp_path, redis, upstream)
    with run_gateway(tmp_path) as running:
        wait_until(lambda: len(listening(running)) == WORKERS)
        yield running


def ask(text: str) -> dict[str, object]:
    return {"model": "small", "messages": [{"role": "user", "content": text}]}


def listening(gateway: RunningGateway) -> list[str]:
    return [line for line in gateway.log().splitlines() if '"message":"listening"' in line]


def workers(gateway: RunningGateway) -> set[int]:
    return with_children(gateway.process.pid) - {gateway.process.pid}


def is_whole_without(gateway: RunningGateway, gone: int) -> bool:
    return len(workers(gateway) - {gone}) == WORKERS


def served(gateway: RunningGateway, key: str, texts: Sequence[str]) -> list[httpx.Response]:
    """Ask each text on a connection of its own, so that the kernel chooses the worker."""
    return [post(gateway, key, ask(text)) for text in texts]


def requests_by_worker(gateway: RunningGateway) -> dict[str, float]:
    counted: dict[str, float] = {}
    for line in gateway.metrics().splitlines():
        if match := re.match(r'headgate_requests_total\{worker="(\d)",.*\} (\S+)', line):
            counted[match[1]] = counted.get(match[1], 0.0) + float(match[2])
    return counted


def test_both_workers_serve_as_one_gateway(gateway: RunningGateway) -> None:
    key, poor = gateway.key("acme"), gateway.key("poor")
    wait_until(lambda: {answer.status_code for answer in served(gateway, key, ["one"] * 8)} == {200})
    texts = [f"text {n}" for n in range(24)]
    first, second = served(gateway, key, texts), served(gateway, key, texts)
    assert {answer.status_code for answer in first + second} == {200}
    assert {answer.headers["x-headgate-cache"] for answer in second} == {"exact"}, "what one stored, the other serves"
    by_worker = requests_by_worker(gateway)
    assert set(by_worker) == {"0", "1"}
    assert 'headgate_worker_up{worker="1"} 1' in gateway.metrics()
    rows = gateway.request_rows(int(sum(by_worker.values())))
    assert len(rows) == sum(by_worker.values()), "both write one log of requests"
    spent = [post(gateway, poor, ask(f"spend {n}")) for n in range(40)]
    answered = [answer for answer in spent if answer.status_code == 200]
    assert {answer.status_code for answer in spent} == {200, 429}
    assert sum(float(answer.headers["x-headgate-cost-usd"]) for answer in answered) <= POOR_USD


def test_a_killed_worker_is_started_again_and_nothing_that_was_stored_is_lost(gateway: RunningGateway) -> None:
    key = gateway.key("acme")
    wait_until(lambda: {answer.status_code for answer in served(gateway, key, ["one"] * 8)} == {200})
    texts = [f"kept {n}" for n in range(6)]
    assert {answer.status_code for answer in served(gateway, key, texts)} == {200}
    for killed in sorted(workers(gateway)):
        os.kill(killed, signal.SIGKILL)
        assert {answer.status_code for answer in served(gateway, key, texts)} == {200}, "connections wait, none is lost"
        wait_until(partial(is_whole_without, gateway, killed))
    wait_until(lambda: len(listening(gateway)) == 2 * WORKERS)
    again = served(gateway, key, texts)
    assert {answer.headers["x-headgate-cache"] for answer in again} == {"exact"}
    assert {row["status"] for row in gateway.request_rows(6)} == {200}
    assert gateway.log().count("a worker ended") == WORKERS


def test_a_signal_drains_every_worker_and_nothing_stays_behind(gateway: RunningGateway) -> None:
    key = gateway.key("acme")
    wait_until(lambda: {answer.status_code for answer in served(gateway, key, ["one"] * 8)} == {200})
    ours = workers(gateway)
    began = [Event() for _ in range(6)]
    with ThreadPoolExecutor(len(began)) as pool:
        asked = [pool.submit(ask_for_long, gateway, key, stream=True, began=one) for one in began]
        assert all(one.wait(30) for one in began)
        gateway.process.send_signal(signal.SIGTERM)
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(STOP_TIMEOUT_S) == 0
        ends = [one.result(30) for one in asked]
    assert {status for status, _ in ends} == {200}
    assert all(b'"code":"service_unavailable"' in read and b"[DONE]" not in read for _, read in ends)
    assert not [pid for pid in ours if Path(f"/proc/{pid}").exists()]
    assert "Traceback" not in gateway.log()
    rows = [row for row in gateway.request_rows(len(began)) if row["error_code"] == "service_unavailable"]
    assert len(rows) == len(began)


def test_workers_end_by_themselves_when_their_parent_is_killed(gateway: RunningGateway) -> None:
    ours = workers(gateway)
    gateway.process.kill()
    gateway.process.wait()
    wait_until(lambda: not [pid for pid in ours if Path(f"/proc/{pid}").exists()])
    assert len(ours) == WORKERS


def test_policies_are_read_again_by_every_worker_on_sighup(gateway: RunningGateway) -> None:
    key = gateway.key("acme")
    wait_until(lambda: {answer.status_code for answer in served(gateway, key, ["one"] * 8)} == {200})
    (gateway.folder / "tenants" / "acme.yaml").write_text(TENANT + "models: {renamed: small}\n")
    gateway.process.send_signal(signal.SIGHUP)

    def all_know() -> bool:
        body = {"model": "renamed", "messages": [{"role": "user", "content": "hi"}]}
        return {post(gateway, key, body).status_code for _ in range(8)} == {200}

    wait_until(all_know)
    assert gateway.process.poll() is None


def test_several_workers_on_a_file_are_refused_with_the_mend(tmp_path: Path) -> None:
    operator = REMOTE.format(base_url="http://127.0.0.1:9/v1", small="a", large="b")
    write_configuration(tmp_path, operator, {"acme": "tenant: acme\n"})
    refused = headgate("serve", "--workers", "2", "--port", "0", "--admin-port", "0", folder=tmp_path, check=False)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "workers" in line
    assert "redis://" in line


def test_what_start_up_refuses_is_said_once(redis: RedisServer, upstream: RunningUpstream, tmp_path: Path) -> None:
    configured(tmp_path, redis, upstream)
    (tmp_path / "tenants" / "acme.yaml").write_text("tenant: [acme")
    refused = headgate("serve", "--port", "0", "--admin-port", "0", folder=tmp_path, check=False)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "acme.yaml" in line
