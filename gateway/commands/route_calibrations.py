"""`headgate route calibrate --tenant T` and `... calibrations list | rollback`: tenants' own calibrations."""

import argparse
from typing import Any

from gateway.commands.options import Subparsers, add_config, add_json
from gateway.commands.printing import print_json


def add_parser(actions: "Subparsers[Any]") -> None:
    """Register `calibrations` among the actions of `route`."""
    parser = actions.add_parser(
        "calibrations",
        help="list tenants' own calibrations, go back to an earlier one",
        description="A running gateway takes a change up within a second.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    listing = verbs.add_parser(
        "list", help="show the versions", epilog="example: headgate route calibrations list --tenant acme"
    )
    listing.add_argument("--tenant", metavar="T", help="only this tenant's")
    add_json(listing)
    listing.set_defaults(run=run_list)
    rollback = verbs.add_parser(
        "rollback",
        help="put an earlier version in force, or none",
        epilog="example: headgate route calibrations rollback --tenant acme --to 2",
    )
    rollback.add_argument("--tenant", required=True, metavar="T", help="whose")
    rollback.add_argument("--to", type=int, metavar="N", help="the version; 0: none (default: the one before)")
    rollback.set_defaults(run=run_rollback)
    for verb in (listing, rollback):
        add_config(verb)


def run_refit(arguments: argparse.Namespace) -> int:
    """Refit a tenant's calibration to its recorded outcomes; it takes effect only when held-back ones agree better."""
    from core.clock import SystemClock
    from gateway.files import write_whole
    from gateway.learning.tenant_calibrations import calibrations_file, observed_outcomes
    from gateway.settings.operator import load_settings
    from router.complexity import PairModel
    from router.tenant_calibration import History, histories_text, read_histories, refit

    settings = load_settings(arguments.config)
    file, manifest = calibrations_file(settings), PairModel.load(settings.pair).manifest
    histories = read_histories(file)
    history = histories.get(arguments.tenant, History())
    observed = observed_outcomes(settings, arguments.tenant, history, manifest)
    found = refit(history, manifest, observed, SystemClock().now())
    briers = f"Brier score {found.brier_before:.4f} now, {found.brier_after:.4f} refitted, {found.rows} outcomes"
    if not found.improved:
        print(f"nothing changed: {briers}" if found.rows else "nothing changed: no outcomes of this tenant yet")
        return 0
    write_whole(file, histories_text({**histories, arguments.tenant: found.history}))
    print(f"version {found.history.in_force} of {arguments.tenant!r} is in force: {briers}")
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """Print every version."""
    from rich.console import Console
    from rich.table import Table

    from gateway.learning.tenant_calibrations import calibrations_file
    from gateway.settings.operator import load_settings
    from router.tenant_calibration import read_histories

    histories = read_histories(calibrations_file(load_settings(arguments.config)))
    shown = {name: one for name, one in sorted(histories.items()) if arguments.tenant in (None, name)}
    console = Console()
    if arguments.json:
        print_json(shown)
        return 0
    table = Table(title="calibrations of tenants")
    for column in ("tenant", "version", "in force", "fitted (UTC)", "weights", "slope", "offset", "outcomes", "Brier"):
        table.add_column(column)
    for tenant, history in shown.items():
        for one in history.versions:
            fit = one.calibration
            table.add_row(
                tenant,
                str(one.number),
                "yes" if one.number == history.in_force else "",
                f"{one.fitted_at:%Y-%m-%d %H:%M}",
                f"{fit.pair}@{fit.weights_sha256[:8]}",
                f"{fit.slope:.3f}",
                f"{fit.offset:+.3f}",
                str(fit.rows),
                f"{fit.brier_before:.4f} to {fit.brier_after:.4f}",
            )
    console.print(table)
    return 0


def run_rollback(arguments: argparse.Namespace) -> int:
    """Put an earlier version in force."""
    from core.errors import ConfigurationError
    from gateway.files import write_whole
    from gateway.learning.tenant_calibrations import calibrations_file
    from gateway.settings.operator import load_settings
    from router.tenant_calibration import History, histories_text, read_histories, rolled_back

    file = calibrations_file(load_settings(arguments.config))
    histories = read_histories(file)
    try:
        history = rolled_back(histories.get(arguments.tenant, History()), arguments.to)
    except ValueError as problem:
        mend = "see `headgate route calibrations list`"
        raise ConfigurationError(str(file), arguments.tenant, str(problem), mend) from problem
    write_whole(file, histories_text({**histories, arguments.tenant: history}))
    in_force = f"version {history.in_force}" if history.in_force else "no calibration"
    print(f"{in_force} of {arguments.tenant!r} is in force")
    return 0
