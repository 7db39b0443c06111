"""A tenant's report for a terminal, and as one printable page that loads nothing."""

from html import escape
from string import Template

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table

from gateway.reporting.report import TenantReport
from gateway.reporting.words import Section, sections_of

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title><style>
body { font: 15px/1.45 system-ui, sans-serif; color: #1b1f24; background: #fff; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin: 1.8rem 0 .4rem }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid #d6dbe1; vertical-align: top }
td.figure { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap } p { color: #4a5460 }
@media print { body { margin: 0; font-size: 11px } section { break-inside: avoid } }
</style></head><body><main><h1>$title</h1><p>$made</p>$sections</main></body></html>
""")
_FIGURES = frozenset("0123456789-<+")


def print_report(console: Console, report: TenantReport) -> None:
    """Print every section as a table."""
    console.print(f"[bold]{escape_markup(_title(report))}[/]")
    for section in sections_of(report):
        table = Table(title=escape_markup(section.title), title_justify="left", show_header=any(section.columns))
        for at, column in enumerate(section.columns):
            table.add_column(escape_markup(column), justify="right" if _is_figure(section, at) else "left")
        for row in section.rows:
            table.add_row(*map(escape_markup, row))
        console.print(table)
        if section.note:
            console.print(escape_markup(section.note))


def page_of(report: TenantReport) -> str:
    """Return the page as HTML; every name in it is escaped."""
    sections = "".join(_section(section) for section in sections_of(report))
    made = f"Made {report.made_at:%Y-%m-%d %H:%M} UTC. Days are those of UTC; savings are told in docs/reports.md."
    return _PAGE.substitute(title=escape(_title(report)), made=escape(made), sections=sections)


def _title(report: TenantReport) -> str:
    return f"{report.tenant}, {report.month}"


def _section(section: Section) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in section.columns)
    rows = "".join(f"<tr>{_cells(section, row)}</tr>" for row in section.rows)
    table = f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>" if any(section.columns) else f"<tbody>{rows}</tbody>"
    note = f"<p>{escape(section.note)}</p>" if section.note else ""
    return f'<section><h2>{escape(section.title)}</h2><div class="scroll"><table>{table}</table></div>{note}</section>'


def _cells(section: Section, row: tuple[str, ...]) -> str:
    return "".join(
        f'<td class="figure">{escape(cell)}</td>' if _is_figure(section, at) else f"<td>{escape(cell)}</td>"
        for at, cell in enumerate(row)
    )


def _is_figure(section: Section, at: int) -> bool:
    """Tell whether a column holds figures: its first cell begins like one, and it is not the first column."""
    cells = [row[at] for row in section.rows if row[at]]
    return at > 0 and bool(cells) and cells[0][0] in _FIGURES and " " not in cells[0]
