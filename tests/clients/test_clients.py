"""Clients as their makers publish them, each in its own environment; `make clients` installs and runs them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.page import CAPABILITIES
from tests.e2e.gateway_process import RunningGateway
from tests.upstream.process import RunningUpstream

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
INSTALLED = ROOT / "build" / "clients"
PYTHON = INSTALLED / "venv" / "bin" / "python"
MODULES = INSTALLED / "node_modules"

needs_node = pytest.mark.skipif(not MODULES.is_dir(), reason="the Node clients are not installed: run `make clients`")
needs_python = pytest.mark.skipif(not PYTHON.exists(), reason="the frameworks are not installed: run `make clients`")


def run(command: list[str], gateway: RunningGateway, upstream: RunningUpstream, key: str) -> str:
    where = {"GATEWAY": gateway.url, "UPSTREAM": upstream.url, "KEY": key, "NO_PROXY": "*", "PYTHONPATH": str(ROOT)}
    folder = INSTALLED if INSTALLED.is_dir() else HERE
    done = subprocess.run(command, cwd=folder, env={**os.environ, **where}, capture_output=True, text=True, timeout=240)
    assert done.stdout, done.stderr[-2000:]
    return done.stdout


def checked(told: str, clients: int) -> dict[str, str]:
    """Return what each check ended in, of so many clients."""
    results: dict[str, str] = json.loads(told)
    names = {check.partition(": ")[0] for check in results if ": " in check}
    assert len(names) == clients
    assert {f"{name}: {what}" for name in names for what in CAPABILITIES} <= set(results)
    return results


def failures(results: dict[str, str]) -> dict[str, str]:
    return {check: result for check, result in results.items() if result != "ok"}


def keep(name: str, report: object) -> None:
    """Keep a report in the folder that `HEADGATE_KEEP_REPORTS` names, if any."""
    folder = os.environ.get("HEADGATE_KEEP_REPORTS")
    if folder is not None:
        (Path(folder) / name).write_text(json.dumps(report, indent=1) + "\n")


def test_the_python_sdks_of_openai_and_anthropic_work(
    gateway: RunningGateway, upstream: RunningUpstream, key: str
) -> None:
    results = checked(run([sys.executable, str(HERE / "check_sdks.py")], gateway, upstream, key), clients=3)
    keep("clients_python.json", results)
    assert failures(results) == {}


@needs_node
def test_openai_anthropic_and_the_ai_sdk_for_node_work(
    gateway: RunningGateway, upstream: RunningUpstream, key: str
) -> None:
    shutil.copy(HERE / "check_node.mjs", INSTALLED)  # modules are looked for beside the script
    results = checked(run(["node", "check_node.mjs"], gateway, upstream, key), clients=5)
    keep("clients_node.json", results)
    assert failures(results) == {}


@needs_python
def test_langchain_and_llamaindex_work(gateway: RunningGateway, upstream: RunningUpstream, key: str) -> None:
    results = checked(run([str(PYTHON), str(HERE / "check_frameworks.py")], gateway, upstream, key), clients=4)
    keep("clients_frameworks.json", results)
    assert failures(results) == {}


@needs_node
def test_compatcanary_finds_every_probe_compatible(
    gateway: RunningGateway, upstream: RunningUpstream, key: str
) -> None:
    asked = ["--base-url", gateway.base_url, "--model", "large", "--api-key", key, "--profile", "modern"]
    report = json.loads(run(["npx", "compatcanary", "scan", *asked, "--format", "json"], gateway, upstream, key))
    assert {probe["id"]: probe["summary"] for probe in report["results"] if probe["status"] != "pass"} == {}
    assert report["summary"]["passes"] >= 7
    report["target"].pop("baseUrl")
    keep("compatcanary.json", report)
