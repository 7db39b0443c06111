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
