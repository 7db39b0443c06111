"""Mutated policy files are either refused in one line or load into a policy that makes sense."""

import random
from pathlib import Path

import pytest

from core.errors import ConfigurationError
from policies.loading import load_tenant
from tests.policy_samples import KNOWN

EXAMPLE = """
tenant: acme
models: {auto: auto, gpt-4o: auto}
budgets: [{window: month, zone: Europe/Berlin, limit_usd: "500", when_exhausted: small_only}]
limits: {requests_per_minute: 600, tokens_per_minute: 200000, concurrency: 50}
service_class: interactive
sla: {small: {ttft_ms: 300, total_ms: 5000, min_output_tokens_per_s: 20}, large: {ttft_ms: 1500, total_ms: 30000}}
routing: {max_large_share: 0.4}
cache: {semantic: true, max_false_hit_rate: 0.005, shadow_ratio: 0.01}
on_store_outage: closed
"""
SHARDS = (
    "&a", "*a", "<<:", "!!python/object:os.system", "!", "|", ">", "- ", ": ", "? ", "{", "}", "[", "]", "'", '"', "#",
    "\t", "\n", "\n---\n", "%YAML 9.9\n", "null", "~", "true", "no", ".inf", ".nan", "-1", "0x1F", "1e999", "1:30",
    "9" * 50, "0.1" + "0" * 30 + "1", "2026-13-45", "\\ud800", "é", "\x00", "\x85", "\ufeff", "𝒳", "{" * 40, "[" * 2000,
)  # fmt: skip
FILES = 2_000


def mutated(chance: random.Random) -> bytes:
    text = EXAMPLE
    for _ in range(chance.randint(1, 4)):
        at, length = chance.randrange(len(text)), chance.randint(0, 12)
        words = text.split()
        piece = chance.choice([chance.choice(SHARDS), chance.choice(words), "", text[at : at + length] * 2])
        text = text[:at] + piece + text[at + chance.choice([0, length]) :]
    raw = bytearray(text.encode())
    if chance.random() < 0.2:
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    return bytes(raw)


@pytest.mark.parametrize("seed", range(4))
def test_no_mutated_file_crashes_the_loader_or_loads_a_half_policy(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    path = tmp_path / "acme.yaml"
    refusals: list[str] = []
    for _ in range(FILES // 4):
        path.write_bytes(mutated(chance))
        try:
            policy = load_tenant(path, {}, KNOWN)
        except ConfigurationError as refusal:
            refusals.append(refusal.message)
        else:
            assert all(0 <= budget.limit_nano_usd <= 9 * 10**15 for budget in policy.budgets)
            assert set(policy.sla) <= set(KNOWN.tiers)
            assert all(target in ("auto", *KNOWN.tiers, *KNOWN.deployments) for target in policy.models.values())
    assert FILES // 4 * 0.2 < len(refusals) < FILES // 4
    for message in refusals:
        assert message.startswith(str(path))
        assert "; " in message
        assert len(message.splitlines()) == 1
