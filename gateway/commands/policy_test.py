"""`headgate policy test`: run every policy's own examples and say which do not come out as expected."""

import argparse
from typing import TYPE_CHECKING, Any

from gateway.commands.options import Subparsers, add_config, add_json
from gateway.commands.printing import print_json

if TYPE_CHECKING:
    from gateway.whatif.policy_examples import Tried


def add_test(actions: "Subparsers[Any]") -> None:
    """Register the command."""
    test = actions.add_parser(
        "test",
        help="run the examples that policies carry",
        description="Plan each request under `examples` with everything ready and money left, and compare it with "
        "what is expected. Exit code 1 when one differs.",
        epilog="example: headgate policy test acme",
    )
    test.add_argument("tenant", nargs="?", metavar="TENANT", help="the tenant's name (default: all)")
    add_config(test)
    add_json(test)
    test.set_defaults(run=run_test)


def run_test(arguments: argparse.Namespace) -> int:
    """Print what became of each example; 1 when one is not as expected."""
    from rich.console import Console

    from gateway.settings.operator import load_policy_set, load_settings
    from gateway.whatif.dry_run import offline_judge
    from gateway.whatif.policy_examples import try_examples
    from gateway.whatif.policy_report import catalogue, tenant_in_force

    settings = load_settings(arguments.config)
    policies = load_policy_set(settings)
    names = policies.tenants() if arguments.tenant is None else (arguments.tenant,)
    tenants = [tenant_in_force(settings, policies, name) for name in names]
    registry, (judge, _) = catalogue(settings), offline_judge(settings.pair)
    tried = {one.policy.tenant: try_examples(policies, one, registry, judge) for one in tenants if one.policy.examples}
    if arguments.json:
        print_json(tried)
    else:
        _print(Console(), tried)
    return 1 if any(one.missed for results in tried.values() for one in results) else 0


def _print(console: Any, tried: "dict[str, tuple[Tried, ...]]") -> None:
    from rich.markup import escape
    from rich.table import Table

    if not tried:
        console.print("no policy has `examples`")
        return
    for tenant, results in tried.items():
        table = Table(title=f"examples of {escape(tenant)}", title_justify="left")
        for column in ("no.", "tier", "deployment", "rule", "reason", ""):
            table.add_column(column, overflow="fold")
        for one in results:
            verdict = "[bold red]" + escape("; ".join(one.missed)) + "[/]" if one.missed else "as expected"
            cells = (str(one.number), one.tier or "-", one.deployment or "-", one.rule or "-", one.reason)
            table.add_row(*map(escape, cells), verdict)
        console.print(table)
