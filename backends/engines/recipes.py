"""Reads recipes: small YAML files that say which weights an engine serves, how, and at what price."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal

import msgspec

from backends.engines.launcher import EngineSpec, Precision
from core.errors import ConfigurationError

RECIPES_DIR = Path(__file__).resolve().parent.parent / "recipes"

EngineKind = Literal["openvino"]
RawPrice = Mapping[str, object]


class _RecipeFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The YAML of a recipe, key by key."""

    engine: EngineKind
    weights: str
    precision: Precision
    model: str
    memory_bytes: int
    context_tokens: int
    max_output_tokens: int
    price: dict[str, object]
    hourly_usd: Decimal | None = None
    prefix_caching: bool = True
    share_prefix_cache: bool = False
    start_timeout_s: float = 120.0
    drain_timeout_s: float = 10.0
    expected_start_s: float = 5.0
    port: int | None = None
    options: dict[str, str | int | float | bool] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One recipe: the engine, and the raw price, which only the price table interprets."""

    name: str
    file: Path
    engine: EngineKind
    spec: EngineSpec
    price: RawPrice
    hourly_usd: Decimal | None


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that ship with Headgate, sorted."""
    return tuple(sorted(path.stem for path in RECIPES_DIR.glob("*.yaml")))


def load_recipe(name_or_path: str | Path, read_yaml: Callable[[Path], object]) -> Recipe:
    """Read a shipped recipe by name, or any recipe by the path of its file.

    Args:
        name_or_path: `bundled-large`, or a path that ends in `.yaml`.
        read_yaml: the safe loader; it raises `ConfigurationError` for broken YAML and duplicate keys.

    Raises:
        ConfigurationError: there is no such recipe, or a key is unknown, missing or of the wrong kind.
    """
    path = _find(name_or_path)
    raw = read_yaml(path)
    try:
        parsed = msgspec.convert(raw, _RecipeFile)
    except msgspec.ValidationError as problem:
        what, _, where = str(problem).partition(" - at `$")
        raise ConfigurationError(
            str(path), where.strip("`.") or "(top level)", what.lower(), "see the recipes that ship with Headgate"
        ) from problem
    _check(path, parsed)
    return Recipe(path.stem, path, parsed.engine, _spec(path, parsed), parsed.price, parsed.hourly_usd)


def _find(name_or_path: str | Path) -> Path:
    text = str(name_or_path)
    path = Path(text) if text.endswith((".yaml", ".yml")) else RECIPES_DIR / f"{text}.yaml"
    if not path.is_file():
        raise ConfigurationError(
            text, "", "there is no such recipe", f"name one of {', '.join(recipe_names())} or the path of a .yaml file"
        )
    return path.resolve()


def _check(path: Path, parsed: _RecipeFile) -> None:
    for key in ("memory_bytes", "context_tokens", "max_output_tokens", "start_timeout_s", "expected_start_s"):
        if getattr(parsed, key) <= 0:
            raise ConfigurationError(str(path), key, "must be above 0", "write a positive number")
    if parsed.drain_timeout_s < 0:
        raise ConfigurationError(str(path), "drain_timeout_s", "must not be negative", "write 0 or more seconds")
    if parsed.max_output_tokens > parsed.context_tokens:
        raise ConfigurationError(
            str(path), "max_output_tokens", "is above context_tokens", "lower it or raise context_tokens"
        )
    if parsed.port is not None and not 1 <= parsed.port <= 65_535:
        raise ConfigurationError(str(path), "port", "is no TCP port", "write 1 to 65535, or leave it out")
    if not parsed.model or not parsed.price:
        key = "price" if parsed.model else "model"
        raise ConfigurationError(str(path), key, "is empty", "fill it in")


def _spec(path: Path, parsed: _RecipeFile) -> EngineSpec:
    return EngineSpec(
        name=path.stem,
        model=parsed.model,
        model_dir=(path.parent / Path(parsed.weights).expanduser()).resolve(),
        precision=parsed.precision,
        memory_bytes=parsed.memory_bytes,
        context_tokens=parsed.context_tokens,
        max_output_tokens=parsed.max_output_tokens,
        prefix_caching=parsed.prefix_caching,
        share_prefix_cache=parsed.share_prefix_cache,
        start_timeout_s=parsed.start_timeout_s,
        drain_timeout_s=parsed.drain_timeout_s,
        expected_start_s=parsed.expected_start_s,
        port=parsed.port,
        options=parsed.options,
    )
