"""`headgate models quantize`: makes the INT4 tier of a full-precision model on your own prompts, and evaluates it."""

import argparse
from pathlib import Path
from typing import Any

from backends.bundled.quantize import TOOLS
from gateway.commands.models_eval import add_suite, add_thresholds, progress, suite_of
from gateway.commands.options import Subparsers, add_config, add_json

CONVERT_PYTHON = Path(".venv-convert/bin/python")
METHODS = TOOLS["openvino"].methods
"""Those of the other tool are among them; which of them it lacks is said when the recipe is known."""


def add_parser(actions: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = actions.add_parser(
        "quantize",
        help="make an INT4 model of a full-precision one on your own prompts, and evaluate it",
        description="Runs in the conversion environment that `make models` installs (NNCF, for OpenVINO), or with "
        "--python in one that has llm-compressor (for vLLM). Prompts are JSON lines of `prompt` or `messages`, of "
        "tenants that agreed to it. The new model is then evaluated beside the full-precision one, on --suite or on "
        "every fifth prompt, which is not calibrated on; until that is passed, no tier may serve it. Exit code 1 when "
        "it is not.",
        epilog="example: headgate models quantize ~/models/Qwen3-1.7B --like qwen3-8b-fp16-openvino --calibrate "
        "prompts.jsonl --out weights/qwen-int4 --suite ours.jsonl --least-accuracy 0.9",
    )
    parser.add_argument("source", type=Path, metavar="MODEL", help="the full-precision model's Hugging Face directory")
    parser.add_argument("--like", required=True, metavar="RECIPE", help="the full-precision recipe to take over from")
    parser.add_argument("--calibrate", type=Path, required=True, metavar="FILE", help="prompts, one JSON object a line")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="weights; DIR.yaml becomes their recipe")
    parser.add_argument("--precision", choices=("int4",), default="int4", help="of the weights (default: int4)")
    parser.add_argument("--method", choices=METHODS, default="awq", help="default: %(default)s; `rtn` only rounds")
    parser.add_argument("--group-size", type=int, metavar="N", help="weights that share a scale (default: 128)")
    parser.add_argument("--full", type=Path, metavar="DIR", help="keep the full-precision conversion there, or take it")
    parser.add_argument(
        "--python", type=Path, default=CONVERT_PYTHON, metavar="FILE", help="the environment's (default: %(default)s)"
    )
    add_suite(parser, required=False)
    add_thresholds(parser)
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make, evaluate, keep and print; 1 when the evaluation is not passed."""
    from tempfile import TemporaryDirectory

    from backends.engines.evaluation import Thresholds
    from backends.engines.recipes import load_recipe
    from core.errors import ConfigurationError
    from gateway.hosting.quantizing import Order, check_order, load_prompts, split
    from policies.safe_yaml import load_yaml

    least = Thresholds(arguments.least_accuracy, arguments.least_agreement)
    if least == Thresholds() or (least.accuracy is not None and arguments.suite is None):
        mend = "add --least-agreement 0.9, or --suite FILE with --least-accuracy 0.9"
        raise ConfigurationError("headgate models quantize", "", "nothing says what the new model has to reach", mend)
    prompts, suite = split(load_prompts(arguments.calibrate), arguments.calibrate.name)
    if arguments.suite is not None:
        suite = suite_of(arguments)
    with TemporaryDirectory(prefix=".headgate-full-", dir=arguments.out.resolve().parent) as folder:
        order = Order(
            source=arguments.source,
            out=arguments.out,
            full=arguments.full or Path(folder) / "full",
            like=load_recipe(arguments.like, load_yaml),
            method=arguments.method,
            python=arguments.python,
            group_size=arguments.group_size,
        )
        check_order(order)
        return _carry_out(arguments, order, prompts, suite, least)


def _carry_out(arguments: argparse.Namespace, order: Any, prompts: Any, suite: Any, least: Any) -> int:
    import asyncio

    from core.clock import SystemClock
    from gateway.commands.evaluation_tables import evaluation_json, print_evaluation
    from gateway.hosting.evaluation_sides import Asker, Side, evaluate
    from gateway.hosting.evaluations import evaluation_file, keep_evaluation
    from gateway.hosting.model_evaluating import Effort
    from gateway.hosting.quantizing import full_precision, make
    from gateway.settings.state import state_folder_or_default

    with progress(1, f"quantising {order.source.name} on {len(prompts)} prompts") as done:
        recipe = make(order, prompts)
        done()
    effort = Effort(arguments.concurrency, arguments.max_tokens)
    with progress(2 * len(suite.tasks), "asking both models") as advance:
        asker = Asker(suite, effort, SystemClock(), advance)
        result = asyncio.run(evaluate(asker, Side(None, recipe), Side(None, full_precision(order)), least))
    file = evaluation_file(recipe, state_folder_or_default(arguments.config))
    keep_evaluation(file, result)
    if arguments.json:
        print(evaluation_json(result))
    else:
        print_evaluation(result, file)
        print(f"the recipe is {order.recipe_file}" if result.passed else f"{order.recipe_file} may take no traffic yet")
    return 0 if result.passed else 1
