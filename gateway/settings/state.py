"""The key `state`: which store the gateway uses, and where the files of this replica lie."""

import os
from collections.abc import Mapping
from pathlib import Path

from core.errors import ConfigurationError
from gateway.settings.environment import listed_variables
from policies.safe_yaml import parse_document, parse_yaml, read_text
from policies.schema import convert

DEFAULT_STATE = "sqlite:var/headgate.db"


def redis_url(state: str) -> str | None:
    """Return where the shared state lies, None when it is a file."""
    return state if state.startswith(("redis://", "rediss://", "unix://")) else None


def state_path(state: str, file: str) -> str:
    """Return where the files of this replica lie: with Redis, what is not shared stays beside the default path.

    Raises:
        ConfigurationError: it is no store.
    """
    if redis_url(state) is not None:
        return DEFAULT_STATE.removeprefix("sqlite:")
    kind, _, path = state.partition(":")
    if kind != "sqlite" or not path:
        mend = "write sqlite:PATH or redis://HOST:PORT/DB"
        raise ConfigurationError(file, "state", f"{state[:80]!r} is not a store", mend)
    return path


def state_folder(path: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the state, whether or not the rest of the operator's file can be used yet.

    Raises:
        ConfigurationError: the file cannot be read, or `state` is no store.
    """
    file, text = str(path), read_text(path)
    raw = parse_document(text, file, listed_variables(parse_yaml(text, file), file, environ)).content
    written = raw.get("state", DEFAULT_STATE) if isinstance(raw, dict) else DEFAULT_STATE
    return (path.resolve().parent / state_path(convert(written, str, file, "state"), file)).parent


def state_folder_or_default(path: Path) -> Path:
    """Return the folder of the state; that of the default state where there is no operator's file."""
    return state_folder(path) if path.exists() else Path("var")
