"""Recipes: the shipped ones, and what is said about a broken one."""

from decimal import Decimal
from pathlib import Path

import pytest

from backends.engines.recipes import RECIPES_DIR, load_recipe, recipe_names
from core.errors import ConfigurationError
from policies.safe_yaml import load_yaml

GOOD = """\
engine: openvino
weights: weights/tiny
precision: int8
model: tiny
memory_bytes: 1000
context_tokens: 100
max_output_tokens: 50
price: {input_usd_per_m: "0.10", output_usd_per_m: 0.4}
start_timeout_s: 2.5
options: {threads: 2}
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_can_be_read_by_name(name: str) -> None:
    recipe = load_recipe(name, load_yaml)
    assert recipe.name == recipe.spec.name == name
    assert recipe.spec.model_dir.is_absolute()
    assert recipe.spec.max_output_tokens < recipe.spec.context_tokens


def test_the_bundled_recipes_ship() -> None:
    assert {"bundled-small-int4", "bundled-large"} <= set(recipe_names())


def test_weights_are_found_beside_the_recipe_and_the_price_stays_as_written(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD), load_yaml)
    assert recipe.spec.model_dir == tmp_path / "weights" / "tiny"
    assert recipe.price == {"input_usd_per_m": "0.10", "output_usd_per_m": Decimal("0.4")}
    assert (recipe.spec.start_timeout_s, recipe.spec.options) == (2.5, {"threads": 2})
    assert recipe.hourly_usd is None


def test_weights_may_be_absolute(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD.replace("weights/tiny", "/models/tiny"))
    assert load_recipe(str(file), load_yaml).spec.model_dir == Path("/models/tiny")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("precision: int8", "precision: int3", "precision: invalid enum value 'int3'"),
        ("model: tiny", "model: tiny\nflavour: mint", "(top level): object contains unknown field `flavour`"),
        ("engine: openvino\n", "", "(top level): object missing required field `engine`"),
        ("memory_bytes: 1000", "memory_bytes: lots", "memory_bytes: expected `int`, got `str`"),
        ("memory_bytes: 1000", "memory_bytes: 0", "memory_bytes: must be above 0; write a positive number"),
        ("max_output_tokens: 50", "max_output_tokens: 101", "max_output_tokens: is above context_tokens; lower it"),
        ("options: {threads: 2}", "port: 70000", "port: is no TCP port; write 1 to 65535"),
        ("options: {threads: 2}", "drain_timeout_s: -1", "drain_timeout_s: must not be negative"),
        ("model: tiny", 'model: ""', "model: is empty; fill it in"),
        ('{input_usd_per_m: "0.10", output_usd_per_m: 0.4}', "{}", "price: is empty; fill it in"),
    ],
)
def test_a_broken_recipe_is_refused_with_file_key_and_mend(tmp_path: Path, old: str, new: str, words: str) -> None:
    file = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ConfigurationError) as refusal:
        load_recipe(file, load_yaml)
    assert str(refusal.value).startswith(f"{file}: {words}")
    assert "\n" not in str(refusal.value)


def test_an_unknown_recipe_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"^nonesuch: there is no such recipe; name one of .*bundled-large"):
        load_recipe("nonesuch", load_yaml)


def test_every_recipe_file_says_how_its_price_came_about() -> None:
    for file in RECIPES_DIR.glob("*.yaml"):
        assert "price" in file.read_text().splitlines()[1], file.name
