"""How the commands about prices print: tables that fit 80 columns, and the same content as JSON values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.errors import ConfigurationError
from core.money import NANO_PER_USD
from gateway.hosting.engine_hours import EngineCost
from policies.measured_price import MeasuredPrice, Sample
from policies.price_import import Imported, written_usd
from policies.price_table import PriceRow

COLUMNS = {
    "input": "input_usd_per_m",
    "cached": "cached_input_usd_per_m",
    "output": "output_usd_per_m",
    "reasoning": "reasoning_usd_per_m",
    "a request": "usd_per_request",
}


def print_rows(rows: Sequence[PriceRow], title: str) -> None:
    """Print prices; columns that no row fills are left out."""
    written = [written_usd(row.price) for row in rows]
    columns = {shown: name for shown, name in COLUMNS.items() if any(name in usd for usd in written)}
    table = Table(title=title, title_justify="left")
    table.add_column("model", overflow="fold")
    for shown in columns:
        table.add_column(shown, justify="right", no_wrap=True)
    table.add_column("as of", no_wrap=True)
    table.add_column("source", overflow="fold")
    for row, usd in zip(rows, written, strict=True):
        figures = [usd.get(name, "-") for name in columns.values()]
        table.add_row(escape(row.model), *figures, row.as_of.isoformat(), escape(row.source))
    Console().print(table)


def print_imported(imported: Imported, title: str) -> None:
    """Print what comes and what changes."""
    console = Console()
    console.print(
        f"{escape(title)} {len(imported.added)} new, {len(imported.changed)} changed, {imported.unchanged} the same, "
        f"{len(imported.left_out)} left out",
        soft_wrap=True,
    )
    if imported.changed:
        table = Table(title="changed", title_justify="left")
        for column in ("model", "old", "new"):
            table.add_column(column, overflow="fold")
        for old, new in imported.changed:
            table.add_row(escape(new.model), _figures_text(old), _figures_text(new))
        console.print(table)
    if imported.added:
        print_rows(imported.added, "new: USD per million tokens")
    if imported.left_out:
        names = ", ".join(imported.left_out[:10]) + (" and more" if len(imported.left_out) > 10 else "")
        console.print(f"left out, since their prices have parts that a row cannot say: {escape(names)}")


def print_measured(measured: MeasuredPrice, where: str) -> None:
    """Print a measurement and the prices that follow from it."""
    console = Console()
    table = Table(title=escape(measured.recipe), title_justify="left")
    table.add_column("a million tokens", no_wrap=True)
    table.add_column("CPU seconds" if measured.unit == "core" else "GPU seconds", justify="right", no_wrap=True)
    table.add_column("USD", justify="right", no_wrap=True)
    table.add_row("input", f"{measured.cpu_s_per_m_input:f}", f"{measured.input_usd_per_m:f}")
    table.add_row("output", f"{measured.cpu_s_per_m_output:f}", f"{measured.output_usd_per_m:f}")
    console.print(table)
    console.print(
        f"{escape(measured.engine)}, {measured.precision}, {measured.concurrency} requests at a time, "
        f"{measured.cores} {measured.unit}s at {measured.hourly_usd:f} USD an hour; {escape(where)}",
        soft_wrap=True,
        highlight=False,
    )


def measured_json(measured: MeasuredPrice, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return a measurement and the stretches of work behind it as JSON values."""
    rows = [
        {"input_tokens": one.input_tokens, "output_tokens": one.output_tokens, "cpu_s": float(one.cpu_s)}
        for one in samples
    ]
    return {**measured.figures(), "samples": rows}


def print_hosted(costs: Mapping[str, EngineCost], title: str) -> None:
    """Print what hosted engines cost, marginal and fully loaded."""
    table = Table(title=title, title_justify="left", pad_edge=False, collapse_padding=True)
    table.add_column("engine", no_wrap=True)
    for column in ("up h", "busy h", "tokens", "marginal", "held", "idle", "loaded"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, cost in costs.items():
        use = cost.use
        table.add_row(
            escape(name),
            f"{use.up_s / 3600:.2f}",
            f"{use.busy_s / 3600:.2f}",
            f"{use.input_tokens + use.output_tokens:,}",
            *(_usd_cell(amount) for amount in (use.marginal_nano_usd, cost.held_nano_usd, cost.idle_nano_usd)),
            "-" if cost.ratio is None else f"{cost.ratio:.2f}",
        )
    Console().print(table)


def hosted_json(costs: Mapping[str, EngineCost]) -> list[dict[str, Any]]:
    """Return what hosted engines cost as JSON values; amounts are whole nano-USD."""
    return [
        {
            "engine": name,
            **asdict(cost.use),
            "held_nano_usd": cost.held_nano_usd,
            "idle_nano_usd": cost.idle_nano_usd,
            "loaded_ratio": cost.ratio,
        }
        for name, cost in costs.items()
    ]


def _usd_cell(nano_usd: int | None) -> str:
    return "-" if nano_usd is None else f"{nano_usd / NANO_PER_USD:.6f}"


def print_errors(errors: Sequence[ConfigurationError]) -> None:
    """Print errors, one line each."""
    console = Console()
    for error in errors:
        console.print(f"[bold red]error[/] {escape(error.message)}", soft_wrap=True, highlight=False)
    console.print(f"{len(errors)} error{'' if len(errors) == 1 else 's'}")


def row_json(row: PriceRow) -> dict[str, Any]:
    """Return a row as JSON values; amounts are decimal text."""
    return {
        "model": row.model,
        "also": list(row.also),
        "as_of": row.as_of.isoformat(),
        "source": row.source,
        **written_usd(row.price),
    }


def imported_json(imported: Imported) -> dict[str, Any]:
    """Return an import as JSON values."""
    return {
        "added": [row_json(row) for row in imported.added],
        "changed": [{"old": row_json(old), "new": row_json(new)} for old, new in imported.changed],
        "unchanged": imported.unchanged,
        "left_out": list(imported.left_out),
    }


def _figures_text(row: PriceRow) -> str:
    names = {name: shown for shown, name in COLUMNS.items()}
    return ", ".join(f"{names[name]} {usd}" for name, usd in written_usd(row.price).items())
