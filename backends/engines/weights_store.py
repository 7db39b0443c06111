"""Where weights lie: relative paths, absolute ones, and `models:NAME` in one folder that belongs to no recipe."""

import os
from pathlib import Path

STORE = "models:"
STORE_VARIABLE = "HEADGATE_MODELS"


def models_folder() -> Path:
    """Return the folder of `models:NAME`: HEADGATE_MODELS, else `headgate/models` in the user's data folder."""
    chosen = os.environ.get(STORE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().resolve()
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser().resolve() / "headgate" / "models"


def resolve_weights(text: str, beside: Path) -> Path:
    """Return an absolute path; relative ones start at the folder `beside`."""
    if text.startswith(STORE):
        return models_folder() / text.removeprefix(STORE)
    return (beside / Path(text).expanduser()).resolve()
