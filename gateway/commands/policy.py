"""`headgate policy check | explain | test | diff | schema`: what the configuration says, and what is wrong with it."""

import argparse
from pathlib import Path
from typing import Any

from gateway.commands.options import Subparsers, add_config, add_json
from gateway.commands.policy_test import add_test
from gateway.commands.printing import print_json


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the commands."""
    parser = subparsers.add_parser("policy", help="check, explain and compare the tenants' policies")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_check(actions)
    _add_explain(actions)
    add_test(actions)
    diff = actions.add_parser(
        "diff",
        help="say what differs in force between two policy folders",
        description="Compare effective policies, whatever their spelling and files; exit code 1 when they differ.",
        epilog="example: headgate policy diff policies/tenants ../review/policies/tenants",
    )
    diff.add_argument("old", type=Path, metavar="OLD", help="a policy folder")
    diff.add_argument("new", type=Path, metavar="NEW", help="another one")
    add_config(diff)
    add_json(diff)
    diff.set_defaults(run=run_diff)
    schema = actions.add_parser(
        "schema",
        help="print the JSON Schema of policy files, for editors",
        description="Print the JSON Schema of the tenants' files, or of the operator's file.",
        epilog="example: headgate policy schema > policy.schema.json",
    )
    schema.add_argument("--operator", action="store_true", help="the operator's file instead of the tenants'")
    schema.set_defaults(run=run_schema)


def _add_check(actions: "Subparsers[Any]") -> None:
    check = actions.add_parser(
        "check",
        help="say what is wrong or does no good, without starting anything",
        description="Read the operator's file and every policy. Exit code 2 with errors, 0 with warnings alone.",
        epilog="example: headgate policy check --config headgate.yaml --strict",
    )
    add_config(check)
    check.add_argument("--strict", action="store_true", help="exit with 1 when there are warnings")
    check.add_argument(
        "--measurements",
        type=Path,
        metavar="FILE",
        help="request log to compare SLAs with (default: the one beside the state, if there is one)",
    )
    add_json(check)
    check.set_defaults(run=run_check)


def _add_explain(actions: "Subparsers[Any]") -> None:
    explain = actions.add_parser(
        "explain",
        help="show a tenant's effective policy and which line decided each value",
        description="Show the policy in force, and with --request how a chat request would fare under it.",
        epilog="example: headgate policy explain demo --request request.json",
    )
    explain.add_argument("tenant", metavar="TENANT", help="the tenant's name")
    explain.add_argument("--request", type=Path, metavar="FILE", help="a chat request as JSON, as an app would send it")
    add_config(explain)
    add_json(explain)
    explain.set_defaults(run=run_explain)


def run_check(arguments: argparse.Namespace) -> int:
    """Print what was found; 2 with errors, 1 with warnings under --strict, else 0."""
    from rich.console import Console

    from core.clock import SystemClock
    from gateway.commands.policy_tables import print_report, report_json
    from gateway.whatif.policy_report import examine

    report = examine(arguments.config, arguments.measurements, SystemClock().now().date())
    if arguments.json:
        print_json(report_json(report))
    else:
        print_report(Console(), report)
    if report.count("error"):
        return 2
    return 1 if arguments.strict and report.count("warning") else 0


def run_explain(arguments: argparse.Namespace) -> int:
    """Print the policy in force, and how the request would fare."""
    from rich.console import Console

    from gateway.commands.policy_tables import decided_json, preview_json, print_decided, print_preview
    from gateway.settings.operator import load_policy_set, load_settings
    from gateway.whatif.policy_report import catalogue, tenant_in_force
    from gateway.whatif.request_preview import preview, read_request
    from policies.explaining import decided

    settings = load_settings(arguments.config)
    policies = load_policy_set(settings)
    tenant = tenant_in_force(settings, policies, arguments.tenant)
    rows = decided(tenant.policy, tenant.wrote)
    shown = None
    if arguments.request is not None:
        request = read_request(arguments.request)
        shown = preview(policies, arguments.tenant, request, catalogue(settings))
    if arguments.json:
        content = {"tenant": arguments.tenant, "version": tenant.policy.version, "values": decided_json(rows)}
        if shown is not None:
            content["request"] = preview_json(shown, tenant.wrote)
        print_json(content)
        return 0
    console = Console()
    print_decided(console, f"policy of {arguments.tenant}, version {tenant.policy.version}", rows, settings.policies)
    if shown is not None:
        print_preview(console, shown, tenant.wrote, settings.policies)
    return 0


def run_diff(arguments: argparse.Namespace) -> int:
    """Print the differences; 1 when there are any, as `diff` does."""
    from rich.console import Console

    from gateway.commands.policy_tables import print_changes
    from gateway.settings.operator import load_settings
    from policies.documents import key_text
    from policies.explaining import differences
    from policies.loading import load_policies

    settings = load_settings(arguments.config)
    old, new = (
        load_policies(folder, settings.known, settings.environment) for folder in (arguments.old, arguments.new)
    )
    changes = differences(old.policies, new.policies)
    if arguments.json:
        rows = [{"tenant": one.tenant, "key": key_text(one.path), "old": one.old, "new": one.new} for one in changes]
        print_json(rows)
    else:
        print_changes(Console(), changes)
    return 1 if changes else 0


def run_schema(arguments: argparse.Namespace) -> int:
    """Print the schema alone."""
    from gateway.settings.operator import OperatorFile
    from policies.json_schema import json_schema
    from policies.schema import TenantFile

    if arguments.operator:
        schema = json_schema(OperatorFile, "Headgate: the operator's file", nullable=False)
    else:
        schema = json_schema(TenantFile, "Headgate: a tenant's policy", nullable=True)
    print_json(schema)
    return 0
