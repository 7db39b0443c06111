"""Time as a seam: monotonic seconds for durations, aware UTC for calendars, and a twin that tests move by hand."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from; `unix_s` is `now` as a number, for what only compares."""

    def monotonic_s(self) -> float:
        """Return seconds from an arbitrary origin, never going back."""
        ...

    def now(self) -> datetime:
        """Return the present moment, aware and in UTC."""
        ...

    def unix_s(self) -> float:
        """Return the present moment in seconds since the Unix epoch."""
        ...


class SystemClock:
    """The machine's clocks."""

    unix_s = staticmethod(time.time)
    monotonic_s = staticmethod(time.monotonic)
    """The event loop's clock too; read some thirty times a request, so nothing stands between."""

    def now(self) -> datetime:
        """Return the wall clock in UTC."""
        return datetime.now(UTC)


class ManualClock:
    """A clock that stands still until it is told to advance."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._monotonic_s = 0.0

    def monotonic_s(self) -> float:
        """Return the seconds advanced so far."""
        return self._monotonic_s

    def now(self) -> datetime:
        """Return the start plus the seconds advanced so far."""
        return self._now

    def unix_s(self) -> float:
        """Return `now` in seconds since the Unix epoch."""
        return self._now.timestamp()

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._monotonic_s += seconds
        self._now += timedelta(seconds=seconds)
