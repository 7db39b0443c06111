"""docs/hosting.md names every key of a recipe and every option of every kind of engine."""

import importlib
import re

import pytest

from backends.engines.bare_environment import SOURCE_ROOT
from backends.engines.kinds import KINDS
from backends.engines.recipes import recipe_keys

TEXT = (SOURCE_ROOT / "docs" / "hosting.md").read_text()
MODULES = {"llama-server": "llama_server"}


@pytest.mark.parametrize(("key", "says"), recipe_keys())
def test_the_reference_has_every_key_of_a_recipe_in_its_words(key: str, says: str) -> None:
    assert f"| `{key}` | {says} |" in TEXT


def test_the_reference_has_no_key_that_is_gone() -> None:
    table = TEXT.partition("<!-- recipe keys")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == {key for key, _ in recipe_keys()}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_option_of_a_kind_is_told(kind: str) -> None:
    options = importlib.import_module(f"backends.engines.{MODULES.get(kind, kind)}")._Options.__struct_fields__
    (told,) = re.findall(rf"^\*\*{kind}\*\*: (.*?)\n\n", TEXT, re.MULTILINE | re.DOTALL)
    named = {name for part in re.findall(r"`([^`]*)`", told) for name in re.findall(r"\w+", part)}
    assert set(options) - named == set()
