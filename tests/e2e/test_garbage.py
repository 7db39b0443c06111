"""Requests are freed by reference counts alone: a collection of garbage, which stops everybody, finds nothing to do."""

import json
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.gateway_process import RunningGateway, run_gateway, write_configuration
from tests.upstream.process import REPOSITORY, RunningUpstream

REQUESTS = 20
TENANT = "tenant: acme\nfallback: false\ncache: {semantic: false}\n"
TENANTS = {
    "acme": TENANT,
    "hasty": f"{TENANT.replace('acme', 'hasty')}sla: {{late: {{total_ms: 60}}}}\n",
    "poor": f'{TENANT.replace("acme", "poor")}budgets: [{{window: month, limit_usd: "0.000000001"}}]\n',
}
SCRIPTS = {"whole": "gap=2", "failing": "status=500", "closing": "close=headers", "breaking": "n=4;gap=5;reset=2",
           "late": "headers=500"}  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("garbage") / "told.json"


@pytest.fixture(scope="module")
def gateway(
    upstream: RunningUpstream, file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    deployments = {
        f"{name}-one": {
            "backend": "remote",
            "base_url": upstream.base_url,
            "model": f"scripted;{script}",
            "price": {"input_usd_per_m": 1, "output_usd_per_m": 2},
        }
        for name, script in SCRIPTS.items()
    }
    operator = {
        "listen": "127.0.0.1:8080",
        "admin": {"listen": "127.0.0.1:8081", "key_file": "var/admin.key"},
        "state": "sqlite:var/headgate.db",
        "policies": "tenants",
        "tiers": {name: [f"{name}-one"] for name in SCRIPTS},
        "deployments": deployments,
    }
    write_configuration(folder, json.dumps(operator), TENANTS)
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    with run_gateway(folder, command=(sys.executable, "-m", "tests.e2e.garbage_gateway", str(file))) as running:
        yield running


@pytest.fixture(scope="module")
def keys(gateway: RunningGateway) -> dict[str, str]:
    return {"nobody": "sk-wrong"} | {tenant: gateway.key(tenant) for tenant in TENANTS}


def garbage(gateway: RunningGateway, file: Path) -> dict[str, Any]:
    """Return what only a collection could free since this was asked before."""
    file.unlink(missing_ok=True)
    gateway.process.send_signal(signal.SIGUSR2)
    while not file.exists():
        assert gateway.process.poll() is None
    told: dict[str, Any] = json.loads(file.read_text())
    return told


def ask(gateway: RunningGateway, key: str, model: str, *, stream: bool, leave: bool = False) -> int:
    """Ask something new on a new connection; who leaves reads no more than the beginning. Returns the status."""
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": f"question {uuid.uuid4()}"}]}
    headers = {"authorization": f"Bearer {key}"}
    url = f"{gateway.base_url}/chat/completions"
    with (
        httpx.Client(trust_env=False, verify=False, timeout=30) as client,
        client.stream("POST", url, json=body, headers=headers) as answer,
        suppress(httpx.RemoteProtocolError),
    ):
        if leave:
            next(answer.iter_raw())
        else:
            answer.read()
    return answer.status_code


@pytest.mark.parametrize(
    ("tenant", "model", "expected"),
    [
        ("acme", "whole", {200}),
        ("acme", "failing", {502, 503}),
        ("acme", "closing", {502, 503}),
        ("hasty", "late", {504, 503}),
        ("acme", "unknown", {404}),
        ("poor", "whole", {429}),
        ("nobody", "whole", {401}),
    ],
)
def test_plain_requests_leave_no_garbage(
    gateway: RunningGateway, keys: dict[str, str], file: Path, tenant: str, model: str, expected: set[int]
) -> None:
    key = keys[tenant]
    ask(gateway, key, model, stream=False)
    garbage(gateway, file)
    statuses = {ask(gateway, key, model, stream=False) for _ in range(REQUESTS)}
    left = garbage(gateway, file)
    assert statuses <= expected
    assert left["objects"] < REQUESTS, left["types"]


@pytest.mark.parametrize(
    ("model", "leave", "expected"),
    [("whole", False, {200}), ("whole", True, {200}), ("failing", False, {502, 503}), ("breaking", False, {200, 503})],
)
def test_streams_leave_no_garbage(
    gateway: RunningGateway, keys: dict[str, str], file: Path, model: str, expected: set[int], *, leave: bool
) -> None:
    key = keys["acme"]
    ask(gateway, key, model, stream=True, leave=leave)
    garbage(gateway, file)
    statuses = {ask(gateway, key, model, stream=True, leave=leave) for _ in range(REQUESTS)}
    left = garbage(gateway, file)
    assert statuses <= expected
    assert left["objects"] < REQUESTS, left["types"]
