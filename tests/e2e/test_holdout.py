"""The comparison with the baseline path through a real gateway: drawn, recorded, and paid like any request."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

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
REQUESTS = 24


@pytest.fixture(scope="module")
def gateway(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder: Path = tmp_path_factory.mktemp("holdout")
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
    write_configuration(folder, operator, {"acme": ACME})
    with run_gateway(folder) as running:
        yield running


def test_held_out_requests_go_to_the_dearest_tier_uncached_and_are_recorded(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    told = {}
    with openai.OpenAI(base_url=gateway.base_url, api_key=gateway.key("acme"), max_retries=0) as client:
        for _ in range(REQUESTS):
            answer = client.chat.completions.with_raw_response.create(
                model="auto", messages=[{"role": "user", "content": "What is a ledger?"}]
            )
            told[answer.headers["x-request-id"]] = answer.headers
    held = {id_ for id_, headers in told.items() if headers["x-headgate-reason"] == "holdout"}
    assert 0 < len(held) < REQUESTS
    assert {told[id_]["x-headgate-tier"] for id_ in held} == {"large"}
    assert {told[id_]["x-headgate-cache"] for id_ in held} == {"bypass"}
    assert {headers["x-headgate-cache"] for id_, headers in told.items() if id_ not in held} == {"miss", "exact"}
    assert len(gateway.request_rows(REQUESTS)) == REQUESTS
    out = tmp_path / "rows.csv"
    headgate("requests", "export", "--out", str(out), folder=gateway.folder)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["request_id"] for row in rows if row["held_out"] == "true"} == held
    assert {row["holdout_ratio"] for row in rows} == {"0.5"}
    explained = json.loads(headgate("explain", min(held), "--json", folder=gateway.folder).stdout)
    assert explained["identical"]
    decision = explained["decision"]
    assert (decision["inputs"]["policy"]["asked"], decision["outcome"]["reason"]) == ("holdout", "holdout")


def test_the_log_is_replayed_under_another_policy_by_command_and_by_the_admin_listener(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    assert len(gateway.request_rows(REQUESTS)) >= REQUESTS
    candidate = ACME.replace("quality: 0, holdout_ratio: 0.5", "quality: 1")
    (tmp_path / "candidate.yaml").write_text(candidate)
    command = ("simulate", "--log", "requests", "--policy", str(tmp_path / "candidate.yaml"), "--json")
    (told,) = json.loads(headgate(*command, folder=gateway.folder).stdout)["tenants"]
    assert told["then"]["requests"] == REQUESTS
    assert told["then"]["cost_nano_usd"] == sum(row["cost_nano_usd"] for row in gateway.request_rows(REQUESTS))
    assert told["now"]["shares"]["large"]["value"] == 1.0
    key = (gateway.folder / "var" / "admin.key").read_text().strip()
    answer = httpx.post(
        f"{gateway.admin_url}/admin/policies/acme/simulate",
        headers={"authorization": f"Bearer {key}"},
        json={"text": candidate, "range": "24h"},
        timeout=60,
        trust_env=False,
    )
    assert answer.json()["result"]["tenants"][0]["then"] == told["then"]
    wrong = httpx.post(
        f"{gateway.admin_url}/admin/policies/acme/simulate",
        headers={"authorization": f"Bearer {key}"},
        json={"text": "tenant: acme\nrouting: {qualty: 1}"},
        trust_env=False,
    )
    assert "qualty" in wrong.json()["problem"]
