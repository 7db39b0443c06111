"""`headgate prices list | check | import | measure | hosted`: the price table, own prices, and what engines cost."""

import argparse
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from gateway.commands.options import Subparsers, add_config, add_json
from gateway.commands.printing import print_json


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the commands."""
    parser = subparsers.add_parser("prices", help="list, check, import and measure prices of models")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list",
        help="list the prices that `price: table` can refer to",
        description="List the shipped price table with the operator's own prices over it, where there is a file.",
        epilog="example: headgate prices list 'gpt-4*'",
    )
    listing.add_argument("pattern", nargs="*", metavar="MODEL", help="only models like this, such as 'gpt-4*'")
    add_config(listing)
    add_json(listing)
    listing.set_defaults(run=run_list)
    check = actions.add_parser(
        "check",
        help="say what is wrong in a price file",
        description="Read a price file and compare it with the shipped table. Exit code 2 with errors.",
        epilog="example: headgate prices check my-prices.yaml",
    )
    check.add_argument("file", type=Path, metavar="FILE", help="a price file")
    add_json(check)
    check.set_defaults(run=run_check)
    _add_import(actions)
    _add_measure(actions)
    _add_hosted(actions)


def _add_import(actions: "Subparsers[Any]") -> None:
    importing = actions.add_parser(
        "import",
        help="take prices from a file into your own price file",
        description="Take rows from a price file of this program, or from LiteLLM's table of models as JSON that you "
        "downloaded. Nothing is fetched. Restart the gateway for them to count.",
        epilog="example: headgate prices import table.json --model 'gpt-4*' --as-of 2026-08-01 --source openai.com",
    )
    importing.add_argument("file", type=Path, metavar="FILE", help="what to take from: .yaml or .json")
    importing.add_argument("--into", type=Path, metavar="FILE", help="your price file (default: `prices` of --config)")
    importing.add_argument("--model", action="append", default=[], metavar="MODEL", help="only models like this")
    importing.add_argument("--as-of", type=_day, metavar="DATE", help="the day of a JSON's figures")
    importing.add_argument("--source", metavar="NAME", help="where a JSON's figures come from")
    importing.add_argument("--dry-run", action="store_true", help="say what would change, and write nothing")
    add_config(importing)
    add_json(importing)
    importing.set_defaults(run=run_import)


def _add_measure(actions: "Subparsers[Any]") -> None:
    measuring = actions.add_parser(
        "measure",
        help="measure what a token costs on a hosted engine",
        description="Start the recipe's engine by itself, put work on it for some seconds, read its CPU time, and "
        "write the marginal cost of a token for `price: measured`. Measure while the machine is quiet. Linux only.",
        epilog="example: headgate prices measure bundled-small-int4 --hourly-usd 0.08",
    )
    measuring.add_argument("recipe", metavar="RECIPE", help="a recipe's name, or the path of a .yaml file")
    measuring.add_argument(
        "--hourly-usd", type=_usd, metavar="USD", help="an hour of the whole machine (default: the recipe's hourly_usd)"
    )
    measuring.add_argument(
        "--concurrency", type=_count, default=8, metavar="N", help="requests at a time, 1 to 64 (default: %(default)s)"
    )
    measuring.add_argument(
        "--out", type=Path, metavar="FILE", help="what to write (default: prices/RECIPE.yaml beside the state)"
    )
    add_config(measuring)
    add_json(measuring)
    measuring.set_defaults(run=run_measure)


def _add_hosted(actions: "Subparsers[Any]") -> None:
    hosted = actions.add_parser(
        "hosted",
        help="show what hosted engines cost, fully loaded, with their idle time apart",
        description="Reads the hours that the gateway has kept beside its state: what every hosted engine's tokens "
        "were priced at (marginal), what its share of the machine's hours cost (held), and the part of that in which "
        "nothing was under way (idle). The recipe's `hourly_usd` says what an hour costs.",
        epilog="example: headgate prices hosted --days 7",
    )
    hosted.add_argument("--days", type=_days, default=30, metavar="N", help="back from now, 1 to 3660 (default: 30)")
    add_config(hosted)
    add_json(hosted)
    hosted.set_defaults(run=run_hosted)


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 3660:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 3660")
    return int(text)


def _usd(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount; write for example 0.08") from None


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 64")
    return int(text)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day; write for example 2026-08-01") from None


def run_list(arguments: argparse.Namespace) -> int:
    """Print the table; 1 when nothing matches."""
    from fnmatch import fnmatchcase

    from gateway.commands.price_tables import print_rows, row_json
    from gateway.settings.price_files import prices_path
    from policies.price_table import load_price_table

    table = load_price_table(prices_path(arguments.config) if arguments.config.exists() else None)
    patterns = arguments.pattern or ["*"]
    rows = [row for row in table.rows.values() if any(fnmatchcase(name, p) for name in row.names for p in patterns)]
    if arguments.json:
        print_json({"version": table.version, "prices": [row_json(row) for row in rows]})
    else:
        print_rows(rows, f"{len(rows)} prices, version {table.version}: USD per million tokens")
    return 0 if rows else 1


def run_check(arguments: argparse.Namespace) -> int:
    """Print what is wrong, or how the file differs from the shipped table."""
    from core.errors import ConfigurationError
    from gateway.commands.price_tables import imported_json, print_errors, print_imported
    from policies.price_import import combine
    from policies.price_table import SHIPPED, PriceRow, load_rows, try_rows

    found = list(try_rows(arguments.file))
    errors = [one for one in found if isinstance(one, ConfigurationError)]
    rows = [one for one in found if isinstance(one, PriceRow)]
    compared = combine(load_rows(SHIPPED), rows)
    if arguments.json:
        print_json({"valid": not errors, "errors": [error.message for error in errors], **imported_json(compared)})
    elif errors:
        print_errors(errors)
    else:
        print_imported(compared, f"{len(rows)} prices, all valid; against the shipped table:")
    return 2 if errors else 0


def run_import(arguments: argparse.Namespace) -> int:
    """Write the operator's price file anew, in one step, and print what changed."""
    from core.errors import ConfigurationError
    from gateway.commands.price_tables import imported_json, print_imported
    from gateway.files import write_whole
    from policies.price_import import combine, price_file_text, read_import
    from policies.price_table import check_source, load_rows

    is_json = arguments.file.suffix == ".json"
    if is_json and (arguments.as_of is None or arguments.source is None):
        mend = "add for example --as-of 2026-08-01 --source openai.com"
        raise ConfigurationError(str(arguments.file), "", "the JSON does not say from when and where it is", mend)
    if arguments.source is not None:
        check_source(arguments.source, "--source", "")
    into = arguments.into or _own_file(arguments.config)
    rows, left_out = read_import(arguments.file, arguments.model, arguments.as_of or date.min, arguments.source or "")
    imported = combine(load_rows(into) if into.exists() else (), rows, left_out)
    if not arguments.dry_run:
        write_whole(into, price_file_text(imported.rows), check=load_rows)
    if arguments.json:
        print_json({"file": str(into), "written": not arguments.dry_run, **imported_json(imported)})
        return 0
    print_imported(imported, f"{'would go' if arguments.dry_run else 'went'} into {into}:")
    return 0


def run_measure(arguments: argparse.Namespace) -> int:
    """Measure one recipe, write the file in one step, and print the figures."""
    import asyncio
    from tempfile import TemporaryDirectory

    from backends.engines.recipes import load_recipe
    from core.clock import SystemClock
    from core.errors import ConfigurationError
    from gateway.commands.price_tables import measured_json, print_measured
    from gateway.files import write_whole
    from gateway.hosting.price_measuring import Effort, measure
    from gateway.settings.measured_prices import measured_file
    from gateway.settings.state import state_folder_or_default
    from policies.measured_price import measured_text, parse_measured
    from policies.safe_yaml import load_yaml

    recipe = load_recipe(arguments.recipe, load_yaml)
    hourly_usd = recipe.hourly_usd if arguments.hourly_usd is None else arguments.hourly_usd
    if hourly_usd is None:
        mend = "add for example --hourly-usd 0.08, or hourly_usd to the recipe"
        raise ConfigurationError(f"recipe {recipe.name}", "hourly_usd", "nobody says what an hour costs", mend)
    out = arguments.out or measured_file(state_folder_or_default(arguments.config), recipe.name)
    with TemporaryDirectory(prefix="headgate-measure-") as folder:
        effort = Effort(concurrency=arguments.concurrency)
        measured, samples = asyncio.run(measure(recipe, hourly_usd, effort, Path(folder), SystemClock()))
    write_whole(
        out, measured_text(measured), check=lambda path: parse_measured(load_yaml(path), str(path), "try again")
    )
    if arguments.json:
        print_json(measured_json(measured, samples))
    else:
        print_measured(measured, f"went into {out}")
    return 0


def run_hosted(arguments: argparse.Namespace) -> int:
    """Print what every engine cost; 1 when nothing is known."""
    from datetime import timedelta

    from core.clock import SystemClock
    from gateway.commands.price_tables import hosted_json, print_hosted
    from gateway.hosting.engine_hours import sum_hours
    from gateway.settings.operator import load_settings

    now = SystemClock().now()
    since = now - timedelta(days=arguments.days)
    costs = sum_hours(load_settings(arguments.config).beside("engine-hours"), since, now)
    if arguments.json:
        print_json({"since": since.isoformat(), "engines": hosted_json(costs)})
    else:
        print_hosted(costs, f"hosted engines, {arguments.days} days, USD; loaded: held / marginal")
    return 0 if costs else 1


def _own_file(config: Path) -> Path:
    from core.errors import ConfigurationError
    from gateway.settings.price_files import prices_path

    own = prices_path(config)
    if own is None:
        mend = "add for example `prices: my-prices.yaml`, or name a file with --into"
        raise ConfigurationError(str(config), "prices", "the key is missing", mend)
    return own
