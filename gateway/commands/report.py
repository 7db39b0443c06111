"""`headgate report`: a tenant's month as text, JSON or a printable page, from the running gateway."""

import argparse
from pathlib import Path
from typing import Any

from gateway.commands.options import Subparsers, add_admin_url, add_config, add_json
from gateway.commands.printing import print_json


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "report",
        help="show a tenant's month: spend, budgets, savings, hits, SLA, reasons",
        description="Asks the running gateway, whose ledger and request log the figures come from, and says where "
        "both differ and why.",
        epilog="example: headgate report --tenant acme --month 2026-11 --html acme-2026-11.html",
    )
    parser.add_argument("--tenant", required=True, help="the tenant's name")
    parser.add_argument("--month", metavar="YYYY-MM", help="a month of UTC (default: the present one)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a printable page instead")
    add_admin_url(parser)
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the report, or write the page."""
    from urllib.parse import quote

    import msgspec
    from rich.console import Console

    from core.errors import ConfigurationError
    from gateway.admin.client import open_client
    from gateway.reporting.report import TenantReport
    from gateway.reporting.shown import page_of, print_report

    with open_client(arguments.config, arguments.admin_url) as client:
        told = client.get(f"/admin/report/{quote(arguments.tenant, safe='')}", month=arguments.month)
    report = msgspec.convert(told, TenantReport)
    if arguments.html is not None:
        try:
            arguments.html.write_text(page_of(report), encoding="utf-8")
        except OSError as problem:
            reason = problem.strerror or "cannot be written"
            raise ConfigurationError("--html", "", f"{arguments.html}: {reason}", "choose another file") from problem
        print(arguments.html)
    elif arguments.json:
        print_json(told)
    else:
        print_report(Console(), report)
    return 0
