"""When an engine is reloaded without being asked: from time to time, in a daily window, and when its weights change."""

from dataclasses import dataclass
from datetime import UTC, datetime, time, tzinfo
from pathlib import Path

Fingerprint = frozenset[tuple[str, int, int]]


@dataclass(frozen=True, slots=True)
class ReloadPlan:
    """The operator's wish for one engine.

    Attributes:
        every_s: how old a process may become, None for any age.
        between: the daily window in which age counts, its end not included; it may span midnight. None for always.
        zone: in which the window is read.
        on_change: reload when the weights' files changed and were left alone for one look.
    """

    every_s: float | None = None
    between: tuple[time, time] | None = None
    zone: tzinfo = UTC
    on_change: bool = False

    def is_due(self, age_s: float, now: datetime) -> bool:
        """Tell whether a process that has been ready for `age_s` seconds is to be replaced at `now` (aware)."""
        if self.every_s is None or age_s < self.every_s:
            return False
        if self.between is None:
            return True
        begin, end = self.between
        local = now.astimezone(self.zone).time()
        return begin <= local < end if begin <= end else local >= begin or local < end


class WeightsWatch:
    """Notices when the files of one engine's weights have changed and are no longer being written."""

    def __init__(self) -> None:
        self._known: Fingerprint | None = None
        self._changed: Fingerprint | None = None

    def look(self, present: Fingerprint) -> bool:
        """Take what is there now; True once for each change, when two looks in a row saw the same."""
        if self._known is None or present == self._known:
            self._known, self._changed = present, None
            return False
        if present != self._changed or not present:
            self._changed = present
            return False
        self._known, self._changed = present, None
        return True


def fingerprint(weights: Path) -> Fingerprint:
    """Return name, size and time of change of every file of the weights, a folder or one file; it reads no content."""
    files = [weights] if weights.is_file() else [file for file in weights.rglob("*") if file.is_file()]
    found = []
    for file in files:
        try:
            about = file.stat()
        except OSError:
            continue
        found.append((str(file.relative_to(weights)), about.st_size, about.st_mtime_ns))
    return frozenset(found)
