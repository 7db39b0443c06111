"""The key `environment`: which variables the operator's and the tenants' files may quote, and what they hold."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from core.errors import ConfigurationError
from policies.schema import convert

_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def listed_variables(raw: object, file: str, environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables that a parsed file lists and their values, None where one is not set.

    Raises:
        ConfigurationError: a name is none, or the file that a `NAME_FILE` names cannot be read.
    """
    listed = raw.get("environment") if isinstance(raw, dict) else None
    names = convert([] if listed is None else listed, list[str], file, "environment")
    for at, name in enumerate(names):
        if not _VARIABLE_NAME.match(name):
            problem = f"{name[:80]!r} is not a variable's name"
            raise ConfigurationError(file, f"environment[{at}]", problem, "write it without $ and braces")
    return {name: _value(name, file, f"environment[{at}]", environ) for at, name in enumerate(names)}


def refuse_secrets(listed: Sequence[str], secrets: Collection[str | None], file: str) -> None:
    """Keep the variables of providers' keys out of what files can quote.

    Raises:
        ConfigurationError: one of `secrets` is listed.
    """
    for at, name in enumerate(listed):
        if name in secrets:
            problem = f"{name!r} holds a key, which files must not be able to quote"
            raise ConfigurationError(file, f"environment[{at}]", problem, "remove it from the list")


def _value(name: str, file: str, key: str, environ: Mapping[str, str]) -> str | None:
    """Return a variable's value, or what stands in the file that `NAME_FILE` names, as containers get their secrets."""
    path = environ.get(f"{name}_FILE")
    if name in environ or path is None:
        return environ.get(name)
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not text"
        mend = f"correct {name}_FILE, or set {name} itself"
        raise ConfigurationError(file, key, f"{path} cannot be read ({reason})", mend) from problem
