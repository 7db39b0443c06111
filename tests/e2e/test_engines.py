"""Engines of a running gateway through its commands, `/readyz` and `/metrics`: sleep, wake, logs, and a crash loop."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.gateway_process import RunningGateway, headgate, run_gateway, write_configuration
from tests.e2e.test_hosted_tiers import LENIENT, ask, text_of

pytestmark = pytest.mark.engine

OPERATOR = """
listen: 127.0.0.1:8080
admin: {{listen: 127.0.0.1:8081, key_file: var/admin.key}}
state: sqlite:var/headgate.db
policies: tenants
tiers: {{small: [small-int4], large: [large-full, {bad}]}}
deployments:
  small-int4: {{recipe: bundled-small-int4}}
  large-full: {{recipe: bundled-large}}
  {bad}: {{recipe: recipes/{bad}.yaml}}
"""
RECIPE = """
engine: {engine}
weights: {weights}
precision: {precision}
model: bad-model
memory_bytes: {memory_bytes}
context_tokens: 100
max_output_tokens: 10
price: {{input_usd_per_m: 1, output_usd_per_m: 1}}
start_timeout_s: 2
{more}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder: Path = tmp_path_factory.mktemp("engines")
    write_configuration(folder, OPERATOR.format(bad="crashing"), {"lenient": LENIENT})
    (folder / "recipes").mkdir()
    (folder / "recipes" / "crashing.yaml").write_text(
        RECIPE.format(
            engine="command",
            weights=".",
            precision="bf16",
            memory_bytes=1000,
            more='prefix_caching: false\noptions: {command: [/bin/sh, -c, "echo error: no luck; exit 3; {port}"]}',
        )
    )
    with run_gateway(folder) as running:
        yield running


def engines(gateway: RunningGateway) -> dict[str, dict[str, object]]:
    listed = run(gateway, "list", "--json")
    return {row["name"]: row for row in json.loads(listed)}


def run(gateway: RunningGateway, *arguments: str) -> str:
    return headgate("engines", *arguments, "--admin-url", gateway.admin_url, folder=gateway.folder).stdout


def until(fact: Callable[[], bool], timeout_s: float = 30.0) -> None:
    give_up_at_s = time.monotonic() + timeout_s
    while not fact():
        assert time.monotonic() < give_up_at_s, "waited in vain"
        time.sleep(0.1)


def test_the_list_tells_every_engines_state(gateway: RunningGateway) -> None:
    rows = engines(gateway)
    assert list(rows) == ["small-int4", "large-full", "crashing"]
    assert rows["small-int4"]["state"] == "ready"
    assert rows["small-int4"]["kind"] == "openvino"
    assert "bundled-large" in run(gateway, "list")


def test_a_crash_loop_shows_in_the_list_readyz_and_metrics_while_others_serve(gateway: RunningGateway) -> None:
    until(lambda: int(str(engines(gateway)["crashing"]["failures"])) >= 2)
    error = str(engines(gateway)["crashing"]["last_error"])
    assert error.startswith("recipe crashing: the engine exited with status 3 before it was ready (error: no luck)")
    ready = httpx.get(f"{gateway.url}/readyz", trust_env=False)
    assert ready.status_code == 200
    assert ready.json()["failing"]["crashing"]["failures"] >= 2
    assert "no luck" not in ready.text
    until(lambda: 'headgate_engine_state{engine="crashing",state="failed"} 1.0' in gateway.metrics())
    assert re.search(r'headgate_engine_failures\{engine="crashing"\} [2-9]', gateway.metrics())
    assert text_of(ask(gateway, gateway.key("lenient"), "What is 48 plus 37?", model="large")) == "85"


def test_what_an_engine_did_and_cost_is_told_with_its_idle_time_apart(gateway: RunningGateway) -> None:
    assert text_of(ask(gateway, gateway.key("lenient"), "What is 48 plus 37?", model="large")) == "85"

    def cost() -> dict[str, float | str]:
        found = engines(gateway)["large-full"]["cost"]
        assert isinstance(found, dict)
        return found

    until(lambda: float(cost()["input_tokens"]) > 0 and float(cost()["up_s"]) > 0)
    assert 0 <= float(cost()["idle_usd"]) <= float(cost()["held_usd"])
    assert float(cost()["marginal_usd"]) > 0
    assert 'headgate_engine_cost_usd_total{engine="large-full",kind="held"}' in gateway.metrics()


def test_logs_are_printed_and_limited(gateway: RunningGateway) -> None:
    lines = run(gateway, "logs", "crashing").splitlines()
    assert "error: no luck" in lines
    assert len(run(gateway, "logs", "crashing", "-n", "2").splitlines()) == 2


def test_an_unknown_engine_is_answered_with_the_known_ones(gateway: RunningGateway) -> None:
    refused = headgate("engines", "logs", "nope", "--admin-url", gateway.admin_url, folder=gateway.folder, check=False)
    assert refused.returncode == 1
    assert "There is no engine 'nope'; this gateway hosts: small-int4, large-full, crashing." in refused.stderr


def test_a_reload_is_followed_to_its_end_and_on_record(gateway: RunningGateway) -> None:
    before = engines(gateway)["large-full"]
    (row,) = json.loads(run(gateway, "reload", "large-full", "--json"))
    assert row["generation"] == int(str(before["generation"])) + 1
    assert row["pid"] != before["pid"]
    assert row["reload"]["stage"] == "done"
    assert text_of(ask(gateway, gateway.key("lenient"), "What is 48 plus 37?", model="large")) == "85"
    assert "engine.reload" in headgate("audit", "show", "--json", folder=gateway.folder).stdout


def test_a_reload_that_fails_says_why(gateway: RunningGateway) -> None:
    refused = headgate(
        "engines", "reload", "crashing", "--admin-url", gateway.admin_url, folder=gateway.folder, check=False
    )
    assert refused.returncode == 1
    assert "no luck" in refused.stdout


def test_a_sleeping_engine_wakes_for_a_request_of_its_tier(gateway: RunningGateway) -> None:
    key = gateway.key("lenient")
    assert run(gateway, "sleep", "large-full")
    until(lambda: engines(gateway)["large-full"]["state"] == "sleeping")
    assert ask(gateway, key, "What is 48 plus 37?", model="large").status_code in (200, 503)
    until(lambda: engines(gateway)["large-full"]["state"] == "ready")
    assert text_of(ask(gateway, key, "What is 48 plus 37?", model="large")) == "85"
