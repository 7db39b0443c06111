"""Where evaluations are kept: beside an operator's own recipe, and beside the state for a recipe that ships.

A model that was quantised here may take traffic only with a passed evaluation of these very weights; without one,
nothing starts (fails closed). An evaluation on another version of the engine counts, with a warning.
"""

import json
import logging
from pathlib import Path

import msgspec

from backends.engines.evaluation import Evaluation, EvaluationFile
from backends.engines.kinds import engine_version
from backends.engines.recipes import RECIPES_DIR, Recipe
from backends.engines.weights_digest import recipe_digest
from core.errors import ConfigurationError
from gateway.files import write_whole

logger = logging.getLogger("headgate.hosting")
QUANTISED = "quantization.json"
"""What `headgate models quantize` leaves beside the weights that it makes."""


def evaluation_file(recipe: Recipe, state_dir: Path) -> Path:
    """Return where a recipe's evaluations lie."""
    if recipe.file.parent == RECIPES_DIR:
        return state_dir / "evaluations" / f"{recipe.name}.json"
    return recipe.file.with_suffix(".evaluations.json")


def read_evaluations(path: Path) -> EvaluationFile:
    """Return what is kept, nothing where there is no file.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=EvaluationFile)
    except FileNotFoundError:
        return EvaluationFile()
    except (OSError, msgspec.MsgspecError) as problem:
        reason = (getattr(problem, "strerror", None) or str(problem)).lower()
        mend = "remove it and run `headgate models eval` again"
        raise ConfigurationError(str(path), "", f"cannot be read: {reason}", mend) from problem


def keep_evaluation(path: Path, one: Evaluation) -> None:
    """Put an evaluation first in the file, in place of the one with its key; the file changes in one step."""
    content = msgspec.json.encode(read_evaluations(path).with_newest(one))
    write_whole(path, json.dumps(json.loads(content), indent=1, ensure_ascii=False) + "\n", check=read_evaluations)


def evaluation_of(recipe: Recipe, state_dir: Path) -> Evaluation | None:
    """Return the newest evaluation of the weights that the recipe now has, None without one.

    Raises:
        ConfigurationError: the file, or the weights behind it, cannot be read.
    """
    kept = read_evaluations(evaluation_file(recipe, state_dir)).evaluations
    if not kept:
        return None
    digest = recipe_digest(recipe)
    return next(
        (one for one in kept if (one.subject.weights_digest, one.subject.precision) == (digest, recipe.spec.precision)),
        None,
    )


def check_evaluated(recipe: Recipe, state_dir: Path) -> None:
    """Refuse weights that were quantised here and not evaluated since, unless the recipe allows it.

    Raises:
        ConfigurationError: there is no evaluation of these weights with thresholds, or it was not passed.
    """
    if recipe.allow_unevaluated or not (recipe.spec.model_dir / QUANTISED).is_file():
        return
    found = evaluation_of(recipe, state_dir)
    name, mend = f"recipe {recipe.name}", f"run `headgate models eval --recipe {recipe.file} --suite FILE --gate …`"
    if found is None or found.passed is None:
        problem = "was quantised here, and nothing says that these weights were evaluated against thresholds"
        raise ConfigurationError(name, "weights", problem, f"{mend}, or write `allow_unevaluated: true`")
    if not found.passed:
        problem = f"did not pass its evaluation: {'; '.join(found.shortfalls)}"
        raise ConfigurationError(name, "weights", problem, "quantise with more prompts, or use other weights")
    if found.subject.engine != engine_version(recipe.engine):
        logger.warning("evaluated on another version of the engine", extra={"recipe": recipe.name})
