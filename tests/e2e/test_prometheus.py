"""A real Prometheus scrapes a real gateway, and every panel of every dashboard gets an answer from it."""

import itertools
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from observability.dashboards import DASHBOARDS, Panel
from tests.e2e.gateway_process import RunningGateway
from tests.upstream.process import unused_port

RULES = Path(__file__).parents[2] / "observability" / "rules"
CONFIGURATION = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}/rules.yml", "{rules}/alerts.yml"]
scrape_configs:
  - job_name: headgate
    authorization: {{credentials_file: {key}}}
    static_configs: [{{targets: ["{target}"]}}]
"""
PATIENCE_S = 20.0
pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (apt)")


class Prometheus:
    """A running server; `ask` returns the samples of an instant query."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, expression: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, trust_env=False).json()
        assert answer["status"] == "success", (expression, answer)
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def wait_for(self, expression: str) -> list[dict[str, Any]]:
        """Ask until there is a sample, which takes two scrapes for a rate."""
        give_up_at_s = time.monotonic() + PATIENCE_S
        while not (found := self.ask(expression)) and time.monotonic() < give_up_at_s:
            time.sleep(0.2)
        return found


@pytest.fixture(scope="module")
def prometheus(gateway: RunningGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder, port = tmp_path_factory.mktemp("prometheus"), unused_port()
    text = CONFIGURATION.format(
        rules=RULES, key=gateway.folder / "var" / "admin.key", target=gateway.admin_url.removeprefix("http://")
    )
    (folder / "prometheus.yml").write_text(text)
    arguments = [
        "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
    try:
        server = Prometheus(f"http://127.0.0.1:{port}")
        _wait_ready(server, process)
        yield server
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def seeded(gateway: RunningGateway, prometheus: Prometheus) -> Prometheus:
    """Scraped twice: before a mix of requests, and after it."""
    key = gateway.key("acme")
    ask_mix(gateway, key)
    first = sum(float(sample["value"][1]) for sample in prometheus.wait_for("headgate_requests_total"))
    ask_mix(gateway, key)
    assert prometheus.wait_for(f"sum(headgate_requests_total) > {first}")
    return prometheus


def ask_mix(gateway: RunningGateway, key: str) -> None:
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=gateway.base_url, headers=headers, trust_env=False) as client:
        for model, stream in itertools.product(("small", "large-only"), (True, False)):
            body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
            for wish in ("bypass", "max-age=600", "max-age=600"):
                answer = client.post("/chat/completions", json=body, headers={"x-headgate-cache": wish})
                assert answer.status_code == httpx.codes.OK


@pytest.mark.parametrize(
    "panel",
    [pytest.param(panel, id=f"{one.uid}: {panel.title}") for one in DASHBOARDS for panel in one.panels],
)
def test_every_panel_gets_an_answer(seeded: Prometheus, panel: Panel) -> None:
    for expression, _ in panel.queries:
        asked = expression.replace("$__rate_interval", "2m").replace("$tenant", "acme")
        found = seeded.ask(asked) if panel.may_be_empty else seeded.wait_for(asked)
        assert found or panel.may_be_empty, asked


def test_the_rules_are_evaluated_without_an_error(seeded: Prometheus) -> None:
    assert seeded.wait_for('headgate:sla_attainment:ratio_rate1h{tenant="acme"}')
    groups = httpx.get(f"{seeded.url}/api/v1/rules", trust_env=False).json()["data"]["groups"]
    assert [rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")] == []


def test_the_gateway_passes_promtools_check(gateway: RunningGateway) -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=gateway.metrics(), capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def _wait_ready(server: Prometheus, process: subprocess.Popen[bytes]) -> None:
    give_up_at_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_at_s:
        assert process.poll() is None, "prometheus ended"
        try:
            if httpx.get(f"{server.url}/-/ready", trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("prometheus did not become ready")
