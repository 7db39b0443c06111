"""A cascade through a real gateway process: a truncated answer is billed, rejected and replaced."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.gateway_process import REMOTE, RunningGateway, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream

ACME = """
tenant: acme
budgets: [{window: month, limit_usd: "1"}]
routing: {cascade: {enabled: true, from_p: 0, to_p: 1}}
"""


@pytest.fixture(scope="module")
def gateway(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder: Path = tmp_path_factory.mktemp("cascade")
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted;finish=length", large="scripted-large")
    write_configuration(folder, operator, {"acme": ACME})
    with run_gateway(folder) as running:
        yield running


@pytest.fixture(scope="module")
def key(gateway: RunningGateway) -> str:
    return gateway.key("acme")


def ask(gateway: RunningGateway, key: str, text: str, **fields: object) -> httpx.Response:
    return httpx.post(
        f"{gateway.base_url}/chat/completions",
        json={"model": "auto", "messages": [{"role": "user", "content": text}], **fields},
        headers={"authorization": f"Bearer {key}", "x-headgate-explain": "true"},
        timeout=30,
        trust_env=False,
    )


def test_a_rejected_answer_is_replaced_and_both_are_billed(
    gateway: RunningGateway, upstream: RunningUpstream, key: str
) -> None:
    answer = ask(gateway, key, "a question in the band")
    assert answer.json()["choices"][0]["finish_reason"] == "stop"
    assert (answer.headers["x-headgate-tier"], answer.headers["x-headgate-reason"]) == ("large", "cascade")
    assert [one["body"]["model"] for one in upstream.seen()] == ["scripted;finish=length", "scripted-large"]
    usage = answer.json()["usage"]
    each_nano_usd = usage["prompt_tokens"] * 1_000 + usage["completion_tokens"] * 2_000
    assert round(float(answer.headers["x-headgate-cost-usd"]) * 1e9) == each_nano_usd * 11
    told = json.loads(answer.headers["x-headgate-decision"])
    assert told["reason"] == "cascade"
    assert ask(gateway, key, "a question in the band").headers["x-headgate-cache"] == "exact"


def test_a_limit_of_the_clients_own_and_a_stream_are_left_alone(gateway: RunningGateway, key: str) -> None:
    assert ask(gateway, key, "limited by the client", max_tokens=100).headers["x-headgate-tier"] == "small"
    assert ask(gateway, key, "streamed", stream=True).headers["x-headgate-reason"] != "cascade"


def test_a_rejected_answer_is_better_than_none_and_is_not_cached(upstream: RunningUpstream, tmp_path: Path) -> None:
    operator = REMOTE.format(
        base_url=upstream.base_url, small="scripted;finish=length", large="scripted-large;status=500"
    )
    write_configuration(tmp_path, operator, {"acme": ACME})
    with run_gateway(tmp_path) as gateway:
        key = gateway.key("acme")
        for _ in range(2):
            answer = ask(gateway, key, "nobody better is there")
            assert answer.json()["choices"][0]["finish_reason"] == "length"
            assert (answer.headers["x-headgate-tier"], answer.headers["x-headgate-cache"]) == ("small", "miss")
