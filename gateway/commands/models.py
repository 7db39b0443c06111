"""`headgate models list | check | convert`: recipes of hosted engines and the weights behind them."""

import argparse
from pathlib import Path
from typing import Any

from gateway.commands.options import Subparsers, add_json

CONVERT_PYTHON = Path(".venv-convert/bin/python")
PRECISIONS = ("int4", "int8", "fp16")


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser("models", help="list, check and convert the models of hosted engines")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list the recipes", epilog="example: headgate models list --json")
    add_json(listing)
    listing.set_defaults(run=run_list)
    check = actions.add_parser(
        "check", help="check a recipe and its weights", epilog="example: headgate models check bundled-small-int4"
    )
    check.add_argument("recipe", help="a recipe's name, or the path of a .yaml file")
    check.set_defaults(run=run_check)
    convert = actions.add_parser(
        "convert",
        help="make OpenVINO weights from a Hugging Face model directory",
        description="Runs in the conversion environment that `make models` installs; nothing is downloaded.",
        epilog="example: headgate models convert ~/models/Qwen2.5-0.5B --out weights/qwen --precision int4",
    )
    convert.add_argument("source", type=Path, metavar="DIR", help="the model's directory (config, tokenizer, weights)")
    convert.add_argument("--out", type=Path, required=True, metavar="DIR", help="a directory that does not exist yet")
    convert.add_argument("--precision", choices=PRECISIONS, default="int4", help="of the weights (default: int4)")
    convert.add_argument(
        "--python",
        type=Path,
        default=CONVERT_PYTHON,
        metavar="FILE",
        help="the environment's Python (default: %(default)s)",
    )
    convert.set_defaults(run=run_convert)


def run_list(arguments: argparse.Namespace) -> int:
    """Print every shipped recipe."""
    import msgspec
    from rich.console import Console
    from rich.table import Table

    from backends.engines.recipes import load_recipe, recipe_names
    from policies.safe_yaml import load_yaml

    recipes = [load_recipe(name, load_yaml) for name in recipe_names()]
    console = Console()
    if arguments.json:
        rows = [
            {
                "recipe": recipe.name,
                "engine": recipe.engine,
                "model": recipe.spec.model,
                "precision": recipe.spec.precision,
                "context_tokens": recipe.spec.context_tokens,
                "memory_bytes": recipe.spec.memory_bytes,
                "installed": recipe.spec.model_dir.is_dir(),
            }
            for recipe in recipes
        ]
        console.print_json(msgspec.json.encode(rows).decode())
        return 0
    table = Table(title="recipes")
    for column in ("recipe", "engine", "precision", "context", "memory", "weights"):
        table.add_column(column, no_wrap=True)
    for recipe in recipes:
        spec = recipe.spec
        table.add_row(
            recipe.name,
            recipe.engine,
            spec.precision,
            str(spec.context_tokens),
            f"{spec.memory_bytes / 2**20:.0f} MiB",
            "present" if spec.model_dir.is_dir() else "missing",
        )
    console.print(table)
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """Check what can be checked without starting the engine."""
    from backends.engines.devices import device_bytes
    from backends.engines.kinds import launcher_of
    from backends.engines.recipes import load_recipe
    from policies.prices import parse_price
    from policies.safe_yaml import load_yaml

    recipe = load_recipe(arguments.recipe, load_yaml)
    parse_price(dict(recipe.price), str(recipe.file), "price")
    launcher_of(recipe, device_bytes).command(port=1)
    print(f"{recipe.name}: {recipe.spec.model} at {recipe.spec.precision} in {recipe.spec.model_dir} can be started")
    return 0


def run_convert(arguments: argparse.Namespace) -> int:
    """Run the converter in its own environment and pass its exit code on."""
    import subprocess
    import sys

    from core.errors import ConfigurationError

    if not arguments.python.is_file():
        raise ConfigurationError(
            str(arguments.python),
            "",
            "there is no conversion environment",
            "run `make models`, or name one with --python",
        )
    script = Path(__file__).resolve().parents[2] / "backends" / "bundled" / "convert.py"
    command = [arguments.python, script, arguments.source, "--out", arguments.out, "--precision", arguments.precision]
    done = subprocess.run([str(part) for part in command], check=False)  # noqa: S603 - an argument list, no shell
    if done.returncode == 0:
        print(f"converted into {arguments.out}; point a recipe's `weights` at it", file=sys.stdout)
    return done.returncode
