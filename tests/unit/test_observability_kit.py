"""The kit for Grafana, Prometheus and the collector is whole, current, and asks for metrics that exist."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.telemetry.reference import families
from observability.dashboards import DASHBOARDS, FOLDER, SCHEMA_VERSION, Dashboard, rendered

KIT = Path(__file__).parents[2] / "observability"
RULES = ("rules.yml", "alerts.yml")


def known_names() -> set[str]:
    names = set()
    for family in families():
        suffixes = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
        names |= {family.full_name + suffix for suffix in suffixes}
    return names


def asked(expression: str) -> set[str]:
    return set(re.findall(r"\bheadgate_[a-z0-9_]+", expression))


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_the_files_are_what_the_script_writes(dashboard: Dashboard) -> None:
    file = FOLDER / f"{dashboard.uid.removeprefix('headgate-')}.json"
    assert file.read_text() == rendered(dashboard), "run: python -m observability.dashboards"


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_a_dashboard_is_one_that_grafana_takes(dashboard: Dashboard) -> None:
    document: dict[str, Any] = json.loads(rendered(dashboard))
    panels = document["panels"]
    assert document["schemaVersion"] == SCHEMA_VERSION
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    titles = [panel["title"] for panel in panels]
    assert len(set(titles)) == len(titles)
    assert all(target["datasource"]["uid"] == "${DS_PROMETHEUS}" for panel in panels for target in panel["targets"])


def test_every_panel_and_every_rule_asks_for_metrics_that_exist() -> None:
    expressions = [expression for one in DASHBOARDS for panel in one.panels for expression, _ in panel.queries]
    for name in RULES:
        groups = yaml.safe_load((KIT / "rules" / name).read_text())["groups"]
        expressions += [rule["expr"] for group in groups for rule in group["rules"]]
    unknown = {name for expression in expressions for name in asked(expression)} - known_names()
    assert not unknown


def test_rules_are_asked_for_by_the_names_they_record() -> None:
    texts = {name: (KIT / "rules" / name).read_text() for name in RULES}
    recorded = set(re.findall(r"record: (\S+)", texts["rules.yml"]))
    used = set(re.findall(r"\bheadgate:[a-z0-9_:]+", "".join(texts.values())))
    assert used == recorded
