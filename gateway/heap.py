"""The garbage collector, set for a process that serves: each of its looks is short, and few are needed.

While the collector looks, nobody is served, for about 0.3 µs with each object. A finished request leaves nothing to it
(`tests/e2e/test_garbage.py`), so it looks at the young objects alone, few at a time, and at those that survived a few
looks. What was loaded at the start, or outlived a look at everything, it is kept from for ever. A look at everything is
due only when memory has grown: at a moment when nothing is under way, or at once when it has grown by very much.
"""

import asyncio
import gc
import os
from collections.abc import Callable
from pathlib import Path

YOUNG_OBJECTS = 5_000
YOUNG_ROUNDS = 10
STATM = Path("/proc/self/statm")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
NEVER = 1_000_000_000
POLL_S = 1.0
GROWN_BYTES = 8 * 2**20
"""So much more resident memory is worth a look while nobody waits."""
MOST_GROWN_BYTES = 128 * 2**20


def collect_rarely() -> None:
    """Look at young objects whenever `YOUNG_OBJECTS` more are alive, and never by itself at all of them."""
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_ROUNDS, NEVER)


def resident_bytes() -> int:
    """Return the process's resident memory, 0 where the system does not tell (proc_pid_statm(5))."""
    try:
        return int(STATM.read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return 0


class Heap:
    """Looks at everything when it is time to; used from the event loop."""

    def __init__(self, is_idle: Callable[[], bool], size_bytes: Callable[[], int] = resident_bytes) -> None:
        """`is_idle` tells whether nobody would wait for a look; `size_bytes` how much memory the process uses."""
        self._is_idle = is_idle
        self._size_bytes = size_bytes
        self._kept_bytes = 0

    def keep(self) -> None:
        """Take what is there now for kept: no collection looks at it again."""
        gc.freeze()
        self._kept_bytes = self._size_bytes()

    def tend(self) -> bool:
        """Look at everything that is not kept yet, if it is time to, and keep the rest; returns whether it was."""
        grown_bytes = self._size_bytes() - self._kept_bytes
        is_due = grown_bytes >= MOST_GROWN_BYTES or (grown_bytes >= GROWN_BYTES and self._is_idle())
        if is_due:
            gc.collect()
            self.keep()
        return is_due

    async def run(self, is_loaded: Callable[[], bool], poll_s: float = POLL_S) -> None:
        """Keep what is there now, and again once all is loaded; from then on tend, for as long as the gateway lives."""
        self.keep()
        while not is_loaded():  # noqa: ASYNC110 - a thread loads, and has no event of the loop
            await asyncio.sleep(poll_s)
        self.keep()
        while True:
            await asyncio.sleep(poll_s)
            self.tend()
