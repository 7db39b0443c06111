"""`price: measured` of a hosted deployment: finds the measurement beside the state and makes sure that it is its own.

Fails closed: without a measurement, or with one of another model, the deployment has no price and nothing starts.
"""

from pathlib import Path

from backends.engines.recipes import load_recipe
from backends.engines.weights_digest import weights_digest
from core.errors import ConfigurationError
from core.money import Price
from policies.measured_price import check_same, parse_measured
from policies.safe_yaml import load_yaml


def measured_file(state_dir: Path, recipe_name: str) -> Path:
    """Return where the measurement of a recipe lies."""
    return state_dir / "prices" / f"{recipe_name}.yaml"


def measured_price(recipe: str, state_dir: Path, file: str, key: str) -> Price:
    """Return the measured price of a recipe.

    Args:
        recipe: a recipe's name or the path of its file, as the operator wrote it.
        state_dir: the folder of the state.
        file: the operator's file, for errors.
        key: where the price stands in it.

    Raises:
        ConfigurationError: the recipe cannot be read, it was not measured, or the measurement is of something else.
    """
    own = load_recipe(recipe, load_yaml)
    path = measured_file(state_dir, own.name)
    mend = f"run `headgate prices measure {recipe}`"
    if not path.is_file():
        raise ConfigurationError(file, key, f"there is no measurement of {recipe!r} in {path}", mend)
    measured = parse_measured(load_yaml(path), str(path), mend)
    digest = weights_digest(own.spec.model_dir, own.name)
    check_same(measured, own.name, own.spec.precision, digest, str(path), mend)
    return measured.price(str(path))
