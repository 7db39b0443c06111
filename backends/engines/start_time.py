"""Remembers how long an engine took to become ready, so that `Retry-After` is true from the first start on."""

import contextlib
from pathlib import Path


def remembered_start_s(file: Path) -> float | None:
    """Return the seconds of the last start, None when none is known."""
    try:
        seconds = float(file.read_text())
    except (OSError, ValueError):
        return None
    return seconds if 0 < seconds < float("inf") else None


def remember_start_s(file: Path, seconds: float) -> None:
    """Keep the seconds of a start; where they cannot be written, the next run guesses again."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{seconds:.3f}\n")
