"""A comparison as tables for a terminal."""

from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.money import usd_text
from gateway.whatif.comparison import Comparison, Estimate, TenantComparison


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print every tenant, and what to keep in mind."""
    first, last = (datetime.fromtimestamp(at, UTC) for at in (comparison.first_at_s, comparison.last_at_s))
    for one in comparison.tenants:
        console.print(_table(one, f"{escape(one.tenant)}, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"))
        counts = ", ".join(f"{code} {count}" for code, count in one.refusals.items())
        console.print(
            f"{one.kept_ratio:.0%} of requests stay as they were; {one.imputed} decisions imputed, "
            f"{one.unmeasured} answers by a deployment that the log does not know"
            + (f"; refused or failed: {escape(counts)}" if counts else "")
        )
    answers = ", ".join(f"{escape(name)} {count:,}" for name, count in comparison.donors.items())
    console.print(
        f"lent by {answers or 'nobody'}; lending errs by {comparison.lending_cost_error_ratio:.1%} of cost and "
        f"{100 * comparison.lending_sla_error:.1f} points of attainment where it can be checked"
    )
    for note in comparison.notes:
        console.print(f"note: {escape(note)}")


def _table(one: TenantComparison, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in ("then", "now", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    then, now = one.then, one.now
    rows: list[tuple[str, float | None, Estimate | None, str]] = [
        ("cost, USD", then.cost_nano_usd, now.cost_nano_usd, "usd"),
        *((f"answered by {tier}", then.shares[tier], share, "ratio") for tier, share in now.shares.items()),
        ("within SLA", then.sla_attainment, now.sla_attainment, "ratio"),
        ("cache hits", then.hits, now.hits, "count"),
        ("refused", then.refused, now.refused, "count"),
    ]
    table.add_row("requests", f"{then.requests:,}", "", "")
    for name, was, is_, kind in rows:
        table.add_row(
            escape(name), _shown(was, kind), _shown(None if is_ is None else is_.value, kind), _span(is_, kind)
        )
    return table


def _shown(value: float | None, kind: str) -> str:
    if value is None:
        return "-"
    if kind == "usd":
        return usd_text(round(value / 1_000) * 1_000)
    return f"{value:.1%}" if kind == "ratio" else f"{value:,.0f}"


def _span(estimate: Estimate | None, kind: str) -> str:
    if estimate is None or estimate.low is None:
        return "too few requests"
    return f"{_shown(estimate.low, kind)} to {_shown(estimate.high, kind)}"
