"""Spans of time as people write them on a command line: the last hours or days, a month, days, or everything."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from core.errors import ConfigurationError

EVERYTHING = "all"
_LAST = re.compile(r"(\d{1,5})([mhd])\Z")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
MEND = "write 24h, 7d, 2026-11, 2026-11-03, 2026-11-03..2026-11-10 or all"


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From `start` up to and without `end`, both in UTC."""

    start: datetime
    end: datetime

    @property
    def start_ms(self) -> int:
        """Return the start in Unix milliseconds."""
        return int(self.start.timestamp() * 1000)

    @property
    def end_ms(self) -> int:
        """Return the end in Unix milliseconds."""
        return int(self.end.timestamp() * 1000)


def parse_range(text: str, now: datetime, option: str = "--range") -> TimeRange:
    """Return the span that `text` means; days and months are those of UTC, and the last day is part of it.

    Raises:
        ConfigurationError: it is none, or ends before it begins.
    """
    last = _LAST.match(text)
    try:
        if text == EVERYTHING:
            return TimeRange(datetime.fromtimestamp(0, UTC), now + timedelta(seconds=1))
        if last is not None:
            return TimeRange(now - timedelta(**{_UNITS[last[2]]: int(last[1])}), now + timedelta(seconds=1))
        if len(text) == len("2026-11"):
            return month_of(text, option)
        first, _, final = text.partition("..")
        start, end = _day(first), _day(final or first) + timedelta(days=1)
    except (ValueError, OverflowError) as problem:
        raise ConfigurationError(option, "", f"{text[:40]!r} is no span of time", MEND) from problem
    if start >= end:
        raise ConfigurationError(option, "", f"{text[:40]!r} ends before it begins", MEND)
    return TimeRange(start, end)


def month_of(text: str, option: str = "--month") -> TimeRange:
    """Return a calendar month of UTC, written as `2026-11`.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        start = _day(f"{text}-01")
        return TimeRange(start, (start + timedelta(days=32)).replace(day=1))
    except (ValueError, OverflowError) as problem:
        raise ConfigurationError(option, "", f"{text[:40]!r} is no month", "write for example 2026-11") from problem


def _day(text: str) -> datetime:
    found = date.fromisoformat(text)
    return datetime(found.year, found.month, found.day, tzinfo=UTC)
