"""`headgate route explain | score | eval | calibrate | train`: decisions and scores of prompts, without a gateway."""

import argparse
from pathlib import Path
from typing import Any

from gateway.commands import route_calibrations, route_learn
from gateway.commands.options import Subparsers, add_config, add_json
from gateway.commands.printing import print_json
from gateway.commands.route_explain import add_explain

OUTCOMES_HELP = "JSON lines with `query`, `small_score`, `large_score` (0 to 1)"


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser("route", help="score prompts, train and calibrate the complexity router")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add_explain(actions)
    _add_score(actions)
    _add_calibrate(actions)
    route_calibrations.add_parser(actions)
    route_learn.add_parser(actions)
    _add_eval(actions)
    _add_train(actions)


def _add_score(actions: "Subparsers[Any]") -> None:
    score = actions.add_parser(
        "score",
        help="add p_small_suffices to every line of a file",
        description="Copy JSON lines with a `query`, order and further fields kept, and add `p_small_suffices`.",
        epilog="example: headgate route score --in prompts.jsonl --out scores.jsonl --pair general",
    )
    score.add_argument("--in", dest="source", type=Path, required=True, metavar="FILE", help="JSON lines with `query`")
    score.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the scored lines go")
    score.add_argument("--calibration", type=Path, metavar="FILE", help="what `route calibrate` wrote")
    _add_pair(score)
    score.set_defaults(run=run_score)


def _add_calibrate(actions: "Subparsers[Any]") -> None:
    calibrate = actions.add_parser(
        "calibrate",
        help="fit a weight set to outcomes of your own",
        description="From a file, or with --tenant from what the tenant's users said (POST /v1/feedback) of the "
        "cheapest tier's answers; the latter is put in force when held-back outcomes agree better with it.",
        epilog="examples:\n  headgate route calibrate --pair general --outcomes mine.jsonl --out mine.json\n"
        "  headgate route calibrate --tenant acme",
    )
    calibrate.add_argument("--outcomes", type=Path, metavar="FILE", help=OUTCOMES_HELP)
    calibrate.add_argument("--out", type=Path, metavar="FILE", help="where the calibration goes")
    calibrate.add_argument("--tenant", metavar="T", help="refit this tenant's own calibration instead")
    _add_pair(calibrate)
    add_config(calibrate)
    calibrate.set_defaults(run=run_calibrate)


def _add_eval(actions: "Subparsers[Any]") -> None:
    evaluate = actions.add_parser(
        "eval",
        help="measure a weight set on outcomes",
        epilog="example: headgate route eval --pair bundled --outcomes mine.jsonl",
    )
    evaluate.add_argument("--outcomes", type=Path, required=True, metavar="FILE", help=OUTCOMES_HELP)
    evaluate.add_argument("--calibration", type=Path, metavar="FILE", help="what `route calibrate` wrote")
    _add_pair(evaluate)
    add_json(evaluate)
    evaluate.set_defaults(run=run_eval)


def _add_train(actions: "Subparsers[Any]") -> None:
    train = actions.add_parser(
        "train",
        help="train a weight set for a pair of models",
        epilog="example: headgate route train --pair mine --small qwen-0.5b --large llama-8b --outcomes mine.jsonl",
    )
    train.add_argument("--outcomes", type=Path, required=True, metavar="FILE", help=OUTCOMES_HELP + ", better `group`")
    train.add_argument("--small", required=True, help="the small model's name, for the manifest")
    train.add_argument("--large", required=True, help="the large model's name, for the manifest")
    train.add_argument("--out", type=Path, metavar="DIR", help="folder of the weights (default: the shipped ones)")
    _add_pair(train)
    train.set_defaults(run=run_train)


def run_score(arguments: argparse.Namespace) -> int:
    """Score a file; the output appears only when every line was scored."""
    from gateway.whatif.offline import embed_texts, encoder_fingerprint
    from router.scoring import score_file

    count = score_file(
        arguments.source,
        arguments.out,
        embed_texts,
        arguments.pair,
        arguments.calibration,
        encoder=encoder_fingerprint(),
    )
    print(f"scored {count} prompts with {arguments.pair!r} into {arguments.out}")
    return 0


def run_calibrate(arguments: argparse.Namespace) -> int:
    """Fit a calibration and say what it changes."""
    from core.errors import ConfigurationError

    if arguments.tenant is not None and arguments.outcomes is arguments.out is None:
        return route_calibrations.run_refit(arguments)
    if arguments.tenant is not None or arguments.outcomes is None or arguments.out is None:
        mend = "give --outcomes and --out, or --tenant alone"
        raise ConfigurationError("headgate route calibrate", "", "does not know what to fit to", mend)
    from gateway.whatif.offline import embed_texts, encoder_fingerprint
    from router.scoring import calibrate

    fitted = calibrate(arguments.pair, arguments.outcomes, arguments.out, embed_texts, encoder=encoder_fingerprint())
    verdict = f"Brier score {fitted.brier_before:.4f} before, {fitted.brier_after:.4f} on held-back outcomes"
    print(f"wrote {arguments.out}: slope {fitted.slope:.3f}, offset {fitted.offset:+.3f}; {verdict}")
    return 0


def run_eval(arguments: argparse.Namespace) -> int:
    """Print the measures of a weight set on known outcomes."""
    from dataclasses import asdict

    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from gateway.whatif.offline import embed_texts, encoder_fingerprint
    from router.calibration import read_calibration
    from router.complexity import PairModel
    from router.evaluate import Outcomes, measure
    from router.outcomes import read_outcomes
    from router.scoring import score_texts

    rows = read_outcomes(arguments.outcomes)
    calibration = None if arguments.calibration is None else read_calibration(arguments.calibration)
    model = PairModel.load(arguments.pair, encoder_fingerprint(), calibration=calibration)
    p_small = score_texts(model, [row.query for row in rows], embed_texts)
    small, large = np.array([row.small_score for row in rows]), np.array([row.large_score for row in rows])
    figures = asdict(measure(Outcomes(p_small, small, large)))
    console = Console()
    if arguments.json:
        print_json({"rows": len(rows), **figures})
        return 0
    table = Table(title=f"{arguments.pair} on {len(rows)} outcomes")
    for name in figures:
        table.add_column(name, justify="right")
    table.add_row(*(f"{value:.3f}" for value in figures.values()))
    console.print(table)
    return 0


def run_train(arguments: argparse.Namespace) -> int:
    """Train and save a weight set; the metrics printed are those of groups left out."""
    from gateway.whatif.offline import embed_texts, encoder_fingerprint
    from router.outcomes import read_outcomes
    from router.train import train_pair
    from router.weights import WEIGHTS_DIRECTORY, save_pair

    rows = read_outcomes(arguments.outcomes)
    trained = train_pair(
        rows,
        embed_texts,
        pair=arguments.pair,
        small=arguments.small,
        large=arguments.large,
        encoder=encoder_fingerprint(),
    )
    folder = arguments.out or WEIGHTS_DIRECTORY
    save_pair(trained.weights, trained.manifest, folder)
    for name, value in trained.manifest.metrics.items():
        print(f"{name:>28} {value:.4f}")
    print(f"wrote {folder / arguments.pair}.npz and .json")
    return 0


def _add_pair(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pair", default="general", help="the weight set (default: %(default)s)")
