"""Reads from `/proc` how much CPU time and memory an engine's process group uses."""

import os
from fractions import Fraction
from pathlib import Path

PROC = Path("/proc")
_GROUP, _FIRST_TIME, _AFTER_TIMES = 2, 11, 15
"""Places in `/proc/PID/stat` after the command: the group, then utime, stime, cutime and cstime (proc_pid_stat(5))."""


def group_cpu_s(group: int, proc: Path = PROC) -> Fraction:
    """Return the CPU seconds, user and system, of a process group; its ended children count with their parent.

    Exact to a clock tick, usually 10 ms, for each process.

    Raises:
        ProcessLookupError: the group has no process, or there is no `/proc`.
    """
    found = [fields for entry in proc.glob("[0-9]*") if (fields := stat_fields(entry)) and int(fields[_GROUP]) == group]
    if not found:
        raise ProcessLookupError(f"no process of group {group}")
    ticks = sum(int(ticks) for fields in found for ticks in fields[_FIRST_TIME:_AFTER_TIMES])
    return Fraction(ticks, os.sysconf("SC_CLK_TCK"))


def stat_fields(process: Path) -> list[str]:
    """Return what `/proc/PID/stat` holds after the command, the state first; empty when the process is gone."""
    try:
        return (process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def group_resident_bytes(group: int, proc: Path = PROC) -> int | None:
    """Return the memory of a process group, shared pages counted once, or None where `/proc` does not tell."""
    sizes = [
        _proportional_bytes(entry)
        for entry in proc.glob("[0-9]*")
        if (fields := stat_fields(entry)) and int(fields[_GROUP]) == group
    ]
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


def _proportional_bytes(process: Path) -> int | None:
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), None)
