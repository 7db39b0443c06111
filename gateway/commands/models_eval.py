"""`headgate models eval`: how good, how fast and how dear a tier's model is, beside another one."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.commands.options import Subparsers, add_config, add_json

if TYPE_CHECKING:
    from backends.engines.suite import Suite
    from gateway.hosting.evaluation_sides import Side
    from gateway.hosting.model_evaluating import Advance

BUNDLED = "bundled"
KEY_VARIABLE = "HEADGATE_KEY"


def add_parser(actions: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = actions.add_parser(
        "eval",
        help="evaluate a tier's model beside another's on a task file",
        description="Asks both models everything in a suite and reports accuracy by family, agreement, time to the "
        "first token, tokens/s and cost per answer. Engines are started for the purpose, one after the other, unless "
        "--url names a running gateway. The result is kept for these weights, engine and precision; `headgate models "
        "list` shows it. A suite has one JSON object a line: question (or messages), answer, check (exact, contains, "
        "number, regex), family.",
        epilog="example: headgate models eval --tier small --suite bundled --gate --least-accuracy 0.9 --family sort",
    )
    parser.add_argument("--tier", metavar="TIER", help="whose model is evaluated (default: the cheapest tier)")
    parser.add_argument("--against", metavar="TIER", help="beside whose model (default: the dearest tier)")
    parser.add_argument("--recipe", metavar="RECIPE", help="evaluate this recipe instead of a tier's")
    parser.add_argument("--against-recipe", metavar="RECIPE", help="beside this recipe instead of a tier's")
    add_suite(parser, required=True)
    parser.add_argument("--url", metavar="URL", help=f"ask a running gateway, with the key in ${KEY_VARIABLE}")
    parser.add_argument("--gate", action="store_true", help="exit with 1 unless the thresholds are reached, for CI")
    add_thresholds(parser)
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def add_suite(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add what is asked and how."""
    parser.add_argument(
        "--suite", metavar="FILE", required=required, help=f"a task file; `{BUNDLED}`: that of the bundled models"
    )
    parser.add_argument("--family", action="append", default=[], metavar="NAME", help="only this family; may repeat")
    parser.add_argument(
        "--concurrency", type=_count, default=8, metavar="N", help="questions at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--max-tokens", type=_count, default=256, metavar="N", help="longest answer (default: %(default)s)"
    )


def add_thresholds(parser: argparse.ArgumentParser) -> None:
    """Add what has to be reached."""
    parser.add_argument("--least-accuracy", type=_ratio, metavar="R", help="the least share of right answers, 0 to 1")
    parser.add_argument("--least-agreement", type=_ratio, metavar="R", help="the least share of equal answers, 0 to 1")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, keep and print; 1 when a gate is not passed."""
    import asyncio

    from backends.engines.evaluation import Thresholds
    from core.clock import SystemClock
    from core.errors import ConfigurationError
    from gateway.commands.evaluation_tables import evaluation_json, print_evaluation
    from gateway.hosting.evaluation_sides import Asker, evaluate
    from gateway.hosting.evaluations import evaluation_file, keep_evaluation
    from gateway.hosting.model_evaluating import Effort
    from gateway.settings.state import state_folder_or_default

    least = Thresholds(arguments.least_accuracy, arguments.least_agreement)
    if arguments.gate and least == Thresholds():
        raise ConfigurationError("--gate", "", "nothing says what has to be reached", "add --least-agreement 0.9")
    suite = suite_of(arguments)
    subject, reference = _sides(arguments)
    effort, key = Effort(arguments.concurrency, arguments.max_tokens), _key(arguments.url)
    with progress(2 * len(suite.tasks), "asking both models") as advance:
        asker = Asker(suite, effort, SystemClock(), advance, url=arguments.url, key=key)
        result = asyncio.run(evaluate(asker, subject, reference, least))
    file = None
    if subject.recipe is not None:
        file = evaluation_file(subject.recipe, state_folder_or_default(arguments.config))
        keep_evaluation(file, result)
    if arguments.json:
        print(evaluation_json(result))
    else:
        print_evaluation(result, file)
    return 1 if arguments.gate and not result.passed else 0


def suite_of(arguments: argparse.Namespace) -> "Suite":
    """Return the tasks that are meant."""
    from backends.engines.bare_environment import SOURCE_ROOT
    from backends.engines.suite import load_suite

    bundled = SOURCE_ROOT / "backends" / "bundled" / "suite.jsonl"
    path = bundled if arguments.suite == BUNDLED else Path(arguments.suite)
    return load_suite(path).only(frozenset(arguments.family))


@contextmanager
def progress(total: int, what: str) -> "Iterator[Advance]":
    """Show a bar on standard error while something goes on."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(transient=True, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def _sides(arguments: argparse.Namespace) -> "tuple[Side, Side]":
    from gateway.hosting.evaluation_sides import recipe_side, tier_side
    from gateway.settings.operator import load_settings

    written = (arguments.recipe, arguments.against_recipe)
    settings = None if all(written) else load_settings(arguments.config)
    tiers = [] if settings is None else list(settings.tiers)
    names = (arguments.tier or (tiers or [""])[0], arguments.against or (tiers or [""])[-1])
    sides = [
        recipe_side(recipe)
        if recipe or settings is None
        else tier_side(settings, tier, remote=arguments.url is not None)
        for recipe, tier in zip(written, names, strict=True)
    ]
    return sides[0], sides[1]


def _key(url: str | None) -> str | None:
    import os

    from core.errors import ConfigurationError

    key = os.environ.get(KEY_VARIABLE)
    if url is not None and not key:
        mend = "make one with `headgate keys create --tenant TENANT`"
        raise ConfigurationError(f"${KEY_VARIABLE}", "", "holds no key for the gateway", mend)
    return key


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 65536")
    return int(text)


def _ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return ratio
