"""A remote engine that tells of a long queue, filled by others: who could not be in time is not sent there."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.gateway_process import RunningGateway, error_of, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream

OPERATOR = """
listen: 127.0.0.1:8080
admin: {{listen: 127.0.0.1:8081, key_file: var/admin.key}}
state: sqlite:var/headgate.db
policies: tenants
router: {{pair: general}}
tiers: {{small: [one], large: [two]}}
deployments:
  one:
    {{backend: remote, base_url: {url}/v1, model: "scripted;ttft=100", metrics_url: {url}/metrics,
      price: {{input_usd_per_m: 1, output_usd_per_m: 2}}}}
  two: {{backend: remote, base_url: {url}/v1, model: other, price: {{input_usd_per_m: 10, output_usd_per_m: 20}}}}
"""
TENANT = """
tenant: {name}
cache: {{enabled: false}}
routing: {{rules: [{{when: {{stream: false}}, use: small}}]}}
sla: {{small: {{total_ms: 2000, when_late: {when_late}}}}}
"""
PATIENCE_S = 15.0


@pytest.fixture(scope="module")
def gateway(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder: Path = tmp_path_factory.mktemp("load")
    tenants = {name: TENANT.format(name=name, when_late=name) for name in ("queue", "move")}
    write_configuration(folder, OPERATOR.format(url=upstream.url), tenants)
    with run_gateway(folder) as running:
        yield running


def ask(gateway: RunningGateway, tenant_key: str) -> httpx.Response:
    return httpx.post(
        f"{gateway.base_url}/chat/completions",
        json={"model": "auto", "messages": [{"role": "user", "content": "two words"}]},
        headers={"authorization": f"Bearer {tenant_key}"},
        timeout=30,
        trust_env=False,
    )


def until(gateway: RunningGateway, tenant_key: str, is_so: Callable[[httpx.Response], bool]) -> httpx.Response:
    """Ask until the answer is as it should be; the engine is looked at every two seconds."""
    give_up_at_s = time.monotonic() + PATIENCE_S
    while not is_so(answer := ask(gateway, tenant_key)):
        assert time.monotonic() < give_up_at_s, answer.text
    return answer


def test_who_could_not_be_in_time_is_refused_at_once_or_moved_until_the_queue_is_gone(
    gateway: RunningGateway, upstream: RunningUpstream
) -> None:
    staying, moving = gateway.key("queue"), gateway.key("move")
    assert ask(gateway, staying).headers["x-headgate-tier"] == "small"
    upstream.busy(running=8, waiting=400)
    refused = until(gateway, staying, lambda answer: answer.status_code == 503)
    assert error_of(refused)["code"] == "service_unavailable"
    assert 2 <= int(refused.headers["retry-after"]) <= 20
    assert ask(gateway, moving).headers["x-headgate-tier"] == "large"
    upstream.busy(running=8, waiting=0)
    until(gateway, staying, lambda answer: answer.status_code == 200)
