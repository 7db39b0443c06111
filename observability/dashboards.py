"""Grafana's dashboards, written from lists of panels: `python -m observability.dashboards` writes the JSON files anew.

The schema's version is fixed, so that files change only when a panel does. Panels are laid out two in a row; every
query uses Grafana's own rate interval and the data source that the reader picks.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "grafana" / "dashboards"
SCHEMA_VERSION = 39
WIDTH, HEIGHT = 12, 8
SOURCE = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
RATE = "[$__rate_interval]"
ONE = 'tenant=~"$tenant"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: queries with their legends; `may_be_empty` where a healthy gateway has nothing to show."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    may_be_empty: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard; `variables` are the names of labels to pick from."""

    uid: str
    title: str
    panels: tuple[Panel, ...]
    variables: tuple[str, ...] = ()


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Return the sum of rates of a counter, by labels."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{where}}}{RATE}))" if where else f"sum{grouped} (rate({metric}{RATE}))"


def increase(metric: str, by: str) -> str:
    """Return by how much a counter grew in an hour, by labels."""
    return f"sum by ({by}) (increase({metric}[1h]))"


def quantile(q: float, histogram: str, by: str = "tier") -> str:
    """Return a quantile of a histogram by labels."""
    return f"histogram_quantile({q}, sum by (le, {by}) (rate({histogram}_bucket{RATE})))"


def attainment(by: str, where: str = "") -> str:
    """Return the share of judged requests that kept their SLA."""
    missed, judged = (rate(f"headgate_sla_{what}_total", by, where) for what in ("violations", "judged"))
    return f"1 - ({missed} or {judged} * 0) / ({judged} > 0)"


def share(by: str) -> str:
    """Return which share of the requests each value of a label has."""
    return f"{rate('headgate_requests_total', by)} / ignoring({by}) group_left {rate('headgate_requests_total')}"


def _quantiles(histogram: str) -> tuple[tuple[str, str], ...]:
    return tuple((quantile(q, histogram), f"{{{{tier}}}} {q:.0%}") for q in (0.5, 0.95, 0.99))


def _spend(by: str, where: str = "") -> tuple[Panel, ...]:
    """Return the panels on money, of all tenants or of one."""
    cost = rate("headgate_cost_usd_total", "", where)
    requests, tokens = rate("headgate_requests_total", "", where), rate("headgate_tokens_total", "", where)
    baseline = rate("headgate_baseline_usd_total", "", where)
    cached = rate("headgate_baseline_usd_total", "", f'{where + "," if where else ""}source="cache"')
    return (
        Panel(
            "Cost per hour", ((f"3600 * {rate('headgate_cost_usd_total', by, where)}", f"{{{{{by}}}}}"),), "currencyUSD"
        ),
        Panel(
            "Saved per hour",
            ((f"3600 * ({baseline} - {cost})", "all"), (f"3600 * ({cached} or vector(0))", "by the cache")),
            "currencyUSD",
            text="Against everything at the dearest tier without a cache.",
        ),
        Panel("Cost per request", ((f"{cost} / ({requests} > 0)", "USD"),), "currencyUSD"),
        Panel("Cost per 1,000 tokens", ((f"1000 * {cost} / ({tokens} > 0)", "USD"),), "currencyUSD"),
    )


OVERVIEW = Dashboard(
    "headgate-overview",
    "Headgate: overview",
    (
        Panel("Requests per second", ((rate("headgate_requests_total", "status"), "{{status}}"),), "reqps"),
        Panel("Share per tier", ((share("tier"), "{{tier}}"),), "percentunit"),
        *_spend("tier"),
        Panel("Cache", ((share("cache"), "{{cache}}"),), "percentunit"),
        Panel(
            "Why requests went where they went",
            ((rate("headgate_route_decisions_total", "reason"), "{{reason}}"),),
            "reqps",
        ),
        Panel("Time to first token, 95 %", ((quantile(0.95, "headgate_ttft_seconds"), "{{tier}}"),), "s"),
        Panel("Total time, 95 %", ((quantile(0.95, "headgate_request_seconds"), "{{tier}}"),), "s"),
        Panel("SLA attainment", ((attainment("tier"), "{{tier}}"),), "percentunit"),
        Panel("Gateway overhead, 95 %", ((quantile(0.95, "headgate_overhead_seconds"), "{{tier}}"),), "s"),
        Panel(
            "Budgets that burn fastest",
            (("topk(10, headgate_budget_burn_ratio)", "{{tenant}} {{budget}}"),),
            text="Above 1 the budget is used up before its window ends.",
        ),
        Panel(
            "Refused before a tenant was known",
            ((rate("headgate_refusals_total", "code"), "{{code}}"),),
            "reqps",
            may_be_empty=True,
        ),
        Panel(
            "Event loop lag, 99 %",
            ((quantile(0.99, "headgate_event_loop_lag_seconds", "instance"), "{{instance}}"),),
            "s",
        ),
        Panel("Memory", (("process_resident_memory_bytes", "{{instance}}"),), "bytes"),
        Panel("Budget store away", (("max(headgate_store_away)", "away"),), kind="stat"),
        Panel("Lost log rows", ((increase("headgate_dropped_total", "log"), "{{log}}"),), kind="stat"),
    ),
)
TENANT = Dashboard(
    "headgate-tenant",
    "Headgate: one tenant",
    (
        Panel("Requests per second", ((rate("headgate_requests_total", "status", ONE), "{{status}}"),), "reqps"),
        Panel("Tokens per second", ((rate("headgate_tokens_total", "kind", ONE), "{{kind}}"),)),
        *_spend("tier", ONE),
        Panel(
            "Budget left",
            ((f"headgate_budget_remaining_usd{{{ONE}}}", "{{budget}}, then {{consequence}}"),),
            "currencyUSD",
        ),
        Panel(
            "Budget burn",
            ((f"headgate_budget_burn_ratio{{{ONE}}}", "{{budget}}"),),
            text="1 is used up exactly when its window ends.",
        ),
        Panel("Cache", ((rate("headgate_requests_total", "cache", ONE), "{{cache}}"),), "reqps"),
        Panel("SLA attainment", ((attainment("tier", ONE), "{{tier}}"),), "percentunit"),
        Panel(
            "Refused",
            ((rate("headgate_requests_total", "status", f'{ONE},status=~"4..|503"'), "{{status}}"),),
            "reqps",
            may_be_empty=True,
        ),
        Panel("Shadow price", ((f"headgate_shadow_price_per_usd{{{ONE}}}", "quality per USD"),), may_be_empty=True),
    ),
    ("tenant",),
)
ENGINES = Dashboard(
    "headgate-engines",
    "Headgate: deployments and engines",
    (
        Panel(
            "Ready",
            (("headgate_deployment_ready", "{{deployment}}"), ("headgate_tier_ready", "tier {{tier}}")),
            kind="stat",
        ),
        Panel("Breakers", (("headgate_breaker_state == 1", "{{deployment}} {{state}}"),), kind="stat"),
        Panel(
            "Attempts per second",
            ((rate("headgate_attempts_total", "deployment, outcome"), "{{deployment}} {{outcome}}"),),
            "reqps",
        ),
        Panel("Attempts under way", (("headgate_in_flight", "{{deployment}}"),)),
        Panel("Waiting for a slot", (("headgate_queue_waiting", "requests"),)),
        Panel("Wait for a slot, 95 %", ((quantile(0.95, "headgate_queue_seconds"), "{{tier}}"),), "s"),
        Panel("Output tokens per second", ((rate("headgate_tokens_total", "tier", 'kind="output"'), "{{tier}}"),)),
        Panel("Time between tokens, 95 %", ((quantile(0.95, "headgate_tpot_seconds"), "{{tier}}"),), "s"),
        Panel(
            "Rescues per second",
            ((rate("headgate_rescues_total", "kind, outcome"), "{{kind}} {{outcome}}"),),
            "reqps",
            may_be_empty=True,
        ),
        Panel("How often breakers opened", (("headgate_ejections", "{{deployment}}"),)),
        Panel(
            "Answers of another model",
            ((increase("headgate_other_model_total", "deployment"), "{{deployment}}"),),
            kind="stat",
            may_be_empty=True,
        ),
        Panel(
            "Engine states", (("headgate_engine_state == 1", "{{engine}} {{state}}"),), kind="stat", may_be_empty=True
        ),
        Panel("Engine failures in a row", (("headgate_engine_failures", "{{engine}}"),), may_be_empty=True),
        Panel(
            "Engine restarts",
            ((increase("headgate_engine_restarts_total", "engine"), "{{engine}}"),),
            may_be_empty=True,
        ),
        Panel("Requests on engines", (("headgate_engine_requests", "{{engine}}"),), may_be_empty=True),
    ),
)
SLA = Dashboard(
    "headgate-sla",
    "Headgate: SLA",
    (
        Panel("Attainment by tenant and tier", ((attainment("tenant, tier"), "{{tenant}} {{tier}}"),), "percentunit"),
        Panel(
            "Misses per second",
            ((rate("headgate_sla_violations_total", "tenant, tier"), "{{tenant}} {{tier}}"),),
            "reqps",
        ),
        Panel("Time to first token", _quantiles("headgate_ttft_seconds"), "s"),
        Panel("Total time", _quantiles("headgate_request_seconds"), "s"),
        Panel("Limits in force", (("headgate_sla_limit_seconds", "{{tenant}} {{tier}} {{kind}}"),), "s"),
        Panel("Time between tokens", _quantiles("headgate_tpot_seconds"), "s"),
        Panel("Wait for a slot, 95 %", ((quantile(0.95, "headgate_queue_seconds"), "{{tier}}"),), "s"),
        Panel(
            "Refused for want of capacity",
            ((rate("headgate_sheds_total", "reason"), "{{reason}}"),),
            "reqps",
            may_be_empty=True,
        ),
        Panel(
            "Cost of what hedges outran, per hour",
            ((f"3600 * {rate('headgate_outrun_cost_usd_total', 'tier')}", "{{tier}}"),),
            "currencyUSD",
            may_be_empty=True,
        ),
        Panel("Answers by status", ((rate("headgate_requests_total", "status"), "{{status}}"),), "reqps"),
    ),
)
DASHBOARDS = (OVERVIEW, TENANT, ENGINES, SLA)


def rendered(dashboard: Dashboard) -> str:
    """Return a dashboard's JSON."""
    document = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["headgate"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": list(_variables(dashboard))},
        "panels": [_panel(at, panel) for at, panel in enumerate(dashboard.panels)],
    }
    return json.dumps(document, indent=2) + "\n"


def _variables(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    yield {"name": "DS_PROMETHEUS", "label": "Data source", "type": "datasource", "query": "prometheus"}
    for name in dashboard.variables:
        query = f"label_values(headgate_requests_total, {name})"
        yield {
            "name": name, "label": name.capitalize(), "type": "query", "datasource": SOURCE, "query": query,
            "definition": query, "refresh": 2, "includeAll": True, "allValue": ".*", "multi": True, "sort": 1,
        }  # fmt: skip


def _panel(at: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(at, 2)
    return {
        "id": at + 1,
        "title": panel.title,
        "description": panel.text,
        "type": panel.kind,
        "datasource": SOURCE,
        "gridPos": {"h": HEIGHT, "w": WIDTH, "x": column * WIDTH, "y": row * HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": {},
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for n, (expression, legend) in enumerate(panel.queries)
        ],
    }


def main() -> int:
    """Write every dashboard."""
    for dashboard in DASHBOARDS:
        (FOLDER / f"{dashboard.uid.removeprefix('headgate-')}.json").write_text(rendered(dashboard))
    return 0


if __name__ == "__main__":
    sys.exit(main())
