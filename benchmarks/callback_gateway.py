"""The gateway's own command line on asyncio's event loop, which tells on SIGUSR2 its longest callbacks by CPU time.

    python -m benchmarks.callback_gateway FILE serve --port 8080

The first signal forgets what was seen until then, such as the start; each further one writes JSON to FILE. uvloop runs
callbacks without Python seeing them, so asyncio's own loop stands in for it: the callbacks are the same.
"""

import asyncio
import gc
import json
import signal
import sys
import time
from asyncio.events import Handle
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import uvloop

SHOWN = 12


@dataclass(slots=True)
class Collections:
    """How many collections of garbage there were, what they took, and what they found."""

    count: int = 0
    took_s: float = 0.0
    freed: int = 0

    def note(self, took_s: float, freed: int) -> None:
        """Count one."""
        self.count += 1
        self.took_s += took_s
        self.freed += freed

    def told(self, thread_s: float) -> dict[str, float]:
        """Return the figures, with the share of the CPU time that the loop's thread used meanwhile."""
        share, took_ms = round(self.took_s / thread_s, 4), round(1e3 * self.took_s, 2)
        return {"count": self.count, "cpu_ms": took_ms, "share": share, "freed": self.freed}


class Watch:
    """Times every callback by its thread's CPU time, and keeps the longest by name."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._longest: dict[str, float] = {}
        self._count = 0
        self._is_on = False
        self._began_s = self._collection_s = 0.0
        self._collections = Collections()

    def install(self) -> None:
        """Have every callback, and every collection of garbage within one, timed from now on."""
        gc.callbacks.append(self._collect)
        run = Handle._run

        def timed(handle: Handle) -> None:
            began_s = time.thread_time()
            run(handle)
            self._note(handle, time.thread_time() - began_s)

        Handle._run = timed  # type: ignore[method-assign,assignment]

    def toggle(self, number: int, frame: FrameType | None) -> None:
        """Forget, or write; runs in the main thread, as signal handlers do."""
        if self._is_on:
            longest = sorted(self._longest.items(), key=lambda item: -item[1])[:SHOWN]
            told = {
                "callbacks": self._count,
                "longest_ms": {name: round(1e3 * took, 3) for name, took in longest},
                "collections": self._collections.told(time.thread_time() - self._began_s),
            }
            part = self._file.with_suffix(".part")
            part.write_text(json.dumps(told))
            part.replace(self._file)
        self._is_on = True
        self._count = 0
        self._longest.clear()
        self._collections = Collections()
        self._began_s = time.thread_time()

    def _collect(self, phase: str, told: dict[str, int]) -> None:
        if phase == "start":
            self._collection_s = time.thread_time()
        else:
            took_s = time.thread_time() - self._collection_s
            name = f"collection of generation {told['generation']}"
            self._longest[name] = max(self._longest.get(name, 0.0), took_s)
            self._collections.note(took_s, told["collected"])

    def _note(self, handle: Handle, took_s: float) -> None:
        self._count += 1
        callback: Any = handle._callback  # type: ignore[attr-defined]
        task = getattr(callback, "__self__", None)
        name = getattr(callback, "__qualname__", type(callback).__name__)
        if isinstance(task, asyncio.Task):
            name = getattr(task.get_coro(), "__qualname__", name)
        if took_s > self._longest.get(name, 0.0):
            self._longest[name] = took_s


def main() -> int:
    """Serve on the watched loop."""
    from gateway.cli import main as command_line

    watch = Watch(Path(sys.argv[1]))
    watch.install()
    uvloop.new_event_loop = asyncio.new_event_loop  # type: ignore[assignment]  # see above
    signal.signal(signal.SIGUSR2, watch.toggle)
    return command_line(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
