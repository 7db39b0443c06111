"""Parses the `options` of a recipe strictly into what one kind of engine understands."""

from typing import TypeVar

import msgspec

from backends.engines.launcher import EngineSpec
from core.errors import ConfigurationError

T = TypeVar("T", bound=msgspec.Struct)


def parse_options(spec: EngineSpec, kind: type[T]) -> T:
    """Return the recipe's options as `kind`.

    Raises:
        ConfigurationError: an option is unknown or of the wrong kind.
    """
    try:
        return msgspec.convert(dict(spec.options), kind)
    except msgspec.ValidationError as problem:
        what, _, where = str(problem).partition(" - at `$.")
        key = f"options.{where.rstrip('`')}" if where else "options"
        known = ", ".join(kind.__struct_fields__)
        raise ConfigurationError(f"recipe {spec.name}", key, what.lower(), f"known options: {known}") from problem


def refuse_small_cache(spec: EngineSpec, cache_tokens: int | None) -> None:
    """Refuse a KV cache that cannot hold one context.

    Raises:
        ConfigurationError: it is too small.
    """
    if cache_tokens is not None and cache_tokens < spec.context_tokens:
        raise ConfigurationError(
            f"recipe {spec.name}",
            "options.cache_tokens",
            f"{cache_tokens} tokens cannot hold one context of {spec.context_tokens}",
            "raise it, or lower context_tokens",
        )
