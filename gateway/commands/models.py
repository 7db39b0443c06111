"""`headgate models list | check | pull | convert | warm | eval | quantize`: hosted models."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.commands import models_eval, models_list, models_quantize
from gateway.commands.options import Subparsers, add_config, add_json
from gateway.commands.printing import print_json

if TYPE_CHECKING:
    from backends.engines.recipes import Recipe
    from gateway.hosting.probed_abilities import ProbedAbilities

CONVERT_PYTHON = Path(".venv-convert/bin/python")
PRECISIONS = ("int4", "int8", "fp16")
RECIPE_HELP = "a recipe's name, or the path of a .yaml file"


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the commands."""
    parser = subparsers.add_parser("models", help="list, check, fetch, convert and try the models of hosted engines")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    models_list.add_parser(actions)
    check = actions.add_parser(
        "check",
        help="check recipes and their weights",
        description="Checks all that can be checked without starting an engine: the recipe, the program, the weights "
        "and their precision, the memory. Exit code 2 and one line for what cannot be used. With --probe the engine is "
        "then started by itself and asked for tool calls, JSON, answers in several scripts, and facts from longer and "
        "longer prompts; what it can do is kept beside the state and read at the next start of the gateway.",
        epilog="example: headgate models check bundled-small-int4 --probe",
    )
    check.add_argument("recipe", nargs="+", metavar="RECIPE", help=RECIPE_HELP)
    check.add_argument("--digests", action="store_true", help="read every file and compare it with what was pulled")
    check.add_argument("--probe", action="store_true", help="start the engine and measure what it can do")
    add_config(check)
    add_json(check)
    check.set_defaults(run=run_check)
    pull = actions.add_parser(
        "pull",
        help="fetch a recipe's weights from the model hub",
        description="Fetches what the recipe's `hub` names into its `weights` folder and checks every digest. "
        "HF_ENDPOINT names another hub, HF_TOKEN signs in for models with a licence to accept.",
        epilog="example: headgate models pull qwen3-1.7b-int4-openvino",
    )
    pull.add_argument("recipe", metavar="RECIPE", help=RECIPE_HELP)
    pull.add_argument("--revision", metavar="REV", help="a branch, tag or commit instead of the recipe's")
    add_json(pull)
    pull.set_defaults(run=run_pull)
    warm = actions.add_parser(
        "warm",
        help="start a recipe's engine once, have it answer, and stop it",
        description="Proves that a recipe works on this machine, and leaves its files in the page cache and compiled "
        "kernels in the engine's own. A running gateway is left alone; both need memory while this runs.",
        epilog="example: headgate models warm bundled-large",
    )
    warm.add_argument("recipe", metavar="RECIPE", help=RECIPE_HELP)
    add_json(warm)
    warm.set_defaults(run=run_warm)
    _add_convert(actions)
    models_eval.add_parser(actions)
    models_quantize.add_parser(actions)


def _add_convert(actions: "Subparsers[Any]") -> None:
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


def run_check(arguments: argparse.Namespace) -> int:
    """Check what can be checked without starting engines; the first that cannot be used ends it."""
    from backends.engines.recipes import load_recipe
    from gateway.hosting.model_checks import check_recipe
    from policies.safe_yaml import load_yaml

    rows: list[object] = []
    for name in arguments.recipe:
        recipe = load_recipe(name, load_yaml)
        checked = check_recipe(recipe, digests=arguments.digests)
        if not arguments.probe:
            rows.append(checked)
        if not arguments.json:
            spec = recipe.spec
            files = f", {checked.verified_files} files as pulled" if arguments.digests else ""
            digest = f" ({checked.digest}{files})" if checked.digest else ""
            print(f"{recipe.name}: {spec.model} at {spec.precision} in {spec.model_dir} can be started{digest}")
        if arguments.probe:
            rows.append(_probe(recipe, arguments.config, quiet=arguments.json))
    if arguments.json:
        print_json(rows)
    return 0


def _probe(recipe: "Recipe", config: Path, *, quiet: bool) -> "ProbedAbilities":
    """Measure what a recipe's model can do, keep it beside the state and tell it."""
    import asyncio

    from rich.console import Console

    from core.clock import SystemClock
    from gateway.hosting.probed_abilities import probe_recipe, probed_file, write_probed
    from gateway.settings.state import state_folder_or_default

    console = Console(stderr=True, quiet=quiet)
    with console.status(f"starting {recipe.name}") as status:
        telling = probe_recipe(recipe, SystemClock(), lambda step: status.update(f"probing {recipe.name}: {step}"))
        probed = asyncio.run(telling)
    path = probed_file(state_folder_or_default(config), recipe.name)
    write_probed(path, probed)
    if not quiet:
        for missed in probed.missed:
            print(f"  missed {missed.ability}: {missed.prompt!r} gave {missed.came}")
        print(f"{recipe.name}: passed {probed.summary} ({probed.asked} requests); kept in {path}")
    return probed


def run_pull(arguments: argparse.Namespace) -> int:
    """Fetch the recipe's weights."""
    import sys

    import msgspec

    from backends.engines.pulling import pull
    from backends.engines.recipes import load_recipe
    from core.errors import ConfigurationError
    from policies.safe_yaml import load_yaml

    recipe = load_recipe(arguments.recipe, load_yaml)
    if recipe.hub is None:
        mend = "add `hub: {repo: OWNER/NAME}`, or put the weights there yourself"
        raise ConfigurationError(f"recipe {recipe.name}", "hub", "is not given", mend)
    source = recipe.hub
    if arguments.revision is not None:
        source = msgspec.structs.replace(source, revision=arguments.revision)
    pulled = pull(source, recipe.engine, recipe.spec.model_dir, lambda line: print(line, file=sys.stderr))
    if arguments.json:
        print_json(pulled)
        return 0
    size = sum(file.size_bytes for file in pulled.files)
    print(f"{recipe.name}: {len(pulled.files)} files, {size / 2**20:.0f} MiB, in {recipe.spec.model_dir}")
    return 0


def run_warm(arguments: argparse.Namespace) -> int:
    """Start the engine once and say how it went."""
    import asyncio

    from backends.engines.recipes import load_recipe
    from core.clock import SystemClock
    from gateway.hosting.model_checks import warm_recipe
    from policies.safe_yaml import load_yaml

    warmed = asyncio.run(warm_recipe(load_recipe(arguments.recipe, load_yaml), SystemClock()))
    if arguments.json:
        print_json(warmed)
        return 0
    memory = "" if warmed.resident_bytes is None else f", {warmed.resident_bytes / 2**20:.0f} MiB resident"
    print(f"{warmed.recipe}: first token after {warmed.start_s:.1f} s, the next in {warmed.answer_s:.3f} s{memory}")
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
