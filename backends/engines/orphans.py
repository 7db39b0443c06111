"""Remembers which process group is whose, and ends groups that an earlier, killed gateway left behind.

A recorded group is ended only if its members carry the record's marker in their environment (process ids are reused)
and the gateway that recorded it is gone. Where there is no `/proc`, nothing is ended.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec

from backends.engines.cpu_time import stat_fields
from core.errors import ConfigurationError

PROC = Path("/proc")
MARKER = "HEADGATE_ENGINE"
GRACE_S = 3.0
POLL_S = 0.05


class GroupRecord(msgspec.Struct, frozen=True):
    """One engine's process group; `owner_started` is in clock ticks since boot, so that a reused pid is recognised."""

    group: int
    marker: str
    owner_pid: int
    owner_started: int


def record_group(file: Path, group: int, marker: str) -> None:
    """Write down that this process started `group`."""
    record = GroupRecord(group, marker, os.getpid(), _started(os.getpid()) or 0)
    part = file.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(record))
    part.replace(file)


def forget_group(file: Path) -> None:
    """Remove the record of a group that has ended."""
    file.unlink(missing_ok=True)


async def sweep_orphans(file: Path) -> int:
    """End the recorded group of a gateway that is gone, and return how many processes that were.

    Raises:
        ConfigurationError: the gateway that recorded the group is still running.
    """
    record = _read(file)
    if record is None:
        return 0
    members = list(_members(record))
    if members and _started(record.owner_pid) == record.owner_started:
        raise ConfigurationError(
            str(file),
            "",
            f"the process {record.owner_pid} runs this engine already",
            "stop that gateway, or give this one another state folder or name",
        )
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal(_members(record), number)
        await _gone(record)
    forget_group(file)
    return len(members)


def _read(file: Path) -> GroupRecord | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=GroupRecord)
    except (FileNotFoundError, msgspec.DecodeError, msgspec.ValidationError):
        return None


def _members(record: GroupRecord) -> Iterator[int]:
    wanted = f"{MARKER}={record.marker}".encode()
    for entry in PROC.glob("[0-9]*"):
        pid = int(entry.name)
        if _group(pid) == record.group and wanted in _environment(pid):
            yield pid


def _signal(pids: Iterator[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def _gone(record: GroupRecord) -> None:
    for _ in range(round(GRACE_S / POLL_S)):
        if next(_members(record), None) is None:
            return
        await asyncio.sleep(POLL_S)


def _group(pid: int) -> int | None:
    fields = stat_fields(PROC / str(pid))
    return int(fields[2]) if fields and fields[0] != "Z" else None


def _started(pid: int) -> int | None:
    fields = stat_fields(PROC / str(pid))
    return int(fields[19]) if fields and fields[0] != "Z" else None


def _environment(pid: int) -> list[bytes]:
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []
