"""What processes cost: CPU time and memory of a process and its children, read from /proc; which core they may use."""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
QUIET_US = 50_000.0


def with_children(pid: int) -> set[int]:
    """Return a process and all its descendants."""
    found, looking = {pid}, [pid]
    while looking:
        for task in Path(f"/proc/{looking.pop()}/task").glob("*/children"):
            with suppress(OSError):
                new = {int(child) for child in task.read_text().split()} - found
                found |= new
                looking += new
    return found


def cpu_us(pids: Iterable[int]) -> float:
    """Return the CPU microseconds that all threads of these processes have used, as the scheduler counts them (ns)."""
    total_ns = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with suppress(OSError):
                total_ns += int(task.read_text().split()[0])
    return total_ns / 1_000


def main_thread_us(pid: int) -> float:
    """Return the CPU microseconds that a process's first thread has used, which runs the event loop of a gateway."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1_000


def rss_mib(pids: Iterable[int]) -> float:
    """Return the resident memory of these processes; shared pages count once for each."""
    pages = 0
    for pid in pids:
        with suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * PAGE_BYTES / 2**20


def pin(pids: Iterable[int], core: int) -> None:
    """Let every thread of these processes run on one core only."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                os.sched_setaffinity(int(task.name), {core})


def await_quiet(pid: int, limit_s: float = 60.0) -> None:
    """Wait until a process has started up: it and its children use less than a twentieth of a core for a second."""
    give_up_at_s = time.monotonic() + limit_s
    used_us = -1e9
    while time.monotonic() < give_up_at_s:
        before_us, used_us = used_us, cpu_us(with_children(pid))
        if used_us - before_us < QUIET_US:
            return
        time.sleep(1.0)
