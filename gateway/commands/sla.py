"""`headgate sla report`: how well every tenant's latency SLA was kept, and what its rescue cost."""

import argparse
from typing import Any

from gateway.commands.options import Subparsers, add_admin_url, add_config, add_json
from gateway.commands.printing import print_json

RANGES = ("15m", "1h", "6h", "24h", "7d", "30d")


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser("sla", help="report how well latency SLAs are kept")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    report = actions.add_parser(
        "report",
        help="attainment, error budget, burn rates, percentiles, goodput and the cost of rescue",
        description="Asks the admin listener of the running gateway. A request is judged when its plan had limits to "
        "keep, and missed them when it was late, was cut, or failed; answers from the cache are not judged. The burn "
        "rate says how fast the error budget (1 - objective) is used: at 1 it lasts just as long as its window. The "
        "exit code is 1 when an error budget is used up.",
        epilog="example: headgate sla report --tenant acme --range 24h",
    )
    report.add_argument("--tenant", help="only this tenant, also without an SLA")
    report.add_argument("--range", choices=RANGES, default="7d", help="how far back (default: %(default)s)")
    add_admin_url(report)
    add_config(report)
    add_json(report)
    report.set_defaults(run=run_report)


def run_report(arguments: argparse.Namespace) -> int:
    """Print the report; exit code 1 when an error budget is used up."""
    from rich.console import Console

    from gateway.admin.client import open_client

    with open_client(arguments.config, arguments.admin_url) as client:
        report = client.get("/admin/sla", range=arguments.range, tenant=arguments.tenant)
    console = Console()
    if arguments.json:
        print_json(report)
    elif report["lines"]:
        console.print(_attainment(report["lines"], arguments.range))
        console.print(_latencies(report["lines"]))
    else:
        console.print("no request had an SLA to keep; `sla` in a tenant's policy sets one", highlight=False)
    return 1 if any((line["budget_left_ratio"] or 0) < 0 for line in report["lines"]) else 0


def _attainment(lines: list[dict[str, Any]], range_name: str) -> Any:
    from rich.table import Table

    table = Table(title=f"SLAs over {range_name} (burn rate: 1 uses the error budget up just in time)")
    table.add_column("tenant")
    table.add_column("tier")
    for column in ("judged", "missed", "kept", "objective", "budget left", "burn 1h", "6h", "3d", "goodput/s"):
        table.add_column(column, justify="right", no_wrap=True)
    for line in lines:
        burn = [_number(line["burn_rates"][name], "{:.1f}") for name in ("1h", "6h", "3d")]
        table.add_row(
            line["tenant"],
            line["tier"] or "–",
            f"{line['judged']:,}",
            f"{line['missed']:,}",
            _number(line["attainment_ratio"], "{:.2%}"),
            f"{line['objective_ratio']:.2%}",
            _left(line["budget_left_ratio"]),
            *burn,
            f"{line['goodput_per_s']:.3g}",
        )
    return table


def _latencies(lines: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title="p50 / p95 / p99 in ms (limit), and rescues (USD beyond the answers)")
    for column in ("tenant", "tier"):
        table.add_column(column)
    for column in ("TTFT", "TPOT", "total", "retries", "hedges", "fallbacks"):
        table.add_column(column, justify="right")
    for line in lines:
        table.add_row(
            line["tenant"],
            line["tier"] or "–",
            _percentiles(line["ttft_ms"], line["ttft_limit_ms"]),
            _percentiles(line["tpot_ms"], None),
            _percentiles(line["total_ms"], line["total_limit_ms"]),
            *(_rescued(line[kind]) for kind in ("retries", "hedges", "fallbacks")),
        )
    return table


def _percentiles(values: dict[str, float | None], limit_ms: int | None) -> str:
    shown = " / ".join(_number(values[name], "{:.3g}" if (values[name] or 0) < 100 else "{:.0f}") for name in values)
    return shown if limit_ms is None else f"{shown} ({limit_ms})"


def _rescued(rescued: dict[str, int]) -> str:
    from decimal import Decimal

    from core.money import NANO_PER_USD

    return f"{rescued['count']:,} ({Decimal(rescued['cost_nano_usd']) / NANO_PER_USD:.6f})" if rescued["count"] else "0"


def _left(ratio: float | None) -> str:
    if ratio is None:
        return "–"
    return f"[red]{ratio:.0%}[/]" if ratio < 0 else f"{ratio:.0%}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
