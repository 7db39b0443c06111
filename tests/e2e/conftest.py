"""A gateway in front of the scripted upstream, shared by the tests of one module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.gateway_process import REMOTE, RunningGateway, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream, run_upstream

ACME = """
tenant: acme
models: {gpt-4o: auto, large-only: large}
budgets: [{window: month, limit_usd: "100"}]
sla: {small: {total_ms: 2000}, large: {ttft_ms: 5000, total_ms: 20000}}
deployments: [one, two]
fallback: false
cache: {semantic: false}
"""
OTHER = "tenant: other\n"
THIN = """
tenant: thin
budgets: [{window: month, limit_usd: "0.0004"}]
max_output_tokens: 5
cache: {semantic: false}
"""
POOR = """
tenant: poor
budgets: [{window: month, limit_usd: "0.000000001"}]
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[RunningUpstream]:
    with run_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
    write_configuration(folder, operator, {"acme": ACME, "other": OTHER, "poor": POOR, "thin": THIN})
    with run_gateway(folder) as running:
        yield running


@pytest.fixture(scope="module")
def key(gateway: RunningGateway) -> str:
    return gateway.key("acme")


@pytest.fixture(autouse=True)
def fresh_upstream(request: pytest.FixtureRequest) -> None:
    if "upstream" in request.fixturenames:
        upstream: RunningUpstream = request.getfixturevalue("upstream")
        upstream.reset()
