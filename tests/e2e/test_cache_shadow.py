"""Hits verified in the shadow by a real gateway: what they cost, what they teach, and when none is made."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.e2e.gateway_process import REMOTE, RunningGateway, headgate, run_gateway, write_configuration
from tests.e2e.test_cache_control import ask, told
from tests.e2e.test_chat_api import wait_until
from tests.upstream.process import RunningUpstream

PLACES = (
    "France",
    "Spain",
    "Italy",
    "Norway",
    "Poland",
    "Greece",
    "Chile",
    "Peru",
    "Kenya",
    "Ghana",
    "Japan",
    "Iceland",
)
VERIFIED = """
budgets: [{window: month, limit_usd: "100"}]
cache: {shadow_ratio: 1.0}
"""
SPENT = """
budgets: [{window: month, limit_usd: "0.0005", when_exhausted: cache_only}]
max_output_tokens: 10
cache: {shadow_ratio: 1.0}
"""


@pytest.fixture(scope="module")
def gateway(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("shadow")
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
    rules = {"right": VERIFIED, "wrong": VERIFIED, "spent": SPENT, "warm": ""}
    write_configuration(folder, operator, {name: f"tenant: {name}\n{text}" for name, text in rules.items()})
    with run_gateway(folder) as running:
        wait_for_encoder(running)
        yield running


def wait_for_encoder(gateway: RunningGateway) -> None:
    """Ask a pair until it is a semantic hit, as it is once the encoder has loaded."""
    key = gateway.key("warm")

    def has_loaded() -> bool:
        told(gateway, "flush", "--tenant", "warm")
        return question(gateway, key, "France") == "miss" and paraphrase(gateway, key, "France") == "semantic"

    wait_until(has_loaded, 60)


def question(gateway: RunningGateway, key: str, place: str) -> str:
    return ask(gateway, key, f"What is the capital of {place}?")


def paraphrase(gateway: RunningGateway, key: str, place: str) -> str:
    return ask(gateway, key, f"Which city is the capital of {place}?")


def report(gateway: RunningGateway, tenant: str) -> dict[str, Any]:
    key = (gateway.folder / "var" / "admin.key").read_text().strip()
    url = f"{gateway.admin_url}/admin/cache/report?tenant={tenant}"
    answer = httpx.get(url, headers={"authorization": f"Bearer {key}"}, trust_env=False)
    return dict(answer.raise_for_status().json()["tenants"][0])


def spent_usd(gateway: RunningGateway, tenant: str) -> Decimal:
    shown = headgate(
        "budget", "show", "--tenant", tenant, "--json", "--admin-url", gateway.admin_url, folder=gateway.folder
    )
    (budget,) = json.loads(shown.stdout)
    return Decimal(budget["spent_usd"])


def rows_of(gateway: RunningGateway, tenant: str) -> list[dict[str, Any]]:
    return [row for row in gateway.request_rows(1) if row["tenant"] == tenant]


def test_a_verified_hit_feeds_the_bound_and_its_cost_adds_up_to_the_ledger(
    gateway: RunningGateway, upstream: RunningUpstream
) -> None:
    key = gateway.key("right")
    upstream.obey("text=It%20is%20the%20capital.")
    assert question(gateway, key, "France") == "miss"
    assert paraphrase(gateway, key, "France") == "semantic"
    wait_until(lambda: report(gateway, "right")["judged"] == 1)
    assert report(gateway, "right")["wrong"] == 0
    wait_until(lambda: len(rows_of(gateway, "right")) == 3)
    rows = rows_of(gateway, "right")
    (shadow,) = [row for row in rows if row["path"] == "shadow:cache"]
    assert shadow["cost_nano_usd"] > 0
    assert (shadow["tier"], shadow["status"]) == ("large", 200)
    wait_until(lambda: spent_usd(gateway, "right") * 10**9 == sum(row["cost_nano_usd"] for row in rows))
    assert len(upstream.seen()) == 2
    assert 'headgate_shadow_requests_total{purpose="cache",status="200",tenant="right"} 1.0' in gateway.metrics()
    assert paraphrase(gateway, key, "France") == "semantic"


def test_answers_that_differ_demote_the_tenant_by_themselves(
    gateway: RunningGateway, upstream: RunningUpstream
) -> None:
    key = gateway.key("wrong")
    served = 0
    for place in PLACES:
        upstream.obey("text=It%20is%20the%20capital.")
        question(gateway, key, place)
        upstream.obey("text=Owls%20hunt%20at%20night%20because%20mice%20are%20about.")
        served += paraphrase(gateway, key, place) == "semantic"
        judged = min(served, len(PLACES))
        wait_until(lambda least=judged: report(gateway, "wrong")["judged"] >= least)  # type: ignore[misc]
    row = report(gateway, "wrong")
    assert row["wrong"] >= 8
    assert row["source"] in ("tightened", "demoted")
    assert served < len(PLACES)


def test_nothing_is_verified_when_the_budget_is_used_up(gateway: RunningGateway, upstream: RunningUpstream) -> None:
    key = gateway.key("spent")
    assert question(gateway, key, "Spain") == "miss"
    assert paraphrase(gateway, key, "Spain") == "semantic"
    assert paraphrase(gateway, key, "Spain") == "semantic"
    wait_until(lambda: len(rows_of(gateway, "spent")) >= 3)
    assert {row["path"] for row in rows_of(gateway, "spent")} == {"/v1/chat/completions"}
    assert len(upstream.seen()) == 1
