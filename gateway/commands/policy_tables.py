"""How the commands about policies print: tables that fit 80 columns, and the same content as JSON values."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.money import usd_text
from core.rules import TenantPolicy
from gateway.whatif.policy_report import Report
from gateway.whatif.request_preview import RequestPreview
from policies.documents import Origin, key_text
from policies.explaining import Change, Decided, budget_text
from policies.findings import Finding
from policies.safe_yaml import KeyPath

STYLES = {"error": "bold red", "warning": "yellow"}
PROGRAM = "default"
BORDERS = 10
"""Characters that the lines and the padding of three columns take."""
LEAST_VALUE_WIDTH = 12


def shown_file(file: str) -> str:
    """Write a path relative to the working directory where that is shorter to read."""
    relative = os.path.relpath(file)
    return file if relative.startswith("..") else relative


def shown_origin(origin: Origin | None) -> str:
    """Write who decided a value."""
    return PROGRAM if origin is None else f"{shown_file(origin.file)}:{origin.line}"


def print_report(console: Console, report: Report) -> None:
    """Print the findings, the worst first, and one row per tenant that can be used."""
    if report.findings:
        console.print(_findings_table(report))
    if report.tenants:
        policies = [tenant.policy for tenant in report.tenants.values()]
        console.print(_tenants_table(policies))
    errors, warnings = report.count("error"), report.count("warning")
    console.print(
        f"{_plural(errors, 'error')}, {_plural(warnings, 'warning')}, {_plural(len(report.tenants), 'tenant')}"
    )


def report_json(report: Report) -> dict[str, Any]:
    """Return the report as JSON values; `valid` says whether the gateway would take it."""
    return {
        "valid": report.count("error") == 0,
        "errors": report.count("error"),
        "warnings": report.count("warning"),
        "findings": [_finding_json(finding) for finding in report.findings],
        "tenants": {name: tenant.policy.version for name, tenant in report.tenants.items()},
    }


def print_decided(console: Console, title: str, rows: Sequence[Decided], folder: Path) -> None:
    """Print every value in force with who decided it, files as they are named inside the policy folder."""
    table = Table(title=f"{escape(title)}, files of {escape(shown_file(str(folder)))}", title_justify="left")
    cells = [(key_text(row.path), row.value, _origin_in(row.origin, folder)) for row in rows]
    widths = [max(len(cell[column]) for cell in cells) for column in range(3)]
    left = console.width - BORDERS - widths[0] - widths[2]
    fits = left >= LEAST_VALUE_WIDTH
    table.add_column("key", overflow="fold", no_wrap=fits)
    table.add_column("value", overflow="fold", width=min(left, widths[1]) if fits else None)
    table.add_column("decided by", overflow="fold", no_wrap=fits)
    for row, cell in zip(rows, cells, strict=True):
        table.add_row(*(escape(text) for text in cell), style=None if row.origin is not None else "dim")
    console.print(table)


def decided_json(rows: Sequence[Decided]) -> list[dict[str, Any]]:
    """Return the values in force as JSON values; file and line are null for the program's defaults."""
    return [
        {
            "key": key_text(row.path),
            "value": row.value,
            "file": None if row.origin is None else row.origin.file,
            "line": None if row.origin is None else row.origin.line,
        }
        for row in rows
    ]


def print_preview(console: Console, shown: RequestPreview, wrote: Mapping[KeyPath, Origin], folder: Path) -> None:
    """Print what a request means, the plans that could follow, and the rules that count it."""
    alias = wrote.get(("models", shown.model))
    console.print(
        f"\nmodel [bold]{escape(shown.model)}[/] means {escape(shown.target)} ({escape(_origin_in(alias, folder))})"
    )
    console.print(f"about {shown.input_tokens} input tokens; with everything ready and money left:\n")
    plans = Table()
    for column in ("judged", "tier", "tried in this order", "reason", "holds USD", "output cap"):
        plans.add_column(column, overflow="fold", justify="right" if column in ("holds USD", "output cap") else "left")
    for plan in shown.plans:
        order = " > ".join(plan.deployments)
        hold = usd_text(plan.hold_nano_usd)
        plans.add_row(plan.judged or "-", plan.tier, escape(order), plan.reason, hold, str(plan.max_tokens))
    console.print(plans)
    rules = Table(title="rules that count it", title_justify="left")
    for column in ("key", "rule", "decided by"):
        rules.add_column(column, overflow="fold")
    for rule in shown.rules:
        rules.add_row(escape(key_text(rule.path)), escape(rule.says), escape(_origin_in(wrote.get(rule.path), folder)))
    console.print(rules if shown.rules else "no budget, limit or SLA counts it")


def preview_json(shown: RequestPreview, wrote: Mapping[KeyPath, Origin]) -> dict[str, Any]:
    """Return the preview as JSON values."""
    return {
        "model": shown.model,
        "target": shown.target,
        "input_tokens": shown.input_tokens,
        "plans": [
            {
                "judged": plan.judged or None,
                "tier": plan.tier,
                "deployments": list(plan.deployments),
                "reason": plan.reason,
                "hold_usd": usd_text(plan.hold_nano_usd),
                "max_tokens": plan.max_tokens,
            }
            for plan in shown.plans
        ],
        "rules": [
            {"key": key_text(rule.path), "rule": rule.says, "decided_by": shown_origin(wrote.get(rule.path))}
            for rule in shown.rules
        ],
    }


def print_changes(console: Console, changes: Sequence[Change]) -> None:
    """Print what differs in force."""
    if not changes:
        console.print("no difference in force")
        return
    table = Table(title=_plural(len(changes), "difference"), title_justify="left")
    for column in ("tenant", "key", "old", "new"):
        table.add_column(column, overflow="fold")
    for change in changes:
        sides = [escape("-" if side is None else side) for side in (change.old, change.new)]
        table.add_row(escape(change.tenant), escape(key_text(change.path)), *sides)
    console.print(table)


def _origin_in(origin: Origin | None, folder: Path) -> str:
    """Write who decided a value, files of the policy folder by their name there."""
    if origin is None or not Path(origin.file).is_relative_to(folder):
        return shown_origin(origin)
    return f"{Path(origin.file).relative_to(folder)}:{origin.line}"


def _findings_table(report: Report) -> Table:
    table = Table(show_lines=True)
    table.add_column("level", no_wrap=True)
    table.add_column("where and what", overflow="fold")
    for finding in report.findings:
        place = shown_file(finding.file) if finding.line is None else f"{shown_file(finding.file)}:{finding.line}"
        where = f"{place}  {finding.key}" if finding.key else place
        level = f"[{STYLES[finding.level]}]{finding.level}[/]"
        table.add_row(level, f"[bold]{escape(where)}[/]\n{escape(finding.message)} [dim]({finding.code})[/]")
    return table


def _tenants_table(policies: Sequence[TenantPolicy]) -> Table:
    table = Table()
    table.add_column("tenant", overflow="fold")
    table.add_column("version", no_wrap=True)
    table.add_column("tiers", overflow="fold")
    table.add_column("budgets", overflow="fold")
    for policy in policies:
        budgets = "\n".join(budget_text(budget) for budget in policy.budgets) or "-"
        table.add_row(escape(policy.tenant), policy.version, ", ".join(policy.tiers), escape(budgets))
    return table


def _finding_json(finding: Finding) -> dict[str, Any]:
    return {
        "level": finding.level,
        "code": finding.code,
        "file": finding.file,
        "line": finding.line,
        "key": finding.key,
        "message": finding.message,
    }


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
