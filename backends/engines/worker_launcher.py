"""What the launchers of our own workers share: the command line, the bare environment, the first request."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from backends.engines.launcher import Capabilities, EngineSpec

SOURCE_ROOT = Path(__file__).resolve().parents[2]
INHERITED = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "TZ")
QUIET = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
"""Nothing is looked up on the network, and nothing is reported."""

WORKER = Capabilities(
    health_path="/health", isolates_prefixes=False, cancels_on_disconnect=True, drains_on_sigterm=True
)
"""What every worker built on `WorkerApp` can do."""


def worker_command(
    module: str, spec: EngineSpec, port: int, more: Mapping[str, object], flags: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the argument vector of a worker module; arguments that are None are left out."""
    arguments: dict[str, object] = {
        "model-dir": spec.model_dir,
        "name": spec.model,
        "port": port,
        "parent-pid": os.getpid(),
        "context-tokens": spec.context_tokens,
        "max-output-tokens": spec.max_output_tokens,
        "drain-timeout": spec.drain_timeout_s,
        **more,
    }
    pairs = tuple(f"--{name}={value}" for name, value in arguments.items() if value is not None)
    return (sys.executable, "-m", module, *pairs, *flags)


def inherited_environment() -> dict[str, str]:
    """Return the few variables that every engine gets from the gateway; never a key or a token."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


def worker_environment() -> dict[str, str]:
    """Return an environment without secrets, in which nothing is looked up on the network."""
    return inherited_environment() | {
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": str(SOURCE_ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        **QUIET,
    }


def first_request(model: str) -> bytes:
    """Return a chat request for one token, whose answer proves readiness."""
    message = {"role": "user", "content": "Hello"}
    return msgspec.json.encode({"model": model, "messages": [message], "max_tokens": 1})


def caches_prefixes(spec: EngineSpec, *, single_tenant: bool) -> bool:
    """Return whether an engine that cannot keep tenants' prefixes apart may cache them."""
    return spec.prefix_caching and (spec.share_prefix_cache or single_tenant)


def visible_devices(spec: EngineSpec) -> dict[str, str]:
    """Return the variable that shows an engine its own CUDA devices and no others."""
    numbers = [device.partition(":")[2] or "0" for device in spec.devices if device != "cpu"]
    return {"CUDA_VISIBLE_DEVICES": ",".join(numbers)}
