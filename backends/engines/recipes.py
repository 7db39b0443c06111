"""Reads recipes: small YAML files that say which weights an engine serves, how, and at what price."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, get_args, get_type_hints

import msgspec

from backends.declared_abilities import UNDECLARED, DeclaredAbilities
from backends.engines.launcher import EngineSpec, Precision
from backends.engines.weights_store import resolve_weights
from core.errors import ConfigurationError

RECIPES_DIR = Path(__file__).resolve().parent.parent / "recipes"

EngineKind = Literal["openvino", "transformers", "vllm", "llama-server", "command"]
RawPrice = Mapping[str, object]
DEVICE = re.compile(r"cpu|cuda:\d+")


def says(text: str) -> msgspec.Meta:
    """Describe a key for the generated reference."""
    return msgspec.Meta(description=text)


class HubSource(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where `headgate models pull` gets the weights."""

    repo: Annotated[str, says("Repository on the model hub, such as `Qwen/Qwen3-8B`.")]
    revision: Annotated[str, says("Branch, tag or commit; a commit makes pulls repeatable.")] = "main"
    files: Annotated[list[str], says("Only files like these patterns; all that engines need without it.")] = []


class _RecipeFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The YAML of a recipe, key by key."""

    engine: Annotated[EngineKind, says("Which kind of engine serves it.")]
    weights: Annotated[
        str, says("Folder or file, relative to this file, absolute, or `models:NAME` in the models folder.")
    ]
    precision: Annotated[Precision, says("What the weights are stored in; other weights are refused.")]
    model: Annotated[str, says("The name that the engine serves it under.")]
    memory_bytes: Annotated[
        int,
        says("What the engine may use at most, weights and KV cache, over all its devices; claimed before a start."),
    ]
    context_tokens: Annotated[int, says("Prompt and answer together.")]
    max_output_tokens: Annotated[int, says("The longest answer.")]
    price: Annotated[dict[str, object], says("What a token costs; figures as in headgate.yaml.")]
    hub: Annotated[HubSource | None, says("Where `headgate models pull` gets the weights.")] = None
    weights_digest: Annotated[
        str | None, says("What `headgate models check` must find, as it prints it; other weights are refused.")
    ] = None
    devices: Annotated[list[str], says("`cpu`, or one or more of `cuda:0`, `cuda:1` …; memory is spread evenly.")] = (
        msgspec.field(default_factory=lambda: ["cpu"])
    )
    hourly_usd: Annotated[Decimal | None, says("An hour of the whole machine, for `headgate prices measure`.")] = None
    full_precision: Annotated[
        str | None, says("Name of the recipe of the same model at full precision, for what quantisation saves.")
    ] = None
    prefix_caching: Annotated[bool, says("Reuse the KV cache of common beginnings, where tenants stay apart.")] = True
    share_prefix_cache: Annotated[bool, says("Reuse them across tenants, who could then time each other.")] = False
    start_timeout_s: Annotated[float, says("How long loading and the first token may take.")] = 120.0
    drain_timeout_s: Annotated[float, says("How long running requests may go on when the engine stops.")] = 10.0
    expected_start_s: Annotated[float, says("A first guess for `Retry-After`; later the measured time counts.")] = 5.0
    sleep_after_s: Annotated[float | None, says("Idle seconds after which the engine gives its memory back.")] = None
    port: Annotated[int | None, says("A fixed loopback port; any free one without it.")] = None
    allow_unevaluated: Annotated[
        bool, says("Let a model that `headgate models quantize` made take traffic without a passed evaluation.")
    ] = False
    abilities: Annotated[
        DeclaredAbilities, says("What a tier below the dearest may be asked for, in place of what the probe found.")
    ] = UNDECLARED
    options: Annotated[dict[str, object], says("What only this kind of engine understands.")] = msgspec.field(
        default_factory=dict
    )


@dataclass(frozen=True, slots=True)
class Recipe:
    """One recipe: the engine, and the raw price, which only the price table interprets."""

    name: str
    file: Path
    engine: EngineKind
    spec: EngineSpec
    price: RawPrice
    hourly_usd: Decimal | None
    full_precision: str | None = None
    hub: HubSource | None = None
    weights_digest: str | None = None
    allow_unevaluated: bool = False
    abilities: DeclaredAbilities = UNDECLARED


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
    return Recipe(
        name=path.stem,
        file=path,
        engine=parsed.engine,
        spec=_spec(path, parsed),
        price=parsed.price,
        hourly_usd=parsed.hourly_usd,
        full_precision=parsed.full_precision,
        hub=parsed.hub,
        weights_digest=parsed.weights_digest,
        allow_unevaluated=parsed.allow_unevaluated,
        abilities=parsed.abilities,
    )


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
    if parsed.sleep_after_s is not None and parsed.sleep_after_s <= 0:
        raise ConfigurationError(str(path), "sleep_after_s", "must be above 0", "write seconds, or leave it out")
    if parsed.max_output_tokens > parsed.context_tokens:
        raise ConfigurationError(
            str(path), "max_output_tokens", "is above context_tokens", "lower it or raise context_tokens"
        )
    if parsed.port is not None and not 1 <= parsed.port <= 65_535:
        raise ConfigurationError(str(path), "port", "is no TCP port", "write 1 to 65535, or leave it out")
    wrong = next((device for device in parsed.devices if not DEVICE.fullmatch(device)), None)
    mixed = len(set(parsed.devices)) != len(parsed.devices) or ("cpu" in parsed.devices and len(parsed.devices) > 1)
    if wrong is not None or mixed or not parsed.devices:
        what = (
            f"{wrong!r} is no device" if wrong is not None else "is empty, repeats a device, or mixes cpu with others"
        )
        raise ConfigurationError(str(path), "devices", what, "write [cpu], or [cuda:0] and more numbers")
    if not parsed.model or not parsed.price:
        key = "price" if parsed.model else "model"
        raise ConfigurationError(str(path), key, "is empty", "fill it in")


def _spec(path: Path, parsed: _RecipeFile) -> EngineSpec:
    return EngineSpec(
        name=path.stem,
        model=parsed.model,
        model_dir=resolve_weights(parsed.weights, path.parent),
        precision=parsed.precision,
        memory_bytes=parsed.memory_bytes,
        context_tokens=parsed.context_tokens,
        max_output_tokens=parsed.max_output_tokens,
        prefix_caching=parsed.prefix_caching,
        share_prefix_cache=parsed.share_prefix_cache,
        start_timeout_s=parsed.start_timeout_s,
        drain_timeout_s=parsed.drain_timeout_s,
        expected_start_s=parsed.expected_start_s,
        sleep_after_s=parsed.sleep_after_s,
        port=parsed.port,
        devices=tuple(parsed.devices),
        options=parsed.options,
    )


def recipe_keys() -> tuple[tuple[str, str], ...]:
    """Return every key of a recipe with what it says, for the reference in docs/hosting.md."""
    hints = get_type_hints(_RecipeFile, include_extras=True)
    return tuple((name, _description(hints[name])) for name in _RecipeFile.__struct_fields__)


def _description(hint: object) -> str:
    meta = next(part for part in get_args(hint) if isinstance(part, msgspec.Meta))
    return meta.description or ""
