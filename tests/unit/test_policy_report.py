"""The check of a whole configuration, how a request would fare, measurements, and the first configuration."""

import json
import os
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from core.errors import ConfigurationError
from gateway.commands.first_configuration import Choices, Remote, configuration_files, write_configuration
from gateway.files import write_whole
from gateway.settings.operator import load_policy_set, load_settings
from gateway.telemetry.request_log import RequestLog
from gateway.whatif.measurements import measured_deployments
from gateway.whatif.policy_report import Report, catalogue, examine
from gateway.whatif.request_preview import RequestPreview, preview, read_request
from policies.abilities import Measured
from tests.traces import RECEIVED_AT, a_trace

TODAY = date(2026, 6, 1)
REMOTE = 'backend: remote, base_url: https://host/v1, model: m, price: {input_usd_per_m: "1", output_usd_per_m: "2"}'
OPERATOR = f"""policies: tenants
tiers: {{small: [tiny], large: [cloud]}}
deployments:
  tiny: {{recipe: bundled-small-int4}}
  cloud: {{{REMOTE}}}
"""
TENANT = "tenant: acme\nmodels: {gpt-4o: auto, big: cloud}\nbudgets: [{window: day, limit_usd: 5}]\n"


def write(folder: Path, operator: str = OPERATOR, tenant: str = TENANT) -> Path:
    (folder / "tenants").mkdir(exist_ok=True)
    (folder / "tenants" / "acme.yaml").write_text(tenant)
    (folder / "headgate.yaml").write_text(operator)
    return folder / "headgate.yaml"


def told(report: Report) -> list[tuple[str, str, int | None, str]]:
    return [(finding.level, finding.code, finding.line, finding.key) for finding in report.findings]


def test_a_configuration_in_order_has_no_findings(tmp_path: Path) -> None:
    report = examine(write(tmp_path), None, TODAY)
    assert told(report) == []
    assert list(report.tenants) == ["acme"]


def test_a_remote_stand_in_that_no_policy_grants_is_doubted(tmp_path: Path) -> None:
    tenant = TENANT.replace(", big: cloud", "") + "tiers: [small]\nwhen_loading: remote\n"
    found = ("warning", "no-effect", 5, "when_loading")
    assert found in told(examine(write(tmp_path, tenant=tenant), None, TODAY))
    granted = tenant + "deployments: [cloud]\n"
    assert found not in told(examine(write(tmp_path, tenant=granted), None, TODAY))


@pytest.mark.parametrize(
    ("operator", "found"),
    [
        (OPERATOR.replace("tiers:", "teirs:"), ("error", "invalid", 2, "")),
        (OPERATOR.replace("[cloud]", "[clod]"), ("error", "invalid", 2, "tiers.large")),
        (OPERATOR.replace(", price:", ", prise:"), ("error", "invalid", 5, "deployments.cloud")),
        (OPERATOR.replace("model: m,", ""), ("error", "invalid", 5, "deployments.cloud.model")),
        (OPERATOR.replace("small-int4", "none"), ("error", "invalid", 4, "deployments.tiny.recipe")),
        (OPERATOR + "x: [", ("error", "invalid", 7, "")),
        (OPERATOR.replace("[tiny]", "[cloud]"), ("warning", "unreachable", 4, "deployments.tiny")),
        (
            OPERATOR.replace("small: [tiny], large: [cloud]", "l: [cloud], s: [tiny]"),
            ("warning", "tier-order", 2, "tiers.l"),
        ),
        (
            OPERATOR.replace("model: m,", "model: m, api_key_env: HEADGATE_NO_SUCH_KEY,"),
            ("warning", "missing-key", 5, "deployments.cloud.api_key_env"),
        ),
        (
            OPERATOR.replace(REMOTE, "backend: remote, base_url: https://host/v1, model: gpt-4o, price: table"),
            ("warning", "old-price", 5, "deployments.cloud.price"),
        ),
        (OPERATOR + "alerts: {webhook_url: https://hook/x}\n", ("warning", "no-effect", 6, "alerts")),
    ],
)
def test_each_doubt_about_the_operators_file_has_a_line(
    tmp_path: Path, operator: str, found: tuple[str, str, int, str]
) -> None:
    assert told(examine(write(tmp_path, operator), None, TODAY)) == [found]


def test_measurements_of_the_request_log_are_compared_with_the_sla(tmp_path: Path) -> None:
    config = write(tmp_path, tenant=TENANT + "sla: {large: {total_ms: 1}}\n")
    log = RequestLog(load_settings(config).beside("requests"), now_s=RECEIVED_AT.timestamp)
    for number in range(30):
        log.record(a_trace(request_id=f"r{number}"))
    log.close()
    measured = measured_deployments(load_settings(config).beside("requests"))
    (name,) = measured
    assert len(measured[name].total_ms) == 30
    config.write_text(OPERATOR.replace("cloud", name))
    (tmp_path / "tenants" / "acme.yaml").write_text(TENANT.replace("cloud", name) + "sla: {large: {total_ms: 1}}\n")
    assert told(examine(config, None, TODAY)) == [("warning", "sla-below-ability", 4, "sla.large.total_ms")]


def test_a_missing_log_measures_nothing_and_another_file_is_refused(tmp_path: Path) -> None:
    assert measured_deployments(tmp_path / "none.db") == {}
    (tmp_path / "text.db").write_text("no database, long enough to be looked at" * 100)
    with pytest.raises(ConfigurationError, match="cannot be read as a request log"):
        measured_deployments(tmp_path / "text.db")
    with pytest.raises(ConfigurationError, match="there is no such file"):
        examine(write(tmp_path), tmp_path / "none.db", TODAY)
    assert Measured().ttft_ms == ()


def look(folder: Path, tenant: str = TENANT, **fields: object) -> RequestPreview:
    settings = load_settings(write(folder, tenant=tenant))
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "What is 2 + 2?"}], **fields}
    (folder / "request.json").write_text(json.dumps(body))
    request = read_request(folder / "request.json")
    return preview(load_policy_set(settings), "acme", request, catalogue(settings))


def test_an_alias_of_auto_shows_both_plans(tmp_path: Path) -> None:
    shown = look(tmp_path, max_tokens=100)
    assert shown.target == "auto: the router decides"
    assert [(plan.judged, plan.tier, plan.deployments[0]) for plan in shown.plans] == [
        ("easy", "small", "tiny"),
        ("hard", "large", "cloud"),
    ]
    assert shown.plans[1].max_tokens == 100
    assert shown.plans[1].hold_nano_usd >= 100 * 2_000


def test_a_named_deployment_and_a_guard_leave_one_plan(tmp_path: Path) -> None:
    named = look(tmp_path, model="big")
    assert (named.target, [plan.judged for plan in named.plans]) == ("the deployment cloud", [""])
    tools = look(tmp_path, tools=[{"type": "function", "function": {"name": "f"}}])
    assert [(plan.tier, plan.reason) for plan in tools.plans] == [("large", "guard_tools")]


def test_only_rules_that_count_the_request_are_shown(tmp_path: Path) -> None:
    tenant = (
        "tenant: acme\nmodels: {gpt-4o: small}\nfallback: false\nlimits: {concurrency: 3}\n"
        "budgets: [{window: day, limit_usd: 5, per: user}, {window: day, limit_usd: 5, tier: large}]\n"
        "sla: {small: {ttft_ms: 10, total_ms: 20}, large: {total_ms: 30}}\n"
    )
    plain = [rule.path for rule in look(tmp_path, tenant, user="u1").rules]
    assert plain == [("budgets", 0), ("limits", "concurrency"), ("sla", "small", "total_ms")]
    streamed = look(tmp_path, tenant, user="u1", stream=True).rules
    assert ("sla", "small", "ttft_ms") in [rule.path for rule in streamed]
    assert "counted for the user 'u1'" in streamed[0].says


def test_a_name_that_means_nothing_lists_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"request: model: 'gpt-5' means nothing here; use one of gpt-4o, big, auto"
    ):
        look(tmp_path, model="gpt-5")


@pytest.mark.parametrize("text", ["{", "{}", '{"model": "m", "messages": []}'])
def test_a_file_that_is_no_request_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"r\.json: .*; write the JSON that an app would send"):
        read_request(tmp_path / "r.json")
    with pytest.raises(ConfigurationError, match=r"none\.json: No such file"):
        read_request(tmp_path / "none.json")


@pytest.mark.parametrize(
    "remote",
    [
        None,
        Remote("https://host/v1", "gpt-4o"),
        Remote("https://host/v1", 'odd: "name" #1', None, Decimal("0.15"), Decimal("1E+1")),
    ],
)
def test_what_init_writes_has_no_error_and_no_doubt(tmp_path: Path, remote: Remote | None) -> None:
    choices = Choices("no", Decimal("12.50"), "Europe/Berlin", remote)
    written = write_configuration(tmp_path / "new", choices, force=False)
    assert [path.relative_to(tmp_path / "new").as_posix() for path in written] == list(configuration_files(choices))
    report = examine(tmp_path / "new" / "headgate.yaml", None, date(2025, 7, 5))
    assert told(report) == []
    budget = report.tenants["no"].policy.budgets[0]
    assert (budget.limit_nano_usd, budget.zone.key) == (12_500_000_000, "Europe/Berlin")


def test_init_never_overwrites_unless_it_is_forced(tmp_path: Path) -> None:
    choices = Choices("acme", Decimal(1))
    (tmp_path / "policies" / "tenants").mkdir(parents=True)
    (tmp_path / "policies" / "tenants" / "acme.yaml").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"acme\.yaml: exists already; choose another --dir, or add --force"):
        write_configuration(tmp_path, choices, force=False)
    assert not (tmp_path / "headgate.yaml").exists()
    write_configuration(tmp_path, choices, force=True)
    assert load_policy_set(load_settings(tmp_path / "headgate.yaml")).tenants() == ("acme",)


def test_an_answer_that_makes_no_sense_leaves_everything_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="unknown time zone"):
        write_configuration(tmp_path / "new", Choices("acme", Decimal(1), "Moon/Base"), force=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "headgate.yaml").write_text("mine")
    with pytest.raises(ConfigurationError):
        write_configuration(tmp_path, Choices("acme", Decimal(1), remote=Remote("no-url", "m")), force=True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("headgate.yaml", "mine")]


@pytest.mark.parametrize("tenant", ["../x", "defaults", "", "a b"])
def test_init_refuses_a_name_that_is_no_tenants(tmp_path: Path, tenant: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--tenant: .* is not a tenant name"):
        write_configuration(tmp_path, Choices(tenant, Decimal(1)), force=True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        raise ConfigurationError(str(path), "", "refused", "try again")

    path = tmp_path / "f.yaml"
    path.write_text("old")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="refused"):
        write_whole(path, "new", check=refuse)
    assert path.read_text() == "old"
    write_whole(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777, os.listdir(tmp_path)) == ("new", 0o600, ["f.yaml"])
