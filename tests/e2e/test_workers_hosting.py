"""Two workers with a hosted tier: one engine, which both send to, and which outlives the worker beside its host."""

import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from benchmarks.process_cost import with_children
from tests.e2e.gateway_process import RunningGateway, run_gateway, write_configuration
from tests.e2e.test_chat_api import post, wait_until
from tests.redis_server import BINARY, WHY_NOT, RedisServer

pytestmark = [pytest.mark.engine, pytest.mark.redis, pytest.mark.skipif(BINARY is None, reason=WHY_NOT)]

OPERATOR = """
listen: 127.0.0.1:8080
admin: {{listen: 127.0.0.1:8081, key_file: var/admin.key}}
state: {state}
workers: 2
policies: tenants
tiers: {{small: [one]}}
deployments:
  one: {{recipe: bundled-small-int4}}
"""
TENANT = "tenant: acme\ncache: {enabled: false}\n"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[RunningGateway]:
    redis = RedisServer()
    redis.start()
    try:
        write_configuration(tmp_path, OPERATOR.format(state=redis.url), {"acme": TENANT})
        with run_gateway(tmp_path) as running:
            yield running
    finally:
        redis.close()


def children(pid: int) -> set[int]:
    """Return the direct children, in the order in which they were started."""
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def statuses(gateway: RunningGateway, key: str) -> set[tuple[int, str | None]]:
    """Ask on connections of their own, so that both workers are asked."""
    body = {"model": "small", "messages": [{"role": "user", "content": "Sort these numbers: 7 3 9"}], "max_tokens": 8}
    answers = [post(gateway, key, body) for _ in range(10)]
    return {(answer.status_code, answer.headers.get("x-headgate-deployment")) for answer in answers}


def all_answer(gateway: RunningGateway, key: str) -> bool:
    return statuses(gateway, key) == {(200, "one")}


def engines(gateway: RunningGateway) -> list[dict[str, object]]:
    owner = (gateway.folder / "var" / "admin.key").read_text().strip()
    headers = {"authorization": f"Bearer {owner}"}
    answer = httpx.get(f"{gateway.admin_url}/admin/engines", headers=headers, trust_env=False)
    listed: list[dict[str, object]] = json.loads(answer.raise_for_status().content)["engines"]
    return listed


def test_one_engine_serves_both_workers_and_outlives_the_one_that_does_not_host_it(gateway: RunningGateway) -> None:
    key = gateway.key("acme")
    wait_until(partial(all_answer, gateway, key), 30.0)
    first, second = sorted(children(gateway.process.pid))
    engine = with_children(first) - {first}
    assert engine
    assert with_children(second) == {second}, "the second worker hosts nothing"
    (before,) = engines(gateway)
    os.kill(second, signal.SIGKILL)
    wait_until(lambda: len(children(gateway.process.pid) - {second}) == 2)
    wait_until(partial(all_answer, gateway, key), 30.0)
    assert engine <= with_children(first), "the engine is the same process"
    (after,) = engines(gateway)
    assert (before["name"], after["state"]) == ("one", "ready")


def test_the_engine_comes_back_with_the_worker_that_hosts_it(gateway: RunningGateway) -> None:
    key = gateway.key("acme")
    wait_until(partial(all_answer, gateway, key), 30.0)
    first, _ = sorted(children(gateway.process.pid))
    engine = with_children(first) - {first}
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in engine))
    wait_until(partial(all_answer, gateway, key), 30.0)
