"""The environment that engines get: a few inherited variables, no secrets, and nothing that looks up or reports."""

import os
from pathlib import Path

from backends.engines.launcher import EngineSpec

SOURCE_ROOT = Path(__file__).resolve().parents[2]
INHERITED = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "TZ")
QUIET = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
"""Nothing is looked up on the network, and nothing is reported."""


def inherited_environment() -> dict[str, str]:
    """Return the few variables that every engine gets from the gateway; never a key or a token."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


def worker_environment() -> dict[str, str]:
    """Return the environment of our own modules as processes."""
    return inherited_environment() | {
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": str(SOURCE_ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        **QUIET,
    }


def visible_devices(spec: EngineSpec) -> dict[str, str]:
    """Return the variable that shows an engine its own CUDA devices and no others."""
    numbers = [device.partition(":")[2] or "0" for device in spec.devices if device != "cpu"]
    return {"CUDA_VISIBLE_DEVICES": ",".join(numbers)}
