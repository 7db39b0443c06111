"""The owner's key of the admin listener, in a file that is made on first use."""

import os
import secrets
from pathlib import Path

from core.errors import ConfigurationError

LEAST_CHARS = 32


def load_owner_key(path: Path) -> str:
    """Read the key, making one (mode 0600) on first use.

    Raises:
        ConfigurationError: the file cannot be read or written, or is too short to be a key.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"hga_{secrets.token_hex(32)}\n")
        key = path.read_text().strip()
    except OSError as problem:
        reason = problem.strerror or "cannot be used"
        raise ConfigurationError(str(path), "admin.key_file", reason, "check the path and its rights") from problem
    if len(key) < LEAST_CHARS:
        said = f"shorter than {LEAST_CHARS} characters"
        raise ConfigurationError(str(path), "admin.key_file", said, "remove it to get a new one")
    return key
