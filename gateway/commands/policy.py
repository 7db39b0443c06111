"""`headgate policy check`: read the operator's file and every policy, and say what is wrong."""

import argparse
from typing import Any

from gateway.commands.options import Subparsers, add_config, add_json


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser("policy", help="check the configuration and the tenants' policies")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="say what is wrong, without starting anything",
        epilog="example: headgate policy check --config headgate.yaml",
    )
    add_config(check)
    add_json(check)
    check.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one row per tenant, or fail with the one line that start-up would print."""
    import msgspec
    from rich.console import Console
    from rich.table import Table

    from gateway.settings import load_policy_set, load_settings

    policies = load_policy_set(load_settings(arguments.config))
    console = Console()
    if arguments.json:
        versions = {name: policy.version for name, policy in policies.policies.items()}
        console.print_json(msgspec.json.encode({"valid": True, "tenants": versions}).decode())
        return 0
    table = Table(title=f"{len(policies.tenants())} tenants, all valid")
    for column in ("tenant", "version", "tiers", "models", "budgets"):
        table.add_column(column)
    for name, policy in policies.policies.items():
        budgets = ", ".join(f"{budget.window} {budget.limit_nano_usd / 1e9:g} USD" for budget in policy.budgets) or "-"
        table.add_row(name, policy.version, ", ".join(policy.tiers), ", ".join(policy.models) or "-", budgets)
    console.print(table)
    return 0
