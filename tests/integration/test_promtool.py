"""Prometheus' own tool takes the rules, tests the alerts, and has nothing to say against the metrics."""

import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.telemetry.metrics import Metrics
from tests.traces import a_hit, a_refusal, a_trace

KIT = Path(__file__).parents[2] / "observability"
pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (apt: prometheus)")


def promtool(*arguments: str, stdin: bytes | None = None) -> str:
    ran = subprocess.run(["promtool", *arguments], cwd=KIT, input=stdin, capture_output=True, timeout=60, check=False)
    said = (ran.stdout + ran.stderr).decode()
    assert ran.returncode == 0, said
    return said


def test_the_rules_are_valid() -> None:
    assert promtool("check", "rules", "rules/rules.yml", "rules/alerts.yml").count("SUCCESS") == 2


def test_the_alerts_do_what_their_tests_say() -> None:
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yml")


def test_the_configuration_is_valid() -> None:
    promtool("check", "config", "--syntax-only", "prometheus.yml")


def test_nothing_speaks_against_the_metrics() -> None:
    metrics = Metrics({"acme"}.__contains__, [0.3])
    for trace in (a_trace(baseline_nano_usd=9), a_hit(), a_refusal()):
        metrics.record(trace)
    assert promtool("check", "metrics", stdin=metrics.exposition()[0]) == ""
