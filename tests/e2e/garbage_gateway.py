"""The gateway's own command line, which tells on SIGUSR2 how many objects only a collection of garbage could free.

    python -m tests.e2e.garbage_gateway FILE serve --port 8080

Every signal writes how many there were since the one before, of which types, and the collector is off in between.
"""

import gc
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from gateway.cli import main


class Garbage:
    """Counts what was left in circles; runs in the main thread, as signal handlers do."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Write the counts, and begin anew."""
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        found = Counter(type(one).__qualname__ for one in gc.garbage)
        gc.garbage.clear()
        gc.collect()
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps({"objects": sum(found.values()), "types": dict(found.most_common(20))}))
        part.replace(self._file)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, Garbage(Path(sys.argv[1])))
    sys.exit(main(sys.argv[2:]))
