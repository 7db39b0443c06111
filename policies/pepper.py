"""The pepper, secret of key hashes and cache keys: an environment variable, or a file that is made on first use."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from core.errors import ConfigurationError

PEPPER_BYTES = 32
PEPPER_VARIABLE = "HEADGATE_PEPPER"
"""Replicas that share a store need the same pepper: set this to the content of one replica's file."""
_RESTORE = "restore it; without it no key is valid"


def load_pepper(path: Path, environment: Mapping[str, str] = os.environ) -> bytes:
    """Return the pepper of the environment, else that of the file, which is made (mode 0600) on first use.

    Raises:
        ConfigurationError: it cannot be used, is readable by others, or is something else.
    """
    text = environment.get(PEPPER_VARIABLE)
    if text is not None:
        return _parsed(text, PEPPER_VARIABLE)
    try:
        if not path.exists():
            _create(path)
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(str(path), "", "readable by others", f"run `chmod 600 {path}`")
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeError) as problem:
        raise ConfigurationError(str(path), "", f"cannot be read as a pepper ({problem})", _RESTORE) from problem
    return _parsed(text, str(path))


def _parsed(text: str, where: str) -> bytes:
    try:
        pepper = bytes.fromhex(text.strip())
    except ValueError as problem:
        said = "cannot be read as a pepper (not hexadecimal)"
        raise ConfigurationError(where, "", said, _RESTORE) from problem
    if len(pepper) != PEPPER_BYTES:
        raise ConfigurationError(where, "", f"holds {len(pepper)} bytes, not {PEPPER_BYTES}", _RESTORE)
    return pepper


def _create(path: Path) -> None:
    """Write the file in full before it gets its name, so that two processes that start together agree on one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as target:
            target.write(secrets.token_hex(PEPPER_BYTES) + "\n")
            target.flush()
            os.fsync(target.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass  # the other process was first; its pepper counts
    finally:
        draft.unlink()
