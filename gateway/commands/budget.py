"""`headgate budget show | grant | reset`: budgets of a running gateway, through its admin API."""

import argparse
from typing import Any

from gateway.commands.options import Subparsers, add_admin_url, add_config, add_json
from gateway.commands.printing import print_json


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "budget",
        help="show budgets of the running gateway, grant more, or begin anew",
        description="Talks to the admin listener of the running gateway with the admin key file.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="show what is left", epilog="example: headgate budget show --tenant acme")
    show.add_argument("--tenant", help="only this tenant's")
    show.set_defaults(run=run_show)
    grant = actions.add_parser(
        "grant",
        help="add to a limit until its present window ends",
        epilog="example: headgate budget grant --tenant acme --window month --usd 50",
    )
    _add_selector(grant)
    grant.add_argument("--usd", required=True, metavar="AMOUNT", help="how much; negative takes an earlier grant back")
    grant.set_defaults(run=run_grant)
    reset = actions.add_parser(
        "reset",
        help="grant what was spent, so that the present window begins anew",
        epilog="example: headgate budget reset --tenant acme --window day",
    )
    _add_selector(reset)
    reset.set_defaults(run=run_reset)
    for action in (show, grant, reset):
        add_admin_url(action)
        add_config(action)
        add_json(action)


def run_show(arguments: argparse.Namespace) -> int:
    """Print the balances."""
    from gateway.admin.client import open_client

    path = "/admin/budgets" if arguments.tenant is None else f"/admin/budgets/{_quoted(arguments.tenant)}"
    with open_client(arguments.config, arguments.admin_url) as client:
        return _print(client.get(path), as_json=arguments.json)


def run_grant(arguments: argparse.Namespace) -> int:
    """Add to a limit and print what is left."""
    return _change(arguments, "grant", {"amount_usd": arguments.usd})


def run_reset(arguments: argparse.Namespace) -> int:
    """Make a window begin anew and print what is left."""
    return _change(arguments, "reset", {})


def _change(arguments: argparse.Namespace, action: str, body: dict[str, object]) -> int:
    """Post a change under an id of its own, so that sending it again does not make it twice."""
    from secrets import token_hex

    from gateway.admin.client import open_client

    named = {name: getattr(arguments, name) for name in ("window", "key_id", "user", "tier")}
    body |= {name: value for name, value in named.items() if value is not None} | {"grant_id": token_hex(16)}
    if arguments.rolling:
        body["rolling"] = True
    with open_client(arguments.config, arguments.admin_url) as client:
        answer = client.post(f"/admin/budgets/{_quoted(arguments.tenant)}/{action}", body)
    return _print(answer, as_json=arguments.json)


def _add_selector(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tenant", required=True, help="whose budget")
    parser.add_argument("--window", choices=("minute", "hour", "day", "week", "month"), help="which, if several")
    parser.add_argument("--rolling", action="store_true", help="the rolling one of that length")
    parser.add_argument("--key", dest="key_id", metavar="KEY_ID", help="of a budget per key")
    parser.add_argument("--user", metavar="NAME", help="of a budget per end user")
    parser.add_argument("--tier", metavar="TIER", help="of a budget of one tier")


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


def _print(answer: dict[str, Any], *, as_json: bool) -> int:
    from rich.console import Console
    from rich.table import Table

    lines = answer["budgets"]
    console = Console()
    if as_json:
        print_json(lines)
        return 0
    table = Table(title="USD in the present windows")
    table.add_column("budget")
    for column in ("limit", "reserved", "spent", "free"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("ends (UTC)")
    for line in lines:
        scope = [str(line[name]) for name in ("tenant", "tier", "key_id", "user") if line[name] is not None]
        window = f"{'rolling ' if line['rolling'] else ''}{line['window']}{' (soft)' if line['soft'] else ''}"
        amounts = [line[f"{name}_usd"] for name in ("limit", "reserved", "spent", "free")]
        table.add_row(f"{' / '.join(scope)}: {window}", *amounts, line["ends_at"][:16])
    console.print(table)
    return 0
