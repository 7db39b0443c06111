"""Decision records and sessions through a real gateway process: told in a header, by the admin API and by commands."""

import json
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.telemetry.receipt_blocks import DICTIONARIES, read_receipt
from tests.e2e.gateway_process import REMOTE, RunningGateway, headgate, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream

ACME = """
tenant: acme
tiers: [small, large]
budgets: [{window: month, limit_usd: "1"}]
routing:
  quality: 0
  sessions: {downgrade_after: 2}
  rules: [{name: hard, when: {tags: hard}, use: large}]
cache: {semantic: false}
"""
POOR = "tenant: poor\nbudgets: [{window: month, limit_usd: '0.000000001'}]\n"
LONG = "Now the same question for another pair of cities, with every step of the reasoning written down: Oslo, Riga, "


@pytest.fixture(scope="module")
def gateway(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder: Path = tmp_path_factory.mktemp("decisions")
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
    write_configuration(folder, operator, {"acme": ACME, "poor": POOR})
    with run_gateway(folder) as running:
        yield running


@pytest.fixture(scope="module")
def key(gateway: RunningGateway) -> str:
    return gateway.key("acme")


def ask(
    gateway: RunningGateway, key: str, *turns: str, headers: dict[str, str] | None = None, **fields: Any
) -> httpx.Response:
    messages = [{"role": "assistant" if at % 2 else "user", "content": text} for at, text in enumerate(turns)]
    return httpx.post(
        f"{gateway.base_url}/chat/completions",
        json={"model": "auto", "messages": messages, **fields},
        headers={"authorization": f"Bearer {key}", **(headers or {})},
        timeout=30,
        trust_env=False,
    )


def known(gateway: RunningGateway, request_id: str) -> httpx.Response:
    admin_key = (gateway.folder / "var" / "admin.key").read_text().strip()
    headers = {"authorization": f"Bearer {admin_key}"}
    return httpx.get(f"{gateway.admin_url}/admin/decisions/{request_id}", headers=headers, trust_env=False)


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_asks_gets_the_decision_in_a_header(gateway: RunningGateway, key: str, stream: bool) -> None:
    answer = ask(gateway, key, f"explain {stream}", headers={"x-headgate-explain": "true"}, stream=stream)
    told = json.loads(answer.headers["x-headgate-decision"])
    assert (told["id"], told["tier"], told["reason"]) == (answer.headers["x-request-id"], "small", "score")
    assert [one["deployment"] for one in told["candidates"]] == ["one", "two"]
    assert told["candidates"][1]["quality"] == 1.0
    assert told["judged_by"].startswith("model:general@")


def test_nobody_gets_the_header_unasked(gateway: RunningGateway, key: str) -> None:
    assert "x-headgate-decision" not in ask(gateway, key, "unasked").headers


def test_the_admin_api_shows_the_record_and_decides_it_again(gateway: RunningGateway, key: str) -> None:
    secret_text = "a prompt that nobody may find in any record"
    answer = ask(gateway, key, secret_text, headers={"x-headgate-tags": "hard"}, user="eve")
    found = known(gateway, answer.headers["x-request-id"])
    told = found.json()
    assert (told["identical"], told["differs"], told["changed"]) == (True, [], [])
    decision = told["decision"]
    assert (decision["outcome"]["rule"], decision["outcome"]["tier"]) == ("hard", "large")
    assert decision["inputs"]["facts"]["tags"] == ["hard"]
    assert decision["inputs"]["standing"]["free_nano_usd"] > 0
    assert secret_text not in found.text
    assert "eve" not in found.text


def test_a_refusal_is_a_decision_too_and_an_unknown_id_is_404(gateway: RunningGateway) -> None:
    refused = ask(gateway, gateway.key("poor"), "too dear")
    assert refused.status_code == 429
    told = known(gateway, refused.headers["x-request-id"]).json()
    assert told["decision"]["outcome"]["refusal"] == "insufficient_quota"
    assert told["identical"] is True
    assert known(gateway, "req_" + "0" * 32).status_code == 404


def test_explain_tells_it_in_words_and_as_json_from_files_or_the_gateway(gateway: RunningGateway, key: str) -> None:
    request_id = ask(gateway, key, "explained by command").headers["x-request-id"]
    by_api = headgate("explain", request_id, "--admin-url", gateway.admin_url, folder=gateway.folder).stdout
    assert "byte for byte" in " ".join(by_api.split())
    while known(gateway, request_id).json()["request"] is None:
        pass  # the request log's group is not written yet; the decisions' group began before it
    told = json.loads(headgate("explain", request_id, "--json", folder=gateway.folder).stdout)
    assert (told["identical"], told["changed"], told["request"]["tier"]) == (True, [], "small")
    unknown = headgate("explain", "req_unknown", folder=gateway.folder, check=False)
    assert (unknown.returncode, unknown.stdout) == (1, "")


def test_a_changed_policy_and_a_forged_record_are_told(gateway: RunningGateway, key: str, tmp_path: Path) -> None:
    request_id = ask(gateway, key, "to be forged").headers["x-request-id"]
    while known(gateway, request_id).json()["request"] is None:
        pass
    operator = (gateway.folder / "headgate.yaml").read_text()
    write_configuration(tmp_path, operator, {"acme": ACME.replace("quality: 0", "quality: 0.1")})
    (tmp_path / "var").mkdir()
    forged = tmp_path / "var" / "headgate-decisions.db"
    source_file = gateway.folder / "var" / "headgate-decisions.db"
    with closing(sqlite3.connect(source_file)) as source, closing(sqlite3.connect(forged)) as target:
        source.backup(target)
    told = json.loads(headgate("explain", request_id, "--json", folder=tmp_path).stdout)
    assert (told["identical"], told["changed"]) == (True, ["policy"])
    content = read_receipt(forged, request_id)
    assert content is not None
    with closing(sqlite3.connect(forged)) as target:
        packing = zlib.compressobj(zdict=DICTIONARIES[0])
        body = packing.compress(content.replace(b'"reason":"score"', b'"reason":"prior"')) + packing.flush()
        target.execute("DELETE FROM block_keys")
        target.execute(
            "INSERT INTO receipts (request_id, tenant, decided_at_ms, dictionary, body) VALUES (?, 'acme', 0, 0, ?)",
            (request_id, body),
        )
        target.commit()
    done = headgate("explain", request_id, "--json", folder=tmp_path, check=False)
    assert (done.returncode, json.loads(done.stdout)["differs"]) == (1, ["outcome.reason"])


def test_a_conversation_keeps_its_tier_and_goes_down_after_enough_easy_turns(gateway: RunningGateway, key: str) -> None:
    def turn(text: str, **headers: str) -> tuple[str, str]:
        answer = ask(gateway, key, text, headers={"x-headgate-session": "talk-1", **headers})
        return answer.headers["x-headgate-tier"], answer.headers["x-headgate-reason"]

    assert turn("Which city lies further north?", **{"x-headgate-tags": "hard"}) == ("large", "rule")
    assert turn(LONG + "one") == ("large", "session")
    assert turn(LONG + "two") == ("small", "score")
    assert turn("And in the south?", **{"x-headgate-tags": "hard"}) == ("large", "rule")


def test_a_follow_up_is_found_by_the_beginning_and_other_keys_know_nothing_of_it(
    gateway: RunningGateway, key: str
) -> None:
    first = "Which of these towns has the older harbour?"
    opened = ask(gateway, key, first, headers={"x-headgate-tags": "hard"})
    assert opened.headers["x-headgate-tier"] == "large"
    talk = (first, "Oslo.", "why?")
    assert ask(gateway, key, *talk).headers["x-headgate-reason"] == "session"
    assert ask(gateway, gateway.key("acme"), *talk, "Because.", "and then?").headers["x-headgate-reason"] == "score"


def test_the_dry_run_tells_the_route_of_a_prompt(gateway: RunningGateway) -> None:
    words = headgate("route", "explain", "What is 2 + 2?", "--tenant", "acme", folder=gateway.folder).stdout
    assert "Chosen: small" in " ".join(words.split())
    tagged = headgate(
        "route", "explain", "What is 2 + 2?", "--tenant", "acme", "--tags", "hard", "--json", folder=gateway.folder
    )
    assert json.loads(tagged.stdout)["outcome"]["rule"] == "hard"
    poor = headgate(
        "route", "explain", "x", "--tenant", "acme", "--free-usd", "0.000000001", folder=gateway.folder, check=False
    )
    assert poor.returncode == 1
    assert "insufficient_quota" in poor.stdout
