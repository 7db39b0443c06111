"""What a token of a quantised model costs less than one of the same model at full precision, both measured here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backends.engines.launcher import FULL_PRECISION
from backends.engines.recipes import Recipe
from core.errors import ConfigurationError
from core.money import PICO_PER_NANO, Price
from gateway.settings.measured_prices import measured_file
from policies.measured_price import parse_measured
from policies.prices import MEASURED
from policies.safe_yaml import load_yaml


@dataclass(frozen=True, slots=True)
class TokenSaving:
    """Pico-USD that an input and an output token cost less; negative where quantisation makes them dearer."""

    input_pico_usd: int
    output_pico_usd: int

    def nano_usd(self, input_tokens: int, output_tokens: int) -> int:
        """Return what so many tokens saved."""
        return (input_tokens * self.input_pico_usd + output_tokens * self.output_pico_usd) // PICO_PER_NANO


def token_savings(
    recipes: Mapping[str, Recipe], prices: Mapping[str, Price], state_dir: Path
) -> dict[str, TokenSaving | str]:
    """Return the saving of every quantised deployment, or what to do so that it is known.

    Args:
        recipes: of the hosted deployments, by their names.
        prices: by which they are charged.
        state_dir: the folder of the state, where measurements lie.
    """
    quantised = {name: recipe for name, recipe in recipes.items() if recipe.spec.precision not in FULL_PRECISION}
    return {name: _saving(recipe, prices[name], state_dir) for name, recipe in quantised.items()}


def _saving(recipe: Recipe, own: Price, state_dir: Path) -> TokenSaving | str:
    if recipe.full_precision is None:
        return f"name the same model at full precision in the recipe {recipe.name}: `full_precision: RECIPE`"
    if not own.source.startswith(MEASURED):
        return f"measure {recipe.name} and write `price: measured` for its deployment"
    path, mend = measured_file(state_dir, recipe.full_precision), f"headgate prices measure {recipe.full_precision}"
    if not path.is_file():
        return f"run `{mend}`"
    try:
        measured = parse_measured(load_yaml(path), str(path), f"run `{mend}`")
        if measured.precision not in FULL_PRECISION:
            return f"{recipe.full_precision} is {measured.precision}: name a recipe at full precision"
        full = measured.price(str(path))
    except ConfigurationError as problem:
        return problem.message
    return TokenSaving(full.input_pico_usd - own.input_pico_usd, full.output_pico_usd - own.output_pico_usd)
