"""`headgate simulate`: what another policy would have done with the requests that were logged."""

import argparse
from pathlib import Path
from typing import Any

from gateway.commands.options import Subparsers, add_config, add_json
from gateway.commands.printing import print_json

LOG = "requests"


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "simulate",
        help="replay logged requests under another policy",
        description="Make every logged decision again under a candidate policy, with the real planner, control, limits "
        "and an empty ledger, and what deployments are measured to take. Prints cost, shares, SLA and refusals per "
        "tenant, then and now, with 95 % intervals. Nothing is sent, charged or put in force.",
        epilog="example: headgate simulate --log requests --policy candidate.yaml --tenant acme --range 7d",
    )
    parser.add_argument(
        "--policy",
        type=Path,
        required=True,
        metavar="PATH",
        help="a tenant's file as you would like it, a defaults.yaml, or a whole policy folder",
    )
    parser.add_argument(
        "--log", default=LOG, metavar="LOG", help="`requests`, the log beside the state (default), or a log's file"
    )
    parser.add_argument("--tenant", help="only this tenant's requests")
    parser.add_argument("--range", default="all", metavar="SPAN", help="24h, 7d, 2026-11, 2026-11-03 or all (default)")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="replays with other donors (default: 5)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of what is drawn (default: 1)")
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print then and now; 0 also where the candidate is worse."""
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.progress import Progress

    from gateway.settings.operator import load_settings
    from gateway.telemetry.time_ranges import parse_range
    from gateway.whatif.candidate_policies import CandidatePolicies
    from gateway.whatif.comparison import simulate
    from gateway.whatif.history import read_history
    from gateway.whatif.policy_report import catalogue
    from gateway.whatif.tables import print_comparison

    settings = load_settings(arguments.config)
    candidates = CandidatePolicies(settings.policies, settings.known, settings.environment)
    candidate = candidates.at(arguments.policy, arguments.tenant)
    requests = settings.beside(LOG) if arguments.log == LOG else Path(arguments.log)
    receipts = requests.with_name(requests.name.replace("-requests", "-decisions"))
    history = read_history(requests, receipts, parse_range(arguments.range, datetime.now(UTC)), arguments.tenant)
    runs = max(1, arguments.runs)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"{len(history):,} requests", total=runs)
        registry = catalogue(settings)
        found = simulate(
            candidate, registry, history, runs=runs, seed=arguments.seed, progress=lambda: progress.advance(task)
        )
    if arguments.json:
        print_json(found)
    else:
        print_comparison(Console(), found)
    return 0
