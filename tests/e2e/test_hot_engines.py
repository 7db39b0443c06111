"""Never cold for the user: a large engine that loads for long, and reloads under load, fail no request.

The engines are scripted: each streams its own name with a count, so that a lost or doubled token, or one of another
engine, shows in the text.
"""

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.e2e.gateway_process import RunningGateway, error_of, headgate, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream

FAKE = Path(__file__).resolve().parent.parent / "integration" / "fake_engine.py"
FRAMES = 8
CLIENTS = 4
OPERATOR = """
listen: 127.0.0.1:8080
admin: {listen: 127.0.0.1:8081, key_file: var/admin.key}
state: sqlite:var/headgate.db
policies: tenants
router: {pair: general}
tiers: {small: [fast], large: [slow]}
deployments:
  fast: {recipe: recipes/fast.yaml}
  slow: {recipe: recipes/slow.yaml}
  cloud: {backend: remote, base_url: UPSTREAM, model: m, price: {input_usd_per_m: 1, output_usd_per_m: 1}}
"""
RECIPE = """
engine: command
weights: .
precision: bf16
model: MODEL
memory_bytes: 1000000
context_tokens: 1000
max_output_tokens: 100
price: {input_usd_per_m: 1, output_usd_per_m: 1}
prefix_caching: false
expected_start_s: 3
options:
  command: [PYTHON, FAKE, --port, "{port}", --model, MODEL, --frames, "8", --gap-s, "0.01", --load-until, "LOADED"]
"""
POLICY = "tenant: NAME\ncache: {enabled: false}\nsla: {small: {ttft_ms: 1000}}\nwhen_loading: HOW\n"


@dataclass(frozen=True, slots=True)
class Told:
    """What one streamed answer told."""

    status: int
    tier: str | None
    degraded_from: str | None
    text: str
    is_done: bool


def recipe(model: str, loaded: Path) -> str:
    text = RECIPE.replace("PYTHON", sys.executable).replace("FAKE", str(FAKE))
    return text.replace("MODEL", model).replace("LOADED", str(loaded))


@pytest.fixture
def gateway(upstream: RunningUpstream, tmp_path: Path) -> Iterator[RunningGateway]:
    policies = {how: POLICY.replace("NAME", how).replace("HOW", how) for how in ("small", "remote", "wait", "refuse")}
    policies["remote"] += "deployments: [cloud]\n"
    write_configuration(tmp_path, OPERATOR.replace("UPSTREAM", upstream.base_url), policies)
    (tmp_path / "recipes").mkdir()
    for model, loaded in (("fast", tmp_path), ("slow", tmp_path / "loaded")):
        (tmp_path / "recipes" / f"{model}.yaml").write_text(recipe(model, loaded))
    with run_gateway(tmp_path, until="/healthz") as running:
        yield running


def ask(gateway: RunningGateway, key: str) -> Told:
    """Ask the large tier for a stream and read it to its end."""
    body = {"model": "large", "stream": True, "messages": [{"role": "user", "content": "count"}]}
    text, is_done = "", False
    with httpx.stream(
        "POST",
        f"{gateway.base_url}/chat/completions",
        headers={"authorization": f"Bearer {key}"},
        json=body,
        timeout=60,
        trust_env=False,
    ) as answer:
        for line in answer.iter_lines():
            is_done = is_done or line == "data: [DONE]"
            if line.startswith('data: {"') and '"content"' in line:
                text += line.split('"content": "', 1)[1].split('"', 1)[0]
        headers = answer.headers
        return Told(
            answer.status_code, headers.get("x-headgate-tier"), headers.get("x-headgate-degraded-from"), text, is_done
        )


def whole(model: str) -> str:
    return "".join(f"{model}:{n} " for n in range(FRAMES))


@contextmanager
def under_load(gateway: RunningGateway, key: str) -> Iterator[list[Told]]:
    """Ask for streams, several at a time, as long as the block lasts."""
    is_over, answers = threading.Event(), list[Told]()

    def go_on() -> None:
        while not is_over.is_set():
            answers.append(ask(gateway, key))

    with ThreadPoolExecutor(CLIENTS) as pool:
        asking = [pool.submit(go_on) for _ in range(CLIENTS)]
        try:
            yield answers
        finally:
            is_over.set()
    for one in asking:
        one.result()


def wait_for(answers: list[Told], tier: str, more: int) -> None:
    """Wait until `more` further answers came from `tier`."""
    goal = sum(one.tier == tier for one in answers) + more
    give_up_at_s = time.monotonic() + 60
    while sum(one.tier == tier for one in answers) < goal:
        assert time.monotonic() < give_up_at_s, answers[-3:]
        time.sleep(0.02)


def test_small_stands_in_until_large_is_ready_and_no_token_is_lost_at_the_switch(gateway: RunningGateway) -> None:
    with under_load(gateway, gateway.key("small")) as answers:
        wait_for(answers, "small", CLIENTS)
        (gateway.folder / "loaded").touch()
        wait_for(answers, "large", CLIENTS)
    assert {one.status for one in answers} == {200}
    assert all(one.is_done for one in answers)
    assert {(one.tier, one.degraded_from, one.text) for one in answers} == {
        ("small", "large", whole("fast")),
        ("large", None, whole("slow")),
    }


def test_whoever_waits_is_served_by_large_and_whoever_does_not_by_a_remote_or_told_when(
    gateway: RunningGateway,
) -> None:
    refused, remote = (
        httpx.post(
            f"{gateway.base_url}/chat/completions",
            headers={"authorization": f"Bearer {gateway.key(how)}"},
            json={"model": "large", "messages": [{"role": "user", "content": "count"}]},
            trust_env=False,
        )
        for how in ("refuse", "remote")
    )
    told = {
        name: remote.headers.get(f"x-headgate-{name}") for name in ("tier", "deployment", "reason", "degraded-from")
    }
    assert remote.status_code == 200, remote.text
    assert told == {"tier": "large", "deployment": "cloud", "reason": "loading", "degraded-from": None}
    assert refused.status_code == 503
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert error_of(refused)["type"] == "server_error"
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, gateway, gateway.key("wait"))
        (gateway.folder / "loaded").touch()
        waited = asking.result()
    assert (waited.status, waited.tier, waited.text) == (200, "large", whole("slow"))


def test_reloads_under_load_fail_no_request(gateway: RunningGateway) -> None:
    (gateway.folder / "loaded").touch()
    with under_load(gateway, gateway.key("wait")) as answers:
        wait_for(answers, "large", CLIENTS)
        for _ in range(2):
            headgate("engines", "reload", "slow", "--admin-url", gateway.admin_url, folder=gateway.folder)
            wait_for(answers, "large", CLIENTS)
    assert {(one.status, one.tier, one.text, one.is_done) for one in answers} == {(200, "large", whole("slow"), True)}
    assert gateway.metrics().count('headgate_engine_restarts_total{engine="slow"} 2.0') == 1
