"""The score of a run, as a table for people and as JSON for scripts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from gateway.faults.verdicts import Verdict

Side = Literal["client", "upstream", "inside"]
SIDES: tuple[Side, ...] = get_args(Side)


@dataclass(frozen=True, slots=True)
class Score:
    """How many cases are right on one side, and of how many; both are 0 where the side cannot be seen."""

    right: int
    of: int


@dataclass(frozen=True, slots=True)
class CaseReport:
    """One case; `seen` is `whole`, `refused`, `told`, `broken`, `hung`, `left` or `silent`."""

    group: str
    case: str
    script: str
    should_see: str
    seen: str
    status: int
    upstream_states: tuple[str, ...]
    client: tuple[str, ...]
    upstream: tuple[str, ...]
    inside: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class FaultReport:
    """All cases and the score per side; `inside` is for gateways whose books are open."""

    gateway: str
    score: dict[Side, Score]
    cases: tuple[CaseReport, ...]


def report(gateway: str, verdicts: Sequence[Verdict]) -> FaultReport:
    """Return what a run found."""
    return FaultReport(
        gateway, {side: score(verdicts, side) for side in SIDES}, tuple(_case(verdict) for verdict in verdicts)
    )


def score(verdicts: Iterable[Verdict], side: Side) -> Score:
    """Return the score of one side."""
    wrongs = [wrong for verdict in verdicts if (wrong := getattr(verdict, side)) is not None]
    return Score(sum(not wrong for wrong in wrongs), len(wrongs))


def print_report(verdicts: Sequence[Verdict], console: Console) -> None:
    """Print the score by group, then what was wrong."""
    table = Table(title="what was right, by side", box=SIMPLE_HEAD)
    table.add_column("faults")
    for side in SIDES:
        table.add_column(side, justify="right")
    groups = dict.fromkeys(verdict.case.group for verdict in verdicts)
    for group in groups:
        own = [verdict for verdict in verdicts if verdict.case.group == group]
        table.add_row(group, *(_ratio(score(own, side)) for side in SIDES))
    table.add_section()
    table.add_row("all", *(_ratio(score(verdicts, side)) for side in SIDES), style="bold")
    console.print(table)
    for verdict in verdicts:
        for side in SIDES:
            for wrong in getattr(verdict, side) or ():
                console.print(f"[red]✗[/] {verdict.case.group}: {verdict.case.id}: the {side} {wrong}", highlight=False)


def _ratio(one: Score) -> str:
    return f"{one.right} / {one.of}" if one.of else "–"


def _case(verdict: Verdict) -> CaseReport:
    case, seen = verdict.case, verdict.seen
    return CaseReport(
        group=case.group,
        case=case.id,
        script=case.script,
        should_see=case.sees.value,
        seen=seen.kind,
        status=seen.status,
        upstream_states=verdict.released.states,
        client=tuple(verdict.client),
        upstream=tuple(verdict.upstream),
        inside=None if verdict.inside is None else tuple(verdict.inside),
    )
