"""The gateway's own command line, which tells on SIGUSR2 how many tasks and objects are alive in it.

    python -m benchmarks.soak_gateway FILE serve --port 8080

Each signal writes one JSON object to FILE.
"""

import asyncio
import gc
import json
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType

from gateway.cli import main


class Census:
    """Counts what is alive; runs in the main thread, as signal handlers do."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Write the counts."""
        gc.collect()
        tasks = asyncio.all_tasks(asyncio.get_running_loop())
        names = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks if not task.done())
        told = {
            "tasks": sum(names.values()),
            "threads": threading.active_count(),
            "objects": len(gc.get_objects()),
            "by_name": dict(names.most_common(30)),
        }
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(told))
        part.replace(self._file)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, Census(Path(sys.argv[1])))
    sys.exit(main(sys.argv[2:]))
