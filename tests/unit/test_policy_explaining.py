"""What is in force, who decided it, and what two policies differ in."""

from pathlib import Path

from policies.checking import check_folder
from policies.documents import key_text
from policies.explaining import budget_text, decided, differences
from tests.policy_samples import KNOWN, tenant_policy


def test_every_value_names_the_line_that_decided_it_or_the_programs_default(tmp_path: Path) -> None:
    (tmp_path / "defaults.yaml").write_text("limits: {concurrency: 5, tokens_per_minute: 9}\nmax_output_tokens: 3\n")
    (tmp_path / "acme.yaml").write_text(
        "tenant: acme\nlimits:\n  concurrency: null\nmax_output_tokens: null\ncache: null\n"
    )
    tenant = check_folder(tmp_path, KNOWN)[0]["acme"]
    rows = {key_text(row.path): row for row in decided(tenant.policy, tenant.wrote)}

    def of(key: str) -> tuple[str, str | None]:
        origin = rows[key].origin
        return rows[key].value, None if origin is None else f"{Path(origin.file).name}:{origin.line}"

    assert of("limits.concurrency") == ("unlimited", "acme.yaml:3")
    assert of("limits.tokens_per_minute") == ("9", "defaults.yaml:1")
    assert of("limits.requests_per_minute") == ("unlimited", None)
    assert of("max_output_tokens") == ("none", "acme.yaml:4")
    assert of("cache.ttl_s") == ("86400", "acme.yaml:5")
    assert of("routing.quality") == ("0.5", None)
    assert of("budgets") == ("none", None)


def test_a_budget_is_one_line() -> None:
    policy = tenant_policy(
        "budgets:\n- {window: month, zone: Europe/Berlin, limit_usd: 5, when_exhausted: small_only}\n"
        "- {window: day, limit_usd: '0.5', per: user, tier: large, rolling: true, soft: true, alerts: [1, 0.5]}"
    )
    assert [budget_text(budget) for budget in policy.budgets] == [
        "5 USD per month (Europe/Berlin), then small_only",
        "0.5 USD per rolling day, for each user, tier large alone, soft, alerts at 50 %, 100 %",
    ]


def test_differences_are_those_in_force_not_of_spelling() -> None:
    old = {"acme": tenant_policy("limits: {concurrency: 5}\nfallback: true"), "gone": tenant_policy(tenant="gone")}
    new = {"acme": tenant_policy("limits: {concurrency: 6}\nmodels: {x: small}")}
    changes = differences(old, new)
    acme = [(key_text(one.path), one.old, one.new) for one in changes if one.tenant == "acme"]
    assert acme == [("limits.concurrency", "5", "6"), ("models.x", None, "small")]
    assert {one.new for one in changes if one.tenant == "gone"} == {None}
    assert differences(new, new) == ()
