"""A folder becomes a policy set: inheritance, versions, and folders that are refused."""

from pathlib import Path

import pytest

from core.errors import ConfigurationError
from policies.loading import Known, Loaded, PolicySet, load_policies, merge
from tests.policy_samples import KNOWN

ROOT = Path(__file__).parents[2]


def load(folder: Path, **files: str) -> PolicySet:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return load_policies(folder, KNOWN)


def test_mappings_merge_lists_replace_and_null_takes_away() -> None:
    inherited = {"a": {"x": 1, "y": 2}, "l": [1, 2], "n": 5, "routing": {"quality": 0.5}}
    written = {"a": {"y": 3}, "l": [9], "n": None, "routing": {"max_large_share": 0.4}}
    assert merge(inherited, written) == {"a": {"x": 1, "y": 3}, "l": [9], "routing": {"max_large_share": 0.4}}
    assert inherited["a"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"quality": 0.9}, {"rules": [1], "quality": 0.9}),
        ({"rules": [2]}, {"rules": [2], "max_large_share": 0.4}),
        ({"quality": None}, {"rules": [1], "max_large_share": 0.4}),
        ({"max_large_share": None}, {"rules": [1]}),
    ],
)
def test_a_knob_of_routing_replaces_the_other_knobs_and_no_rule(
    written: dict[str, object], expected: dict[str, object]
) -> None:
    inherited = {"routing": {"rules": [1], "max_large_share": 0.4}}
    assert merge(inherited, {"routing": written}) == {"routing": expected}


def test_a_tenant_inherits_the_defaults_and_wins_over_them(tmp_path: Path) -> None:
    policies = load(
        tmp_path,
        defaults="limits: {concurrency: 5, requests_per_minute: 60}\nmodels: {auto: auto}\nmax_output_tokens: 100",
        acme="tenant: acme\nlimits: {concurrency: 9}\nmodels: {gpt-4o: large}\nmax_output_tokens: null",
    )
    acme = policies.get("acme")
    assert acme is not None
    assert (acme.limits.concurrency, acme.limits.requests_per_minute) == (9, 60)
    assert dict(acme.models) == {"auto": "auto", "gpt-4o": "large"}
    assert acme.max_output_tokens is None


def test_an_error_in_the_defaults_carries_their_own_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"defaults\.yaml: limits: unknown key 'concurency'; did you mean"):
        load(tmp_path, defaults="limits: {concurency: 5}", acme="tenant: acme")


def test_defaults_with_a_tenant_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"defaults\.yaml: tenant: defaults belong to no tenant"):
        load(tmp_path, defaults="tenant: acme", acme="tenant: acme")


def test_one_tenant_in_two_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"b\.yaml: tenant: the tenant 'acme' is already defined in .*a\.yaml"):
        load(tmp_path, a="tenant: acme", b="tenant: acme")


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no tenant file"):
        load(tmp_path)
    with pytest.raises(ConfigurationError, match="the folder cannot be read"):
        load(tmp_path / "none")


def test_a_file_that_is_not_a_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a mapping of keys to values; start with"):
        load(tmp_path, acme="- tenant: acme")


def test_a_config_map_with_its_links_and_hidden_folders_loads(tmp_path: Path) -> None:
    hidden = tmp_path / "..2026_01_01"
    hidden.mkdir()
    (hidden / "acme.yaml").write_text("tenant: acme")
    (tmp_path / "..data").symlink_to(hidden.name)
    (tmp_path / "acme.yaml").symlink_to("..data/acme.yaml")
    (tmp_path / "README.md").write_text("not a policy")
    assert load_policies(tmp_path, KNOWN).tenants() == ("acme",)


def test_the_version_follows_the_effective_rules_not_their_spelling(tmp_path: Path) -> None:
    first = load(tmp_path, acme='tenant: acme\nbudgets: [{window: day, limit_usd: "1.50"}]\nfallback: true')
    same = load(tmp_path, acme="budgets: [{limit_usd: 1.5, window: day, zone: UTC}]\ntenant: acme", defaults="sla: {}")
    other = load(tmp_path, acme="budgets: [{limit_usd: 1.6, window: day, zone: UTC}]\ntenant: acme")
    assert first.version == same.version
    assert first.policies["acme"].version == same.policies["acme"].version != other.policies["acme"].version
    assert other.version != same.version


def test_tiers_keep_the_order_of_the_operator(tmp_path: Path) -> None:
    policies = load(tmp_path, acme="tenant: acme\ntiers: [large, small]")
    assert policies.policies["acme"].tiers == ("small", "large")


def test_the_policies_that_ship_are_valid() -> None:
    policies = load_policies(ROOT / "policies" / "tenants", Known(("small", "large"), frozenset({"minilm"})))
    assert policies.tenants() == ("demo", "demo-tiny")
    assert policies.policies["demo-tiny"].budgets[0].limit_nano_usd == 1
    assert policies.policies["demo"].models["gpt-4o"] == "auto"


def test_a_load_after_another_builds_only_what_has_changed(tmp_path: Path) -> None:
    files = {
        "common": "max_output_tokens: 1",
        "acme": "tenant: acme\ninclude: [common.yaml]",
        "globex": "tenant: globex",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    loaded = Loaded()
    first = load_policies(tmp_path, KNOWN, loaded=loaded)
    again = load_policies(tmp_path, KNOWN, loaded=loaded)
    assert all(again.policies[tenant] is first.policies[tenant] for tenant in ("acme", "globex"))
    (tmp_path / "common.yaml").write_text("max_output_tokens: 22")
    third = load_policies(tmp_path, KNOWN, loaded=loaded)
    assert third.policies["acme"].max_output_tokens == 22
    assert third.policies["globex"] is first.policies["globex"]
    (tmp_path / "defaults.yaml").write_text("fallback: false")
    assert load_policies(tmp_path, KNOWN, loaded=loaded).policies["globex"].fallback is False
    (tmp_path / "globex.yaml").unlink()
    assert load_policies(tmp_path, KNOWN, loaded=loaded).tenants() == ("acme",)


def test_what_was_read_as_a_tenant_before_is_checked_anew_when_it_is_included(tmp_path: Path) -> None:
    loaded = Loaded()
    for name in ("acme", "globex"):
        (tmp_path / f"{name}.yaml").write_text(f"tenant: {name}")
    load_policies(tmp_path, KNOWN, loaded=loaded)
    (tmp_path / "globex.yaml").write_text("tenant: globex\ninclude: [acme.yaml]")
    with pytest.raises(ConfigurationError, match=r"acme\.yaml: tenant: an included file has no tenant"):
        load_policies(tmp_path, KNOWN, loaded=loaded)
    assert len(loaded.built) == 2
