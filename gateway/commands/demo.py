"""`headgate demo`: six requests that show what the gateway does, against one that runs."""

import argparse
from typing import Any

from gateway.commands.options import Subparsers, add_json
from gateway.commands.printing import print_json


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "demo",
        help="show routing, cache and budget on a running gateway",
        description="Send six requests to a running gateway and print who answered, why, and at what cost.",
        epilog="example: headgate demo --url http://127.0.0.1:8080 --key $KEY --poor-key $POOR_KEY",
    )
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the gateway (default: %(default)s)")
    parser.add_argument("--key", required=True, help="a key of a tenant with budget, such as `demo`")
    parser.add_argument("--poor-key", required=True, help="a key of a tenant without budget, such as `demo-tiny`")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demonstration and print its table; exit code 1 when a step did not do what it shows."""
    import asyncio

    from gateway.demonstration import demonstrate, print_table

    steps = asyncio.run(demonstrate(arguments.url, arguments.key, arguments.poor_key))
    if arguments.json:
        print_json(steps)
    else:
        print_table(steps)
    return 0 if all(step.as_expected for step in steps) else 1
