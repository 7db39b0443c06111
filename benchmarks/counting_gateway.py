"""The gateway's own command line, counting the Python calls of its main thread between two SIGUSR2.

    python -m benchmarks.counting_gateway FILE serve --port 8080

The first signal starts the count, the second writes it to FILE. Resumed coroutines and calls into C are counted too.
"""

import signal
import sys
from pathlib import Path
from types import FrameType

from gateway.cli import main

CALLS = frozenset({"call", "c_call"})


class Counter:
    """Counts calls while it is the thread's profile function."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._calls = 0
        self._is_on = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Count one event."""
        if event in CALLS:
            self._calls += 1

    def toggle(self, number: int, frame: FrameType | None) -> None:
        """Start, or stop and write; runs in the main thread, as signal handlers do."""
        if not self._is_on:
            self._is_on, self._calls = True, 0
            sys.setprofile(self)
            return
        sys.setprofile(None)
        self._is_on = False
        self._file.write_text(str(self._calls))


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, Counter(Path(sys.argv[1])).toggle)
    sys.exit(main(sys.argv[2:]))
