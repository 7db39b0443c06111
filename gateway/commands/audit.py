"""`headgate audit show | verify`: who changed what by command or admin API, and whether the record is whole."""

import argparse
import re
from typing import Any

from gateway.commands.options import Subparsers, add_config, add_json
from gateway.commands.printing import print_json

_HEAD = re.compile(r"([0-9]{1,15}):([0-9a-f]{64})\Z")


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser("audit", help="show and check the record of changes")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser(
        "show", help="show the newest changes", epilog="example: headgate audit show --last 50 --json"
    )
    show.add_argument("--last", type=int, default=20, metavar="N", help="how many (default: %(default)s)")
    add_config(show)
    add_json(show)
    show.set_defaults(run=run_show)
    verify = actions.add_parser(
        "verify",
        help="follow the chain of hashes and print its head",
        description="Note the head that is printed: with --expect, a later run finds entries that were cut off since.",
        epilog="example: headgate audit verify --json",
    )
    verify.add_argument("--expect", type=_head, metavar="SEQ:HASH", help="a head that was printed before")
    add_config(verify)
    add_json(verify)
    verify.set_defaults(run=run_verify)


def run_show(arguments: argparse.Namespace) -> int:
    """Print changes, oldest first."""
    from rich.console import Console
    from rich.table import Table

    from core.clock import SystemClock
    from gateway.admin.local import open_audit
    from gateway.admin.state_routes import audit_row
    from gateway.settings.operator import load_settings
    from policies.pepper import load_pepper

    settings = load_settings(arguments.config)
    with open_audit(settings, load_pepper(settings.pepper_file), SystemClock()) as audit:
        rows = [audit_row(entry) for entry in audit.log.entries(max(1, arguments.last))]
    console = Console()
    if arguments.json:
        print_json(rows)
        return 0
    table = Table(title=f"the last {len(rows)} changes")
    for column in ("no.", "when (UTC)", "who", "what", "outcome"):
        table.add_column(column, no_wrap=column == "what")
    for row in rows:
        who = f"{row.actor} ({row.role}) from {row.source}"
        table.add_row(str(row.seq), row.at[:16].replace("T", " "), who, f"{row.action} {row.target[:40]}", row.outcome)
    console.print(table)
    return 0


def run_verify(arguments: argparse.Namespace) -> int:
    """Print the head; exit code 1 when the record is not what was written."""
    import sys

    from core.clock import SystemClock
    from gateway.admin.local import open_audit
    from gateway.settings.operator import load_settings
    from policies.pepper import load_pepper

    settings = load_settings(arguments.config)
    with open_audit(settings, load_pepper(settings.pepper_file), SystemClock()) as audit:
        verdict = audit.log.verify(arguments.expect)
    if arguments.json:
        found = {"valid": verdict.problem is None, "rows": verdict.rows, "head": verdict.head}
        print_json(found | {"problem": verdict.problem})
    elif verdict.problem is None:
        print(f"{verdict.rows} entries are as they were written; head {verdict.head}")
    else:
        print(f"headgate: {verdict.problem}; {verdict.rows} entries before are right", file=sys.stderr)
    return 0 if verdict.problem is None else 1


def _head(text: str) -> tuple[int, bytes]:
    match = _HEAD.match(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not SEQ:HASH as `headgate audit verify` prints it")
    return int(match[1]), bytes.fromhex(match[2])
