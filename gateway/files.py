"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from core.errors import ConfigurationError


def write_whole(path: Path, text: str, check: Callable[[Path], object] | None = None) -> None:
    """Write `text` under a temporary name beside `path`, let `check` read that, and put it in place in one step.

    Raises:
        ConfigurationError: it cannot be written, or `check` refuses it; what was there stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        draft = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            if check is not None:
                check(draft)
            draft.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as problem:
        reason = problem.strerror or "cannot be written"
        raise ConfigurationError(str(path), "", reason, "check the folder and its rights") from problem
