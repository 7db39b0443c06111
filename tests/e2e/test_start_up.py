"""What start-up refuses, and how: exit code 2 and one line with file, key and mend."""

from pathlib import Path

import pytest

from tests.e2e.gateway_process import REMOTE, headgate, write_configuration

GOOD = REMOTE.format(base_url="http://127.0.0.1:9/v1", small="a", large="b")
TENANT = "tenant: acme\n"
UNPRICED = "price: {input_usd_per_m: 1, output_usd_per_m: 2}"

CASES = {
    "broken YAML": (GOOD + "\n  : [", TENANT, "headgate.yaml"),
    "unknown key": (GOOD.replace("listen:", "lisen:", 1), TENANT, "did you mean 'listen'"),
    "duplicate key": (GOOD + "\nlisten: 127.0.0.1:1\n", TENANT, "'listen' occurs twice"),
    "unpriced model": (GOOD.replace(f", {UNPRICED}", ""), TENANT, "deployments.one.price"),
    "unknown deployment": (GOOD.replace("[one]", "[eno]"), TENANT, "tiers.small"),
    "broken tenant": (GOOD, "tenant: [acme", "acme.yaml"),
    "unknown tenant key": (GOOD, TENANT + "bugdets: []\n", "did you mean 'budgets'"),
    "duplicate tenant key": (GOOD, TENANT + "tenant: acme\n", "'tenant' occurs twice"),
    "unknown alias target": (GOOD, TENANT + "models: {gpt-4o: autp}\n", "models.gpt-4o"),
    "two knobs": (GOOD, TENANT + "routing: {quality: 0.9, max_large_share: 0.2}\n", "routing"),
    "missing provider key": (
        GOOD.replace("backend: remote,", "backend: remote, api_key_env: NO_SUCH_VARIABLE,", 1),
        TENANT,
        "NO_SUCH_VARIABLE is not set",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_configuration_refuses_to_start_with_one_line(tmp_path: Path, case: str) -> None:
    operator, tenant, told = CASES[case]
    write_configuration(tmp_path, operator, {"acme": tenant})
    refused = headgate("serve", "--port", "0", "--admin-port", "0", folder=tmp_path, check=False)
    assert refused.returncode == 2
    (line,) = refused.stderr.strip().splitlines()
    assert line.startswith("headgate: ")
    assert told in line


def test_policy_check_finds_the_same_without_starting(tmp_path: Path) -> None:
    write_configuration(tmp_path, GOOD, {"acme": TENANT})
    assert headgate("policy", "check", folder=tmp_path).returncode == 0
    (tmp_path / "tenants" / "acme.yaml").write_text("tenant: acme\nbugdets: []\n")
    assert headgate("policy", "check", folder=tmp_path, check=False).returncode == 2


def test_a_missing_file_is_told_with_its_name(tmp_path: Path) -> None:
    refused = headgate("serve", "--config", "nowhere.yaml", folder=tmp_path, check=False)
    assert refused.returncode == 2
    assert "nowhere.yaml" in refused.stderr


def test_keys_create_prints_the_key_alone(tmp_path: Path) -> None:
    write_configuration(tmp_path, GOOD, {"acme": TENANT})
    created = headgate("keys", "create", "--tenant", "acme", folder=tmp_path)
    assert created.stdout.strip().startswith("hg_")
    assert len(created.stdout.splitlines()) == 1
    unknown = headgate("keys", "create", "--tenant", "nobody", folder=tmp_path, check=False)
    assert unknown.returncode == 2
    assert unknown.stdout == ""
