"""10,000 mutated policy and operator files: each is refused in one line or loads into something that makes sense."""

import random
from pathlib import Path

import pytest

from core.errors import ConfigurationError
from core.money import Price
from core.rules import TenantPolicy
from gateway.settings.deployments import HostedDeployment
from gateway.settings.operator import load_settings
from policies.checking import check_folder
from policies.loading import load_policies
from policies.never_matching import doubts
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
OPERATOR = """
listen: 127.0.0.1:8080
admin: {listen: 127.0.0.1:8081, key_file: var/admin.key}
state: sqlite:var/headgate.db
policies: policies/tenants
environment: [HOST, CAP]
alerts: {webhook_url: "https://${HOST}/alerts", webhook_key_env: HOOK_KEY}
tiers: {small: [small-int4], large: [large-full, cloud]}
deployments:
  small-int4: {recipe: bundled-small-int4}
  large-full: {recipe: bundled-large, price: {input_usd_per_m: "0.20", output_usd_per_m: 0.60}}
  cloud: {backend: remote, base_url: "https://${HOST}/v1", model: gpt-4o, price: table, context_tokens: 8000}
  other: {backend: remote, base_url: https://host/v1, model: m, price: {table: gpt-4.1-mini}}
max_body_bytes: 1048576
"""
DEFAULTS = """
include: [common.yaml]
models: {auto: auto}
max_output_tokens: ${CAP}
sla: {small: {ttft_ms: 5000}}
"""
COMMON = "limits: {requests_per_minute: 60}\ncache: {ttl_s: 60}\n"
INCLUDING = EXAMPLE + "include: [common.yaml, teams/more.yaml]\n"
MORE = "routing: {quality: 0.7}\nmodels: {chat: '${HOST}'}\n"
FOLDER = {"acme": INCLUDING, "defaults": DEFAULTS, "common": COMMON, "teams/more": MORE}
VARIABLES = {"HOST": "small", "CAP": "1024", "UNSET": None}
TENANT_FILES, FOLDER_FILES, OPERATOR_FILES = 4_000, 4_000, 2_000
CHECKED_FOLDERS = 500
SHARDS_OF_OURS = (
    "${HOST}", "${CAP}", "${UNSET}", "${PATH}", "$${CAP}", "${", "include: [acme.yaml]", "[../acme.yaml]", "/etc/hosts",
    "rolling: true", "soft: true", "alerts: [0.5, 1]", "per: user", "price: table",
)  # fmt: skip


def mutated(chance: random.Random, text: str) -> bytes:
    for _ in range(chance.randint(1, 4)):
        at, length = chance.randrange(len(text) + 1), chance.randint(0, 12)
        words = text.split() or ["a"]
        shard = chance.choice((*SHARDS, *SHARDS_OF_OURS))
        piece = chance.choice([shard, chance.choice(words), "", text[at : at + length] * 2])
        text = text[:at] + piece + text[at + chance.choice([0, length]) :]
    raw = bytearray(text.encode())
    if raw and chance.random() < 0.2:
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    return bytes(raw)


def check_makes_sense(policy: TenantPolicy) -> None:
    assert all(0 <= budget.limit_nano_usd <= 9 * 10**15 for budget in policy.budgets)
    assert all(0 < percent <= 1000 for budget in policy.budgets for percent in budget.alerts_percent)
    assert set(policy.sla) <= set(KNOWN.tiers)
    assert all(target in ("auto", *KNOWN.tiers, *KNOWN.deployments) for target in policy.models.values())


def check_refusals(refusals: list[str], files: int, start: str) -> None:
    assert files * 0.2 < len(refusals) < files
    for message in refusals:
        assert message.startswith(start)
        assert "; " in message
        assert len(message.splitlines()) == 1


@pytest.mark.parametrize("seed", range(4))
def test_no_mutated_file_crashes_the_loader_or_loads_a_half_policy(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    refusals: list[str] = []
    for _ in range(TENANT_FILES // 4):
        (tmp_path / "acme.yaml").write_bytes(mutated(chance, EXAMPLE))
        try:
            policies = load_policies(tmp_path, KNOWN, VARIABLES)
        except ConfigurationError as refusal:
            refusals.append(refusal.message)
        else:
            assert len(policies.tenants()) == 1
            check_makes_sense(*policies.policies.values())
    check_refusals(refusals, TENANT_FILES // 4, str(tmp_path))


@pytest.mark.parametrize("seed", range(4))
def test_no_mutated_include_default_or_variable_crashes_or_half_loads_a_folder(seed: int, tmp_path: Path) -> None:
    chance = random.Random(100 + seed)
    (tmp_path / "teams").mkdir()
    for name, text in FOLDER.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    assert load_policies(tmp_path, KNOWN, VARIABLES).tenants() == ("acme",)
    refusals: list[str] = []
    for _ in range(FOLDER_FILES // 4):
        name = chance.choice(list(FOLDER))
        path = tmp_path / f"{name}.yaml"
        path.write_bytes(mutated(chance, FOLDER[name]))
        try:
            for policy in load_policies(tmp_path, KNOWN, VARIABLES).policies.values():
                check_makes_sense(policy)
        except ConfigurationError as refusal:
            refusals.append(refusal.message)
        path.write_text(FOLDER[name])
    check_refusals(refusals, FOLDER_FILES // 4, str(tmp_path))


@pytest.mark.parametrize("seed", range(2))
def test_no_mutated_operator_file_crashes_or_gives_half_settings(seed: int, tmp_path: Path) -> None:
    chance = random.Random(200 + seed)
    path = tmp_path / "headgate.yaml"
    environ = {"HOST": "host.example", "CAP": "9"}
    path.write_text(OPERATOR)
    assert load_settings(path, environ).deployments
    refusals: list[str] = []
    for _ in range(OPERATOR_FILES // 2):
        path.write_bytes(mutated(chance, OPERATOR))
        try:
            settings = load_settings(path, environ)
        except ConfigurationError as refusal:
            refusals.append(refusal.message)
        else:
            assert settings.tiers
            assert all(name in settings.deployments for names in settings.tiers.values() for name in names)
            for deployment in settings.deployments.values():
                assert isinstance(deployment, HostedDeployment) or isinstance(deployment.price, Price)
    check_refusals(refusals, OPERATOR_FILES // 2, str(path))


def test_the_check_finds_an_error_exactly_where_loading_refuses(tmp_path: Path) -> None:
    chance = random.Random(300)
    (tmp_path / "teams").mkdir()
    for name, text in FOLDER.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    tiers = {tier: tuple(KNOWN.deployments) for tier in KNOWN.tiers}
    for _ in range(CHECKED_FOLDERS):
        name = chance.choice(list(FOLDER))
        path = tmp_path / f"{name}.yaml"
        path.write_bytes(mutated(chance, FOLDER[name]))
        tenants, findings = check_folder(tmp_path, KNOWN, VARIABLES)
        doubtful = [doubt for tenant in tenants.values() for doubt in doubts(tenant, tiers)]
        assert all(len(f"{finding.where} {finding.message}".splitlines()) == 1 for finding in (*findings, *doubtful))
        try:
            load_policies(tmp_path, KNOWN, VARIABLES)
        except ConfigurationError:
            assert findings
        else:
            assert not findings
        path.write_text(FOLDER[name])
