"""The last lines that an engine wrote, bounded in number and length, free of control characters."""

import re
from collections import deque
from itertools import takewhile

MAX_LINES = 500
MAX_LINE_CHARS = 500
NOTE = "supervisor: "
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class LogRing:
    """Collects output in chunks as they come from a pipe."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._partial = b""
        self._added = 0

    def feed(self, chunk: bytes) -> None:
        """Take bytes; a line that never ends is cut, bytes that are no UTF-8 become U+FFFD."""
        *complete, self._partial = (self._partial + chunk).split(b"\n")
        for line in complete:
            self.add(line.decode("utf-8", "replace"))
        if len(self._partial) > 4 * MAX_LINE_CHARS:
            self.add(self._partial.decode("utf-8", "replace"))
            self._partial = b""

    def add(self, line: str) -> None:
        """Append one line unless it is blank."""
        clean = CONTROLS.sub("", line).rstrip()
        if clean:
            self._lines.append(clean[:MAX_LINE_CHARS])
            self._added += 1

    def lines(self) -> tuple[str, ...]:
        """Return what is kept, oldest first, an unfinished last line included."""
        rest = CONTROLS.sub("", self._partial.decode("utf-8", "replace")).strip()
        return (*self._lines, rest[:MAX_LINE_CHARS]) if rest else tuple(self._lines)

    def after(self, number: int) -> tuple[tuple[str, ...], int]:
        """Return the complete lines after number `number`, all for a negative one, and the number of the last.

        Numbers count every line ever written, so that a reader can follow; lines that fell out meanwhile are skipped.
        """
        fresh = min(len(self._lines), self._added - max(0, number))
        return tuple(self._lines)[len(self._lines) - fresh :], self._added

    def note(self, line: str) -> None:
        """Append a line of the supervisor's own."""
        self.add(f"{NOTE}{line}")

    def begin(self) -> None:
        """Mark the start of another process."""
        if self._partial:
            self.feed(b"\n")
        self.note("starting")

    def last(self) -> str:
        """Return the most telling line of the present process: the last `error:` line, or the last one, or nothing."""
        lines = list(takewhile(lambda line: not line.startswith(NOTE), reversed(self.lines())))
        return next((line for line in lines if line.startswith("error:")), lines[0] if lines else "")
