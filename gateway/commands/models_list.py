"""`headgate models list`: the recipes, what they need, and what is known of them on this machine."""

import argparse
from typing import TYPE_CHECKING, Any

from gateway.commands.options import Subparsers, add_config, add_json
from gateway.commands.printing import print_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.table import Table

    from backends.engines.evaluation import Evaluation
    from backends.engines.recipes import Recipe
    from gateway.hosting.probed_abilities import ProbedAbilities

    Known = tuple[Recipe, Evaluation | None, ProbedAbilities | None]


def add_parser(actions: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = actions.add_parser("list", help="list the recipes", epilog="example: headgate models list --json")
    what = "a recipe's name, or the path of a .yaml file (default: all that ship)"
    parser.add_argument("recipe", nargs="*", metavar="RECIPE", help=what)
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print recipes."""
    from rich.console import Console

    from backends.engines.recipes import load_recipe, recipe_names
    from gateway.hosting.evaluations import evaluation_of
    from gateway.hosting.probed_abilities import probed_abilities
    from gateway.settings.state import state_folder_or_default
    from policies.safe_yaml import load_yaml

    state_dir = state_folder_or_default(arguments.config)
    recipes = [load_recipe(name, load_yaml) for name in arguments.recipe or recipe_names()]
    known = [(one, evaluation_of(one, state_dir), probed_abilities(one, state_dir)) for one in recipes]
    if arguments.json:
        print_json([_told(*one) for one in known])
    else:
        console = Console()
        console.print(_table([recipe for recipe, _, _ in known]))
        for line in _findings(known):
            console.print(line, markup=False, highlight=False)
    return 0


def _told(recipe: "Recipe", evaluation: "Evaluation | None", probed: "ProbedAbilities | None") -> dict[str, object]:
    return {
        "recipe": recipe.name,
        "engine": recipe.engine,
        "model": recipe.spec.model,
        "precision": recipe.spec.precision,
        "devices": list(recipe.spec.devices),
        "context_tokens": recipe.spec.context_tokens,
        "memory_bytes": recipe.spec.memory_bytes,
        "hub": None if recipe.hub is None else recipe.hub.repo,
        "weights": str(recipe.spec.model_dir),
        "installed": recipe.spec.model_dir.exists(),
        "evaluation": evaluation,
        "abilities": recipe.abilities,
        "probed": probed,
    }


def _table(recipes: "Sequence[Recipe]") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("recipe", "engine", "weights", "GiB", "on", "present"):
        table.add_column(column, no_wrap=True, justify="right" if column == "GiB" else "left")
    for recipe in recipes:
        spec = recipe.spec
        present = "yes" if spec.model_dir.exists() else "pull" if recipe.hub is not None else "no"
        devices = ",".join(spec.devices).replace(",cuda:", ",")
        table.add_row(recipe.name, recipe.engine, spec.precision, f"{spec.memory_bytes / 2**30:.1f}", devices, present)
    return table


def _findings(known: "Sequence[Known]") -> "Iterator[str]":
    from gateway.commands.evaluation_tables import verdict_text

    for recipe, evaluation, probed in known:
        if evaluation is not None:
            yield f"{recipe.name} evaluated: {verdict_text(evaluation)}"
        if probed is not None:
            yield f"{recipe.name} probed: {probed.summary}"
