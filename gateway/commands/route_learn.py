"""`headgate route learn status | promote | rollback`: what the router of a running gateway learned of its tenants."""

import argparse
from typing import Any

from gateway.commands.options import Subparsers, add_admin_url, add_config, add_json
from gateway.commands.printing import print_json

EXPLAINED = "Utilities are in units of quality: 0.01 is as good as one answer more in a hundred."


def add_parser(actions: "Subparsers[Any]") -> None:
    """Register `learn` among the actions of `route`."""
    parser = actions.add_parser(
        "learn",
        help="what the router learned from outcomes, and its trial",
        description="Talks to the admin listener of the running gateway with the admin key file.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    status = verbs.add_parser(
        "status",
        help="show the evidence and what is in force",
        description=EXPLAINED,
        epilog="example: headgate route learn status --tenant acme --json",
    )
    status.add_argument("--tenant", metavar="T", help="whose (default: all that learn)")
    status.set_defaults(run=run_status)
    promote = verbs.add_parser(
        "promote",
        help="put the candidate in force; refused while its evidence does not suffice",
        epilog="example: headgate route learn promote --tenant acme",
    )
    rollback = verbs.add_parser(
        "rollback",
        help="put the plain score back in force",
        epilog="example: headgate route learn rollback --tenant acme",
    )
    for verb, name in ((promote, "promote"), (rollback, "rollback")):
        verb.add_argument("--tenant", required=True, metavar="T", help="whose")
        verb.set_defaults(run=run_change, change=name)
    for verb in (status, promote, rollback):
        add_admin_url(verb)
        add_config(verb)
        add_json(verb)


def run_status(arguments: argparse.Namespace) -> int:
    """Print how learning stands."""
    from gateway.admin.client import open_client

    with open_client(arguments.config, arguments.admin_url) as client:
        tenants = client.get("/admin/learning", tenant=arguments.tenant)["tenants"]
    _print(arguments, tenants)
    return 0


def run_change(arguments: argparse.Namespace) -> int:
    """Promote or roll back; exit code 1 when that is refused."""
    from gateway.admin.client import open_client

    with open_client(arguments.config, arguments.admin_url) as client:
        status = client.post(f"/admin/learning/{arguments.change}", {"tenant": arguments.tenant})
    _print(arguments, [status])
    return 0


def _print(arguments: argparse.Namespace, tenants: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if arguments.json:
        print_json({"tenants": tenants})
        return
    table = Table(title="what the router learned", caption=EXPLAINED)
    for column in ("tenant", "in force", "outcomes", "candidate", "by users' words", "by comparison"):
        table.add_column(column)
    for one in tenants:
        table.add_row(
            escape(one["tenant"]),
            _version(one["in_force"], "the plain score"),
            str(one["outcomes"]),
            _version(one["candidate"], "none"),
            _evidence(one["said"]),
            _evidence(one["compared"]),
        )
    console.print(table)
    for one in tenants:
        console.print(f"{escape(one['tenant'])}: {escape(one['verdict'])}", soft_wrap=True)
    events = sorted((event["at"], one["tenant"], event) for one in tenants for event in one["events"])
    for at, tenant, event in events[-10:]:
        console.print(f"{at[:16].replace('T', ' ')} {escape(tenant)}: version {event['version']} {event['what']}")


def _version(number: int, none: str) -> str:
    return f"version {number}" if number else none


def _evidence(one: dict[str, Any] | None) -> str:
    if one is None or not one["rows"]:
        return "-"
    return f"{one['mean']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f}), {one['rows']} rows"
