"""Errors about a tenant file: one line each, with the key path and a mend."""

import pytest

from core.errors import ConfigurationError
from policies.building import build_policy
from policies.safe_yaml import parse_yaml
from policies.schema import TenantFile, convert
from tests.policy_samples import KNOWN, tenant_policy


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("limitz: {}", "unknown key 'limitz'; did you mean 'limits'?"),
        ("budgets: [{window: day, limit: 3}]", "budgets[0]: unknown key 'limit'; did you mean 'limit_usd'?"),
        ("budgets: [{limit_usd: 3}]", "budgets[0]: the key 'window' is missing; add it"),
        (
            "budgets: [{window: monthly, limit_usd: 3}]",
            "budgets[0].window: 'monthly' is not accepted; use minute or hour or day or week or month",
        ),
        ("budgets: [{window: day, limit_usd: -1}]", "budgets[0].limit_usd: -1 is not an amount; write 0 or more"),
        (
            "budgets: [{window: day, limit_usd: '0.0000000001'}]",
            "budgets[0].limit_usd: 1E-10 cannot be counted in nano-USD; use at most nine decimal places",
        ),
        ("budgets: [{window: day, limit_usd: 10000000}]", "budgets[0].limit_usd: more than 9000000 USD; write less"),
        ("budgets: [{window: day, limit_usd: 1e999999}]", "budgets[0].limit_usd: more than 9000000 USD; write less"),
        (
            "budgets: [{window: day, limit_usd: 1, zone: Europe/Berln}]",
            "budgets[0].zone: unknown time zone 'Europe/Berln'; did you mean 'Europe/Berlin'?",
        ),
        ("budgets: [{window: day, limit_usd: 1, zone: /etc/passwd}]", "budgets[0].zone: unknown time zone"),
        ("budgets: [{window: day, limit_usd: 1, zone: ../x}]", "budgets[0].zone: unknown time zone"),
        ("budgets: [{window: day, limit_usd: 1, tier: huge}]", "budgets[0].tier: unknown tier 'huge'"),
        (
            "budgets: [{window: day, limit_usd: 1}, {window: day, limit_usd: 2}]",
            "budgets[1]: repeats an earlier budget of the same window, scope and consequence",
        ),
        (
            "budgets: [{window: day, limit_usd: 1, soft: true, when_exhausted: reject}]",
            "budgets[0].when_exhausted: a soft budget is never exhausted; remove it, or remove `soft`",
        ),
        (
            "budgets: [{window: day, limit_usd: 1, alerts: [0.5, 0.125]}]",
            "budgets[0].alerts[1]: 0.125 is not a whole percent; use at most two decimal places",
        ),
        (
            "budgets: [{window: day, limit_usd: 1, alerts: [0]}]",
            "budgets[0].alerts[0]: 0 is not a fraction of the limit; write for example 0.8 for 80 %",
        ),
        ("budgets: [{window: day, limit_usd: 1, alerts: [80]}]", "budgets[0].alerts[0]: 80 is not a fraction"),
        (
            "budgets: [{window: day, limit_usd: 1, alerts: [1, 1.0]}]",
            "budgets[0].alerts[1]: 100 % is already in the list",
        ),
        ("budgets: [{window: day, limit_usd: 1, alerts: [1e-999999]}]", "budgets[0].alerts[0]: 1E-999999 is not"),
        ("budgets: [{window: day, limit_usd: 1, alerts: ['NaN']}]", "budgets[0].alerts[0]: NaN is not a fraction"),
        ("budgets: [{window: day, limit_usd: 1, per: team}]", "budgets[0].per: 'team' is not accepted; use"),
        (
            "budgets: [{window: day, limit_usd: 1, rolling: 1}]",
            "budgets[0].rolling: expected bool, got int; write true",
        ),
        ("models: {gpt-4o: auro}", "models.gpt-4o: unknown target 'auro'; did you mean 'auto'?"),
        ("models: {'a b': auto}", "models.a b: not a model name"),
        ("tiers: [small]\nmodels: {x: large}", "models.x: the tier 'large' is not among the tenant's `tiers`"),
        ("tiers: []", "tiers: the list is empty"),
        ("tiers: [medium]", "tiers: unknown tier 'medium'; use one of small, large"),
        ("deployments: [clod]", "deployments: unknown deployment 'clod'; did you mean 'cloud'?"),
        ('sla: {"a\\nb": {ttft_ms: 10}}', "sla.'a\\nb': unknown tier"),
        ('sla: {"a\\nb": {ttft: 10}}', "sla.'a\\nb': unknown key 'ttft'"),
        ("sla: {smal: {ttft_ms: 10}}", "sla.smal: unknown tier 'smal'; did you mean 'small'?"),
        ("sla: {small: {ttft: 10}}", "sla.small: unknown key 'ttft'; did you mean 'ttft_ms'?"),
        ("sla: {small: {ttft_ms: 0}}", "sla.small.ttft_ms: '0' does not fit (expected int >= 1)"),
        ("sla: {small: {ttft_ms: 9, total_ms: 5}}", "sla.small.ttft_ms: the first token may come later than the end"),
        ("routing: {quality: 0.9, max_large_share: 0.4}", "routing: quality and max_large_share exclude each other"),
        ("routing: {quality: 1.2}", "routing.quality: '1.2' does not fit (expected float <= 1.0)"),
        ("routing: {target_cost_usd: -0.1}", "routing.target_cost_usd: -0.1 is not an amount"),
        ("routing: {give_way: [quality, cost]}", "routing.give_way: not each of the three once"),
        ("routing: {give_way: [quality, cost, speed]}", "routing.give_way[2]: 'speed' is not accepted"),
        ("limits: {concurrency: 1.5}", "limits.concurrency: expected int | null, got decimal; write a whole number"),
        ("service_class: fast", "service_class: 'fast' is not accepted; use interactive or batch"),
        ("cache: {semantic: maybe}", "cache.semantic: expected bool, got str; write true or false"),
        ("models: {a: 1}", "models.a: expected str, got int; write text"),
    ],
)
def test_each_mistake_is_one_line_with_key_and_mend(text: str, error: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        tenant_policy(text)
    assert refusal.value.message.startswith(f"acme.yaml: {error}")
    assert "; " in refusal.value.message
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize("tenant", ["a b", "-a", "a{b}", "x" * 65, "ü"])
def test_a_tenant_name_that_could_break_a_label_or_a_key_is_refused(tenant: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a tenant name"):
        build_policy(TenantFile(tenant=tenant), KNOWN, "f.yaml")


def test_a_file_without_tenant_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"f\.yaml: tenant: the key is missing"):
        build_policy(convert(parse_yaml("fallback: true", "f.yaml"), TenantFile, "f.yaml"), KNOWN, "f.yaml")


def test_the_documented_example_is_accepted() -> None:
    policy = tenant_policy(
        """
models: {auto: auto, gpt-4o: auto}
budgets: [{window: month, zone: Europe/Berlin, limit_usd: "500", when_exhausted: small_only}]
limits: {requests_per_minute: 600, tokens_per_minute: 200000, concurrency: 50}
service_class: interactive
sla: {small: {ttft_ms: 300, total_ms: 5000, min_output_tokens_per_s: 20}, large: {ttft_ms: 1500, total_ms: 30000}}
routing: {max_large_share: 0.4}
cache: {semantic: true, max_false_hit_rate: 0.005, shadow_ratio: 0.01}
on_store_outage: closed
"""
    )
    assert policy.budgets[0].limit_nano_usd == 500 * 10**9
    assert policy.budgets[0].zone.key == "Europe/Berlin"
    assert policy.routing.max_large_share == 0.4
    assert policy.sla["small"].min_output_tokens_per_s == 20
    assert policy.cache.shadow_ratio == 0.01
    assert policy.tiers == ("small", "large")
    assert policy.deployments == frozenset()
    assert policy.fallback is True


def test_a_budget_says_whose_it_is_how_it_counts_and_when_it_alerts() -> None:
    first, second = tenant_policy(
        """
budgets:
- {window: minute, limit_usd: 1, per: user, tier: large, rolling: true, alerts: [1, 0.5, "0.8"]}
- {window: minute, limit_usd: 1, per: user, tier: large, rolling: true, soft: true}
"""
    ).budgets
    assert (first.window, first.per, first.tier, first.rolling, first.soft) == ("minute", "user", "large", True, False)
    assert first.alerts_percent == (50, 80, 100)
    assert (second.soft, second.when_exhausted, second.alerts_percent) == (True, "reject", ())
