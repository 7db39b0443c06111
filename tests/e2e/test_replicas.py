"""Two gateways on one Redis: keys, budgets and cached answers are shared, and its absence is survived."""

import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.e2e.gateway_process import REMOTE, RunningGateway, headgate, run_gateway, write_configuration
from tests.e2e.test_cache_control import told
from tests.e2e.test_chat_api import ask, post, wait_until
from tests.redis_server import BINARY, WHY_NOT, RedisServer
from tests.upstream.process import RunningUpstream

pytestmark = [pytest.mark.redis, pytest.mark.skipif(BINARY is None, reason=WHY_NOT)]

TENANT = """
tenant: acme
budgets: [{window: month, limit_usd: "100"}]
on_store_outage: open
cache: {semantic: false}
"""
STRICT = """
tenant: strict
budgets: [{window: month, limit_usd: "100"}]
on_store_outage: closed
cache: {enabled: false}
"""
POOR = """
tenant: poor
budgets: [{window: month, limit_usd: "0.003"}]
max_output_tokens: 20
cache: {enabled: false}
"""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def replicas(
    redis: RedisServer, upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[RunningGateway]]:
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
    operator = operator.replace("state: sqlite:var/headgate.db", f"state: {redis.url}\nreplicas: 2")
    pepper = secrets.token_hex(32)
    with ExitStack() as stack:
        running = []
        for name in ("first", "second"):
            folder: Path = tmp_path_factory.mktemp(name)
            write_configuration(folder, operator, {"acme": TENANT, "strict": STRICT, "poor": POOR})
            (folder / "var").mkdir()
            (folder / "var" / "pepper.key").touch(mode=0o600)
            (folder / "var" / "pepper.key").write_text(pepper)
            running.append(stack.enter_context(run_gateway(folder)))
        yield running


def accepted(gateway: RunningGateway, key: str) -> bool:
    url = f"{gateway.base_url}/models"
    return httpx.get(url, headers={"authorization": f"Bearer {key}"}, trust_env=False).status_code == 200


def test_a_key_made_at_one_replica_works_and_is_revoked_at_the_other(replicas: list[RunningGateway]) -> None:
    first, second = replicas
    key = first.key("acme")
    wait_until(lambda: accepted(second, key))
    headgate("keys", "revoke", key.split("_")[1], folder=first.folder)
    wait_until(lambda: not accepted(second, key) and not accepted(first, key))
    assert not accepted(second, key)


def test_an_answer_stored_by_one_replica_is_a_hit_at_the_other(
    replicas: list[RunningGateway], upstream: RunningUpstream
) -> None:
    first, second = replicas
    key = first.key("acme")
    wait_until(lambda: accepted(first, key) and accepted(second, key))
    assert post(first, key, ask("shared answer")).headers["x-headgate-cache"] == "miss"
    assert post(second, key, ask("shared answer")).headers["x-headgate-cache"] == "exact"
    assert len(upstream.seen()) == 1


def test_a_budget_is_one_over_both_replicas(replicas: list[RunningGateway]) -> None:
    first, second = replicas
    key = first.key("poor")
    wait_until(lambda: accepted(first, key) and accepted(second, key))
    answers = [post(replica, key, ask(f"spend {turn}")) for turn in range(20) for replica in replicas]
    served = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(served) + len(refused) == len(answers)
    assert served
    assert refused
    spent_usd = sum(float(answer.headers["x-headgate-cost-usd"]) for answer in served)
    assert spent_usd <= 0.003


def test_exact_hits_go_on_without_redis_and_a_removed_entry_stays_removed(
    replicas: list[RunningGateway], redis: RedisServer
) -> None:
    first, second = replicas
    key = first.key("acme")
    wait_until(lambda: accepted(first, key) and accepted(second, key))
    for text in ("stays on", "is taken back"):
        post(first, key, ask(text))
        assert post(second, key, ask(text)).headers["x-headgate-cache"] == "exact"
    removed = post(first, key, ask("is taken back")).headers["x-headgate-cache-entry"]
    told(first, "invalidate", "--tenant", "acme", "--entry", removed)
    redis.kill()
    try:
        stays = [post(replica, key, ask("stays on")) for replica in replicas]
        taken = [post(replica, key, ask("is taken back")) for replica in replicas]
    finally:
        redis.start()
    assert [answer.headers["x-headgate-cache"] for answer in stays] == ["exact", "exact"]
    assert [answer.headers["x-headgate-cache"] for answer in taken] == ["miss", "miss"]
    assert {answer.status_code for answer in stays + taken} == {200}
    wait_until(lambda: "x-headgate-store" not in post(first, key, ask("stays on")).headers)


def test_while_redis_is_away_each_tenant_gets_what_its_policy_says(
    replicas: list[RunningGateway], redis: RedisServer
) -> None:
    first = replicas[0]
    lenient, strict = first.key("acme"), first.key("strict")
    wait_until(lambda: accepted(first, lenient) and accepted(first, strict))
    redis.kill()
    try:
        served = post(first, lenient, ask("while away"))
        refused = post(first, strict, ask("while away"))
    finally:
        redis.start()
    assert served.status_code == 200
    assert served.headers["x-headgate-store"] == "away"
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert json.loads(refused.content)["error"]["code"] == "service_unavailable"
    wait_until(lambda: post(first, strict, ask("back again")).status_code == 200)
