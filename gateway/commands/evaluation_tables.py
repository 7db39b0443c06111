"""Evaluations as tables for people and as JSON for scripts."""

from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backends.engines.evaluation import Evaluation, Speed
from core.money import NANO_PER_USD


def print_evaluation(result: Evaluation, file: Path | None) -> None:
    """Print accuracy by family, speed and cost of both models, and whether the thresholds were reached."""
    console = Console()
    own, other = escape(result.subject.name), escape(result.reference.name)
    table = Table(title=f"{own} beside {other}, {escape(result.suite)}", title_justify="left")
    table.add_column("family", no_wrap=True)
    for column in ("tasks", own, other, "agreement"):
        table.add_column(column, justify="right")
    for one in result.families:
        table.add_row(
            escape(one.family),
            str(one.tasks),
            _share(one.accuracy),
            _share(one.reference_accuracy),
            _share(one.agreement),
        )
    table.add_section()
    table.add_row(
        "all", str(result.tasks), _share(result.accuracy), _share(result.reference_accuracy), _share(result.agreement)
    )
    console.print(table)
    console.print(_speeds(own, other, result))
    where = "nowhere, as no recipe of this file served it" if file is None else str(file)
    console.print(f"{escape(_identity(result))}; kept in {escape(where)}", soft_wrap=True, highlight=False)
    if result.passed is not None:
        verdict = "[green]passed[/]" if result.passed else f"[red]not passed[/]: {'; '.join(result.shortfalls)}"
        console.print(verdict, soft_wrap=True, highlight=False)


def evaluation_json(result: Evaluation) -> str:
    """Return the evaluation and its verdict as JSON."""
    content = {**msgspec.to_builtins(result), "passed": result.passed, "shortfalls": result.shortfalls}
    return msgspec.json.format(msgspec.json.encode(content)).decode()


def verdict_text(result: Evaluation) -> str:
    """Return an evaluation in a line of `headgate models list`."""
    known = "" if result.accuracy is None else f"{result.accuracy:.3f} right, "
    mark = {True: " ✓", False: " ✗", None: ""}[result.passed]
    return f"{known}{result.agreement:.3f} as {result.reference.name}{mark}"


def _speeds(own: str, other: str, result: Evaluation) -> Table:
    table = Table(title=f"{result.concurrency} questions at a time, through the {result.through}", title_justify="left")
    table.add_column("", no_wrap=True)
    for column in ("TTFT p50 ms", "p95", "tokens/s", "USD per 1000 answers", "unanswered"):
        table.add_column(column, justify="right")
    for name, speed in ((own, result.speed), (other, result.reference_speed)):
        table.add_row(name, *_figures(speed))
    return table


def _figures(speed: Speed) -> tuple[str, ...]:
    usd_per_thousand = speed.mean_cost_nano_usd * 1000 / NANO_PER_USD
    figures = (speed.ttft_ms_p50, speed.ttft_ms_p95, speed.output_tokens_per_s)
    return (*(f"{figure:.1f}" for figure in figures), f"{usd_per_thousand:.6f}", str(speed.unanswered))


def _identity(result: Evaluation) -> str:
    of = result.subject
    return f"weights {of.weights_digest or 'unknown'}, {of.engine}, {of.precision}"


def _share(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}"
