"""How much memory this machine's devices have, without loading a CUDA library."""

import os
import shutil
import subprocess
from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal
from functools import cache

from backends.engines.launcher import EngineSpec
from core.errors import ConfigurationError

DeviceBytes = Callable[[str], int]
CPU = "cpu"
MIB = 1 << 20
QUERY = ("--query-gpu=index,memory.total", "--format=csv,noheader,nounits")
TIMEOUT_S = 20.0


def device_bytes(device: str) -> int:
    """Return the memory of `cpu` or `cuda:N`, in bytes.

    Raises:
        ConfigurationError: there is no such device.
    """
    if device == CPU:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = _gpus().get(device)
    if found is None:
        known = ", ".join((CPU, *_gpus()))
        raise ConfigurationError(f"device {device}", "", "is not in this machine", f"name one of: {known}")
    return found


def gpu_count() -> int:
    """Return how many GPUs this machine has."""
    return len(_gpus())


def memory_ratio(spec: EngineSpec, total_bytes: DeviceBytes) -> Decimal:
    """Return the engine's declared share of the smallest of its devices, rounded down to a thousandth.

    Engines that are started with it never claim more of a device together than they declare.

    Raises:
        ConfigurationError: there is no such device, or the share is more than all of it.
    """
    total = min(total_bytes(device) for device in spec.devices)
    ratio = Decimal(spec.memory_bytes) / len(spec.devices) / total
    if ratio > 1:
        problem = f"is more than {len(spec.devices)} x {total} bytes"
        raise ConfigurationError(f"recipe {spec.name}", "memory_bytes", problem, "lower it, or name more devices")
    return ratio.quantize(Decimal("0.001"), ROUND_DOWN)


@cache
def _gpus() -> dict[str, int]:
    """Ask the driver's own tool, once; there is no GPU where that tool is missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    try:
        asked = subprocess.run((program, *QUERY), capture_output=True, text=True, timeout=TIMEOUT_S, check=True)  # noqa: S603 - a fixed argument list
    except (OSError, subprocess.SubprocessError):
        return {}
    return parse_gpus(asked.stdout)


def parse_gpus(table: str) -> dict[str, int]:
    """Return bytes by device from lines such as `0, 81559`, which are in MiB."""
    rows = (line.split(",") for line in table.splitlines())
    cells = ([cell.strip() for cell in row] for row in rows)
    return {f"cuda:{row[0]}": int(row[1]) * MIB for row in cells if len(row) == 2 and all(map(str.isdecimal, row))}
