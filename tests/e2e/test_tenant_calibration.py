"""A tenant's calibration through a real gateway: users' words, a refit by command, its effect, and the way back."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from gateway.telemetry.receipt_blocks import read_receipt
from tests.e2e.gateway_process import REMOTE, RunningGateway, headgate, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream

ACME = "tenant: acme\nrouting: {quality: 0}\ncache: {semantic: false}\n"
REQUESTS = 40


@pytest.fixture(scope="module")
def gateway(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder: Path = tmp_path_factory.mktemp("calibration")
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
    write_configuration(folder, operator, {"acme": ACME})
    with run_gateway(folder) as running:
        yield running


def ask(gateway: RunningGateway, client: httpx.Client, text: str) -> str:
    answer = client.post("/chat/completions", json={"model": "auto", "messages": [{"role": "user", "content": text}]})
    assert answer.headers["x-headgate-tier"] == "small"
    return answer.headers["x-request-id"]


def source_of(gateway: RunningGateway, request_id: str) -> str:
    """Return who judged the request, once its receipt is written."""
    give_up_at_s = time.monotonic() + 10
    while time.monotonic() < give_up_at_s:
        content = read_receipt(gateway.folder / "var" / "headgate-decisions.db", request_id)
        if content is not None:
            source: str = msgspec.json.decode(content)["inputs"]["complexity"]["source"]
            return source
    raise AssertionError(f"no receipt of {request_id}")


def wait_for_source(gateway: RunningGateway, client: httpx.Client, ending: str, *, present: bool) -> None:
    give_up_at_s, number = time.monotonic() + 20, 0
    while time.monotonic() < give_up_at_s:
        number += 1
        request_id = ask(gateway, client, f"is version {ending} in force {present} {number}")
        if source_of(gateway, request_id).endswith(ending) == present:
            return
    raise AssertionError(f"{ending} in force did not become {present}")


def test_bad_answers_by_small_lower_a_tenants_scores_until_that_is_taken_back(gateway: RunningGateway) -> None:
    headers = {"authorization": f"Bearer {gateway.key('acme')}"}
    nothing = headgate("route", "calibrate", "--tenant", "acme", folder=gateway.folder).stdout
    assert "no outcomes of this tenant yet" in nothing
    with httpx.Client(base_url=gateway.base_url, headers=headers, timeout=30, trust_env=False) as client:
        asked = [ask(gateway, client, f"question number {number} about boats") for number in range(REQUESTS)]
        source_of(gateway, asked[-1])
        gateway.request_rows(REQUESTS)
        for number, request_id in enumerate(asked):
            said = {"request_id": request_id, "kind": "answer", "thumb": "up" if number % 5 == 0 else "down"}
            client.post("/feedback", json=said).raise_for_status()
        refitted = headgate("route", "calibrate", "--tenant", "acme", folder=gateway.folder).stdout
        assert "version 1 of 'acme' is in force" in refitted
        wait_for_source(gateway, client, ";calibration:1", present=True)
        listed = headgate("route", "calibrations", "list", "--json", folder=gateway.folder).stdout
        assert msgspec.json.decode(listed)["acme"]["versions"][0]["calibration"]["rows"] == REQUESTS
        explained = headgate(
            "route", "explain", "a question about boats", "--tenant", "acme", "--json", folder=gateway.folder
        )
        assert ";calibration:1" in explained.stdout
        back = headgate("route", "calibrations", "rollback", "--tenant", "acme", folder=gateway.folder).stdout
        assert "no calibration of 'acme' is in force" in back
        wait_for_source(gateway, client, ";calibration:1", present=False)


def test_what_cannot_be_rolled_back_to_is_one_line(gateway: RunningGateway) -> None:
    refused = headgate(
        "route", "calibrations", "rollback", "--tenant", "acme", "--to", "9", folder=gateway.folder, check=False
    )
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "there is no version 9" in refused.stderr


def test_calibrating_to_nothing_is_one_line(gateway: RunningGateway) -> None:
    refused = headgate("route", "calibrate", "--pair", "general", folder=gateway.folder, check=False)
    assert refused.returncode == 2
    assert "give --outcomes and --out, or --tenant alone" in refused.stderr
