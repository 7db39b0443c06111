"""Clients as their makers publish them, each in its own environment; `make clients` installs and runs them."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.gateway_process import RunningGateway
from tests.upstream.process import RunningUpstream

HERE = Path(__file__).parent
INSTALLED = HERE.parents[1] / "build" / "clients"
PYTHON = INSTALLED / "venv" / "bin" / "python"
MODULES = INSTALLED / "node_modules"

needs_node = pytest.mark.skipif(not MODULES.is_dir(), reason="the Node clients are not installed: run `make clients`")
needs_python = pytest.mark.skipif(not PYTHON.exists(), reason="the frameworks are not installed: run `make clients`")


def run(command: list[str], gateway: RunningGateway, upstream: RunningUpstream, key: str) -> str:
    environment = {**os.environ, "GATEWAY": gateway.url, "UPSTREAM": upstream.url, "KEY": key, "NO_PROXY": "*"}
    done = subprocess.run(command, cwd=INSTALLED, env=environment, capture_output=True, text=True, timeout=240)
    assert done.stdout, done.stderr[-2000:]
    return done.stdout


def failures(told: str) -> dict[str, str]:
    results: dict[str, str] = json.loads(told)
    assert len(results) > 10
    return {check: result for check, result in results.items() if result != "ok"}


@needs_node
def test_openai_anthropic_and_the_ai_sdk_for_node_work(
    gateway: RunningGateway, upstream: RunningUpstream, key: str
) -> None:
    shutil.copy(HERE / "check_node.mjs", INSTALLED)  # modules are looked for beside the script
    assert failures(run(["node", "check_node.mjs"], gateway, upstream, key)) == {}


@needs_python
def test_langchain_and_llamaindex_work(gateway: RunningGateway, upstream: RunningUpstream, key: str) -> None:
    assert failures(run([str(PYTHON), str(HERE / "check_frameworks.py")], gateway, upstream, key)) == {}


@needs_node
def test_compatcanary_finds_every_probe_compatible(
    gateway: RunningGateway, upstream: RunningUpstream, key: str
) -> None:
    asked = ["--base-url", gateway.base_url, "--model", "large", "--api-key", key, "--profile", "modern"]
    report = json.loads(run(["npx", "compatcanary", "scan", *asked, "--format", "json"], gateway, upstream, key))
    assert {probe["id"]: probe["summary"] for probe in report["results"] if probe["status"] != "pass"} == {}
    assert report["summary"]["passes"] >= 7
    keep = os.environ.get("HEADGATE_KEEP_REPORT")
    if keep is not None:
        report["target"].pop("baseUrl")
        Path(keep).write_text(json.dumps(report, indent=1) + "\n")
