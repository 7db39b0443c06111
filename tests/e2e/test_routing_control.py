"""A tenant's share of large calls, held through a real gateway and kept over a restart."""

from pathlib import Path

import httpx

from tests.e2e.gateway_process import REMOTE, RunningGateway, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream

ACME = """
tenant: acme
cache: {enabled: false}
routing: {max_large_share: 0.5}
"""
QUESTIONS = (
    "What is {n} plus 3?",
    "Name town {n}.",
    "Prove the {n}. identity.",
    "Write a poem of {n} lines.",
    "Hi {n}",
)


def asked(gateway: RunningGateway, n: int) -> list[tuple[str, str]]:
    """Ask `n` questions of an even mix; return tier and reason of each."""
    headers = {"authorization": f"Bearer {gateway.key('acme')}"}
    answers = []
    with httpx.Client(base_url=gateway.base_url, headers=headers, timeout=30, trust_env=False) as client:
        for at in range(n):
            question = [{"role": "user", "content": QUESTIONS[at % len(QUESTIONS)].format(n=at * 37 % 100)}]
            answer = client.post("/chat/completions", json={"model": "auto", "messages": question}).raise_for_status()
            answers.append((answer.headers["x-headgate-tier"], answer.headers["x-headgate-reason"]))
    return answers


def test_a_share_is_held_and_survives_a_restart(upstream: RunningUpstream, tmp_path: Path) -> None:
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
    write_configuration(tmp_path, operator, {"acme": ACME})
    with run_gateway(tmp_path) as gateway:
        first = asked(gateway, 60)
        assert "headgate_shadow_price_per_usd" in gateway.metrics()
    assert {reason for _, reason in first} == {"share"}
    assert 18 <= [tier for tier, _ in first].count("large") <= 42
    with run_gateway(tmp_path) as gateway:
        again = asked(gateway, 20)
        assert "starts afresh" not in gateway.log()
    assert 5 <= [tier for tier, _ in again].count("large") <= 15
    assert (tmp_path / "var" / "headgate-control.json").stat().st_size > 1_000
