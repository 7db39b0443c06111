"""The gateway's own command line, which tells on SIGUSR2 what is alive in it: tasks, objects, the largest containers.

    python -m benchmarks.soak_gateway FILE serve --port 8080

Each signal writes one JSON object to FILE.
"""

import asyncio
import gc
import json
import signal
import sys
import threading
from collections import Counter, OrderedDict, deque
from pathlib import Path
from types import FrameType
from typing import Any

from gateway.cli import main

LARGE = 1_000
POOL = ("asyncio_", "uvloop_")
"""The loop's pool starts threads when it needs them, up to a bound, and keeps them."""
OURS = ("backends.", "cache.", "core.", "gateway.", "policies.", "router.")


class Census:
    """Counts what is alive; runs in the main thread, as signal handlers do."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Write the counts."""
        gc.collect()
        tasks = asyncio.all_tasks(asyncio.get_running_loop())
        names = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks if not task.done())
        lasting = [one for one in threading.enumerate() if not one.name.startswith(POOL)]
        gc.unfreeze()  # what is kept from collections would not be listed
        objects = gc.get_objects()
        gc.freeze()
        told = {
            "tasks": sum(names.values()),
            "threads": len(lasting),
            "pool_threads": threading.active_count() - len(lasting),
            "objects": len(objects),
            "blocks": sys.getallocatedblocks(),
            "by_name": dict(names.most_common(30)),
            "threads_by_name": sorted(one.name for one in lasting),
            "largest": largest(objects),
        }
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(told))
        part.replace(self._file)


def largest(objects: list[Any]) -> dict[str, int]:
    """Return how much every container of ours with at least `LARGE` entries holds, by the class whose it is."""
    sizes: Counter[str] = Counter()
    for one in objects:
        kind = type(one)
        if str(kind.__module__).startswith(OURS):  # of a type, it may be anything
            for held in gc.get_referents(one):
                if isinstance(held, dict | set | list | OrderedDict | deque) and len(held) >= LARGE:
                    name = f"{kind.__module__}.{kind.__qualname__}"
                    sizes[name] = max(sizes[name], len(held))
    return dict(sizes.most_common(20))


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, Census(Path(sys.argv[1])))
    sys.exit(main(sys.argv[2:]))
