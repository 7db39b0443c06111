"""Learning through a real gateway: what is explored is marked and on record, users' words change what is known."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gateway.telemetry.receipt_blocks import read_receipt
from router.complexity import PairModel
from router.learners import Learners
from tests.e2e.gateway_process import REMOTE, RunningGateway, headgate, run_gateway, write_configuration
from tests.unit.test_learning import better
from tests.upstream.process import RunningUpstream

ACME = "tenant: acme\nrouting: {quality: 0, explore_ratio: 0.1}\ncache: {semantic: false}\n"
PLAIN = "tenant: plain\nrouting: {quality: 0}\ncache: {semantic: false}\n"
COMPARED = """
tenant: compared
routing: {quality: 0, shadow_ratio: 1, shadow_budget_usd: "1"}
budgets: [{window: month, limit_usd: "100"}]
cache: {semantic: false}
"""
REQUESTS = 120


@pytest.fixture(scope="module")
def gateway(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder: Path = tmp_path_factory.mktemp("learning")
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
    write_configuration(folder, operator, {"acme": ACME, "plain": PLAIN, "compared": COMPARED})
    with run_gateway(folder) as running:
        yield running


def ask(client: httpx.Client, text: str, **headers: str) -> httpx.Response:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    return client.post("/chat/completions", json=body, headers=headers).raise_for_status()


def client_of(gateway: RunningGateway, tenant: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {gateway.key(tenant)}"}
    return httpx.Client(base_url=gateway.base_url, headers=headers, timeout=30, trust_env=False)


def told(gateway: RunningGateway, *arguments: str, check: bool = True) -> Any:
    url = ("--admin-url", gateway.admin_url)
    return headgate("route", "learn", *arguments, *url, folder=gateway.folder, check=check)


def status(gateway: RunningGateway, tenant: str) -> dict[str, Any]:
    (one,) = json.loads(told(gateway, "status", "--tenant", tenant, "--json").stdout)["tenants"]
    return dict(one)


def receipt(gateway: RunningGateway, request_id: str) -> dict[str, Any]:
    give_up_at_s = time.monotonic() + 10
    while time.monotonic() < give_up_at_s:
        content = read_receipt(gateway.folder / "var" / "headgate-decisions.db", request_id)
        if content is not None:
            return dict(msgspec.json.decode(content))
    raise AssertionError(f"no receipt of {request_id}")


def test_what_is_explored_is_marked_recorded_and_decided_again_alike(gateway: RunningGateway) -> None:
    with client_of(gateway, "acme") as client:
        answers = [
            ask(client, f"tell me about boat number {n} of {n * n}", **{"x-headgate-explain": "true"})
            for n in range(REQUESTS)
        ]
        kept = {"x-headgate-session": "loop"}
        ask(client, "the first turn of a conversation about boats and harbours in the north", **kept)
    explored = [one for one in answers if one.headers["x-headgate-reason"] == "explore"]
    assert 0 < len(explored) < REQUESTS / 3
    assert {one.headers["x-headgate-tier"] for one in explored} == {"large"}
    assert {one.headers["x-headgate-tier"] for one in answers if one not in explored} == {"small"}
    header = json.loads(explored[0].headers["x-headgate-decision"])
    assert header["propensities"] == {"small": 0.9, "large": 0.1}
    record = receipt(gateway, explored[0].headers["x-request-id"])
    assert record["outcome"]["greedy_tier"] == "small"
    assert record["inputs"]["draw"] >= 0.9
    for one in (explored[0], answers[0]):
        receipt(gateway, one.headers["x-request-id"])
        words = headgate("explain", one.headers["x-request-id"], folder=gateway.folder)
        assert "byte for byte" in " ".join(words.stdout.split())


def test_users_words_change_what_the_learner_knows(gateway: RunningGateway) -> None:
    before = status(gateway, "acme")["outcomes"]
    with client_of(gateway, "acme") as client:
        for n in range(5):
            request_id = ask(client, f"what is known of lighthouse {n}").headers["x-request-id"]
            said = {"request_id": request_id, "kind": "answer", "thumb": "down"}
            client.post("/feedback", json=said).raise_for_status()
            client.post("/feedback", json=said).raise_for_status()
    assert status(gateway, "acme")["outcomes"] == before + 5
    shown = " ".join(told(gateway, "status", "--tenant", "acme").stdout.split())
    assert "acme: not enough evidence yet: " in shown


def test_tenants_that_do_not_learn_are_left_alone(gateway: RunningGateway) -> None:
    with client_of(gateway, "plain") as client:
        request_id = ask(client, "what is known of plain tenants").headers["x-request-id"]
        client.post("/feedback", json={"request_id": request_id, "kind": "answer", "thumb": "up"}).raise_for_status()
    assert status(gateway, "plain")["outcomes"] == 0
    assert receipt(gateway, request_id)["inputs"]["draw"] is None


def test_answers_are_compared_with_the_other_end_on_the_tenants_account(gateway: RunningGateway) -> None:
    give_up_at_s, number = time.monotonic() + 60, 0
    with client_of(gateway, "compared") as client:
        while status(gateway, "compared")["outcomes"] < 1:
            assert time.monotonic() < give_up_at_s, "no comparison was made"
            number += 1
            ask(client, f"compare this answer with the other one, number {number}")
    rows = [row for row in gateway.request_rows(1) if row["path"] == "shadow:route"]
    assert {(row["tenant"], row["tier"]) for row in rows} == {("compared", "large")}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("promote", "--tenant", "acme"), "not enough evidence yet"),
        (("rollback", "--tenant", "acme"), "nothing learned is in force"),
        (("status", "--tenant", "nobody"), "There is no tenant 'nobody'"),
    ],
)
def test_what_cannot_be_done_is_one_line(gateway: RunningGateway, arguments: tuple[str, ...], says: str) -> None:
    refused = told(gateway, *arguments, check=False)
    assert refused.returncode != 0
    assert says in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_the_dry_run_judges_with_what_is_in_force(tmp_path: Path) -> None:
    operator = REMOTE.format(base_url="http://127.0.0.1:9/v1", small="scripted", large="scripted-large")
    write_configuration(tmp_path, operator, {"acme": ACME})
    learners = Learners(PairModel.load("general").version)
    learners.tenants["acme"] = better()
    learners.tenants["acme"].promote(learners.tenants["acme"].candidate.frozen_at, "test")  # type: ignore[union-attr]
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "headgate-learning.json").write_bytes(learners.dump())
    told = headgate("route", "explain", "how far is Oslo", "--tenant", "acme", "--json", folder=tmp_path)
    assert ";learned:1" in told.stdout
