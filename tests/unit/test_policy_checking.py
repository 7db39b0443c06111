"""Looking through a policy folder: all errors at once, and rules that do no good."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from policies.abilities import Measured, missed_slas
from policies.checking import CheckedTenant, check_folder
from policies.findings import Finding
from policies.never_matching import doubts
from tests.policy_samples import KNOWN

TIERS = {"small": ("small-int4",), "large": ("large-full", "cloud")}
BUDGET = "budgets: [{window: month, limit_usd: 50}]"


def check(folder: Path, **files: str) -> tuple[dict[str, CheckedTenant], set[Finding]]:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return check_folder(folder, KNOWN)


def told(folder: Path, text: str, defaults: str = "") -> list[tuple[str, int | None, str]]:
    """Return code, line and key of each doubt about a tenant file with these further lines from line 2 on."""
    tenants, errors = check(folder, acme=f"tenant: acme\n{text}", defaults=defaults)
    assert not errors
    found = list(doubts(tenants["acme"], TIERS))
    assert all(
        finding.level == "warning" and "; " in finding.message for finding in found if finding.code != "refuses-all"
    )
    return [(finding.code, finding.line, finding.key) for finding in found]


def test_every_error_of_every_file_is_found_with_its_line(tmp_path: Path) -> None:
    tenants, findings = check(
        tmp_path,
        defaults="limits:\n  concurency: 5\n",
        acme="tenant: acme\nmodles: {}\nmodels: {x: larg}\ncache:\n  ttl_s: no\n",
        broken="tenant: [",
        good="tenant: good\n",
        twin="tenant: twin\n",
        twins="tenant: twin\n",
    )
    places = {(Path(finding.file).name, finding.line, finding.key) for finding in findings}
    assert places == {
        ("defaults.yaml", 2, "limits"),
        ("acme.yaml", 2, ""),
        ("acme.yaml", 3, "models.x"),
        ("acme.yaml", 5, "cache.ttl_s"),
        ("broken.yaml", 2, ""),
    }
    assert tenants == {}
    (tmp_path / "defaults.yaml").unlink()
    tenants, findings = check(tmp_path)
    assert set(tenants) == {"good", "twin"}
    assert "already defined" in next(one.message for one in findings if one.file.endswith("twins.yaml"))


def test_an_empty_folder_and_a_missing_one_are_errors(tmp_path: Path) -> None:
    assert [finding.level for finding in check_folder(tmp_path, KNOWN)[1]] == ["error"]
    assert [finding.level for finding in check_folder(tmp_path / "none", KNOWN)[1]] == ["error"]


def test_a_policy_in_order_raises_no_doubt(tmp_path: Path) -> None:
    text = """models: {auto: auto, gpt-4o: auto}
budgets:
- {window: month, limit_usd: 50}
- {window: day, limit_usd: 5, when_exhausted: small_only, alerts: [0.5, 1]}
- {window: day, limit_usd: 1, per: user, alerts: [0.5, 1]}
- {window: month, limit_usd: 40, soft: true, alerts: [1]}
sla: {small: {ttft_ms: 100}}
routing: {quality: 0.7}
cache: {shadow_ratio: 0.1}
"""
    assert told(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "doubt"),
    [
        (f"models: {{small: large}}\n{BUDGET}", ("hidden-name", 2, "models.small")),
        (f"{BUDGET}\ntiers: [small]\nsla:\n  large: {{ttft_ms: 9}}", ("never-matches", 5, "sla.large")),
        (
            f"tiers: [small]\n{BUDGET[:-1]}, {{window: day, limit_usd: 1, tier: large}}]",
            ("never-matches", 3, "budgets[1]"),
        ),
        (f"{BUDGET[:-1]}, {{window: day, limit_usd: 60}}]", ("never-matches", 2, "budgets[1]")),
        (f"{BUDGET[:-1]}, {{window: day, limit_usd: 50, per: key}}]", ("never-matches", 2, "budgets[1]")),
        (
            f"{BUDGET[:-1]}, {{window: month, limit_usd: 50, when_exhausted: cache_only}}]",
            ("never-matches", 2, "budgets[1]"),
        ),
        (
            f"{BUDGET[:-1]}, {{window: month, limit_usd: 90, soft: true, alerts: [0.9]}}]",
            ("never-matches", 2, "budgets[1]"),
        ),
        (f"{BUDGET[:-1]}, {{window: day, limit_usd: 3, alerts: [1.5]}}]", ("never-matches", 2, "budgets[1]")),
        (f"{BUDGET[:-1]}, {{window: day, limit_usd: 3, soft: true}}]", ("no-effect", 2, "budgets[1]")),
        ("budgets: [{window: day, limit_usd: 0}]", ("refuses-all", 2, "budgets[0]")),
        ("fallback: true", ("no-budget", None, "budgets")),
        ("budgets: [{window: day, limit_usd: 1, soft: true, alerts: [1]}]", ("no-budget", 2, "budgets")),
        ("budgets: [{window: day, limit_usd: 1, tier: large}]", ("no-budget", 2, "budgets")),
        (f"{BUDGET}\ncache: {{enabled: false, ttl_s: 5}}", ("no-effect", 3, "cache.ttl_s")),
        (f"{BUDGET}\ncache: {{semantic: false, shadow_ratio: 0.5}}", ("no-effect", 3, "cache.shadow_ratio")),
        (f"{BUDGET}\ntiers: [large]\nrouting: {{quality: 0.1}}", ("no-effect", 4, "routing")),
    ],
)
def test_a_rule_that_does_nothing_is_told_with_its_line(tmp_path: Path, text: str, doubt: tuple[str, int, str]) -> None:
    assert told(tmp_path, text) == [doubt]


@pytest.mark.parametrize(
    "text",
    [
        "budgets: [{window: month, limit_usd: 50}, {window: week, limit_usd: 60}]",  # a week may lie in two months
        "budgets: [{window: month, limit_usd: 50}, {window: day, limit_usd: 60, zone: Europe/Berlin}]",
        "budgets: [{window: month, limit_usd: 50}, {window: day, limit_usd: 60, rolling: true}]",
        "budgets: [{window: month, limit_usd: 50, soft: true, alerts: [1]}, {window: day, limit_usd: 60}]",
        "budgets: [{window: month, limit_usd: 50, when_exhausted: small_only}, {window: day, limit_usd: 60}]",
        "budgets: [{window: month, limit_usd: 5, per: key}, {window: day, limit_usd: 60}]",
        "budgets: [{window: month, limit_usd: 5, tier: large}, {window: day, limit_usd: 60}]",
        "budgets: [{window: month, limit_usd: 50}, {window: day, limit_usd: 60, alerts: [0.5]}]",
    ],
)
def test_a_budget_that_can_still_be_reached_is_left_alone(tmp_path: Path, text: str) -> None:
    assert told(tmp_path, text) == []


def test_what_is_inherited_for_others_is_no_doubt_about_this_tenant(tmp_path: Path) -> None:
    defaults = "sla: {large: {ttft_ms: 9}}\nrouting: {quality: 0.2}\ncache: {ttl_s: 9}"
    assert told(tmp_path, f"{BUDGET}\ntiers: [small]\ncache: {{enabled: false}}", defaults) == []


def test_a_tier_reached_through_a_named_deployment_counts_as_reachable(tmp_path: Path) -> None:
    text = f"{BUDGET[:-1]}, {{window: day, limit_usd: 1, tier: large}}]\ntiers: [small]\nmodels: {{big: cloud}}"
    assert told(tmp_path, text) == []


def missed(folder: Path, sla: str, measured: Mapping[str, Measured]) -> list[str]:
    tenants, _ = check(folder, acme=f"tenant: acme\nsla: {sla}")
    found = list(missed_slas(tenants["acme"], TIERS, measured))
    assert all(finding.code == "sla-below-ability" and finding.line == 2 for finding in found)
    return [f"{finding.key}: {finding.message}" for finding in found]


def test_an_sla_that_measured_answers_missed_is_told_with_figures(tmp_path: Path) -> None:
    slow = Measured(ttft_ms=(400.0,) * 18 + (900.0,) * 2, total_ms=(1000.0,) * 20, output_tokens_per_s=(10.0,) * 20)
    (message,) = missed(tmp_path, "{small: {ttft_ms: 500, total_ms: 1000}}", {"small-int4": slow})
    assert message.startswith(
        "sla.small.ttft_ms: 10% of the last 20 answers of the tier 'small' missed this (median 400"
    )
    assert len(missed(tmp_path, "{small: {min_output_tokens_per_s: 20}}", {"small-int4": slow})) == 1
    assert missed(tmp_path, "{small: {ttft_ms: 900, min_output_tokens_per_s: 5}}", {"small-int4": slow}) == []


def test_the_best_deployment_speaks_for_its_tier_and_few_samples_say_nothing(tmp_path: Path) -> None:
    slow, fast = Measured(total_ms=(900.0,) * 30), Measured(total_ms=(100.0,) * 30)
    sla = "{large: {total_ms: 500}}"
    assert missed(tmp_path, sla, {"large-full": slow, "cloud": fast}) == []
    assert len(missed(tmp_path, sla, {"large-full": slow})) == 1
    assert missed(tmp_path, sla, {"large-full": Measured(total_ms=(900.0,) * 19)}) == []
