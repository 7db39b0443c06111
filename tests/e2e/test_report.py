"""A tenant's month through a real gateway: figures that equal the rows and the ledger, as text, JSON and page."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.gateway_process import REMOTE, RunningGateway, headgate, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream

ACME = """
tenant: acme
routing: {quality: 0, holdout_ratio: 0.5}
budgets: [{window: month, limit_usd: "100"}]
cache: {semantic: false}
"""
REQUESTS = 12


@pytest.fixture(scope="module")
def gateway(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder: Path = tmp_path_factory.mktemp("report")
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
    write_configuration(folder, operator, {"acme": ACME})
    with run_gateway(folder) as running:
        client = openai.OpenAI(base_url=running.base_url, api_key=running.key("acme"), max_retries=0)
        for n in range(REQUESTS):
            client.chat.completions.create(model="auto", messages=[{"role": "user", "content": f"What is {n // 2}?"}])
        assert len(running.request_rows(REQUESTS)) == REQUESTS
        yield running


def report(gateway: RunningGateway, *options: str) -> str:
    command = ("report", "--tenant", "acme", "--admin-url", gateway.admin_url, *options)
    return headgate(*command, folder=gateway.folder).stdout


def told(gateway: RunningGateway) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(report(gateway, "--json"))
    return found


def test_every_figure_adds_up_to_the_rows_and_to_the_ledger(gateway: RunningGateway) -> None:
    found, rows = told(gateway), gateway.request_rows(REQUESTS)
    cost = sum(row["cost_nano_usd"] for row in rows)
    assert found["total"]["cost_nano_usd"] == cost > 0
    for part in ("tiers", "deployments", "keys", "reasons"):
        assert sum(one["cost_nano_usd"] for one in found[part]) == cost
        assert sum(one["requests"] for one in found[part]) == REQUESTS
    assert found["keys_note"] is None
    saved = sum(one["saved_nano_usd"] or 0 for one in found["sources"])
    assert saved == found["baseline_nano_usd"] - cost == sum(row["baseline_nano_usd"] for row in rows) - cost
    (budget,) = found["ledger"]
    assert (budget["difference_usd"], budget["reason"]) == ("0", "equal to the nano-dollar")
    assert found["saved"]["routed"] + found["saved"]["held_out"] == REQUESTS
    assert found["saved"]["low"] is None


def test_the_text_says_what_is_not_known(gateway: RunningGateway) -> None:
    text = re.sub(r"\s+", " ", report(gateway))
    assert "not enough evidence yet" in text
    assert "not measured" in text
    assert "equal to the" in text


def test_the_page_is_whole_loads_nothing_and_is_for_administrators(gateway: RunningGateway, tmp_path: Path) -> None:
    url = f"{gateway.admin_url}/admin/report/acme/page"
    assert httpx.get(url, trust_env=False).status_code == 401
    key = (gateway.folder / "var" / "admin.key").read_text().strip()
    answer = httpx.get(url, headers={"authorization": f"Bearer {key}"}, trust_env=False)
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "<h2>What is saved, and by what</h2>" in answer.text
    assert "http" not in answer.text
    report(gateway, "--html", str(tmp_path / "acme.html"))
    assert "Budgets, and the ledger" in (tmp_path / "acme.html").read_text()


def test_a_month_that_is_none_is_one_line(gateway: RunningGateway) -> None:
    command = ("report", "--tenant", "acme", "--admin-url", gateway.admin_url, "--month", "2026-13")
    refused = headgate(*command, folder=gateway.folder, check=False)
    assert refused.returncode == 1
    assert "is no month" in refused.stderr
