"""Calendar windows of an IANA zone as half-open intervals of aware UTC, so that no daylight saving can bend them.

Consecutive windows of one kind and zone share their boundary: every moment lies in exactly one of them. Days, weeks and
months begin at the zone's first local midnight of their first date (the moment of the change where the clock skips
midnight); a day may thus last 23 or 25 hours. Hours and minutes follow the zone's present offset, cut at a change.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from core.clock import Clock
from core.rules import WindowKind

_SHORT = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}


@dataclass(frozen=True, slots=True)
class Window:
    """One calendar window, `starts_at` included and `ends_at` not; `window_id` is unique within kind and zone."""

    window_id: str
    starts_at: datetime
    ends_at: datetime


def window_at(kind: WindowKind, zone: ZoneInfo, moment: datetime) -> Window:
    """Return the window of `zone` that holds `moment` (aware)."""
    if kind == "minute" or kind == "hour":
        return _short_window(_SHORT[kind], zone, moment.astimezone(UTC))
    first = _first_date(kind, moment.astimezone(zone).date())
    while True:
        following = _next_date(kind, first)
        window = Window(_label(kind, first), _midnight(first, zone), _midnight(following, zone))
        # A clock set back across midnight shows yesterday's date again; those moments stay with the new date.
        if moment < window.ends_at:
            return window
        first = following


def _short_window(length: timedelta, zone: ZoneInfo, moment: datetime) -> Window:
    offset = _offset(zone, moment)
    wall = moment + offset
    since = timedelta(seconds=(wall - datetime.min.replace(tzinfo=UTC)) % length // timedelta(seconds=1))
    starts_at = moment.replace(microsecond=0) - since
    ends_at = starts_at + length
    if _offset(zone, starts_at) != offset:
        starts_at = _change_between(starts_at, moment, zone)
    if _offset(zone, ends_at - timedelta(seconds=1)) != offset:
        ends_at = _change_between(moment, ends_at, zone)
    return Window(starts_at.strftime("%Y-%m-%dT%H:%M:%SZ"), starts_at, ends_at)


def _change_between(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """Return the first whole second in (before, after] with the offset of `after`, by bisection."""
    before, after = before.replace(microsecond=0), after.replace(microsecond=0)
    wanted = _offset(zone, after)
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=int((after - before).total_seconds()) // 2)
        if _offset(zone, middle) == wanted:
            after = middle
        else:
            before = middle
    return after


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


def _first_date(kind: WindowKind, day: date) -> date:
    if kind == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if kind == "month" else day


def _next_date(kind: WindowKind, first: date) -> date:
    if kind == "month":
        return (first + timedelta(days=32)).replace(day=1)
    return first + timedelta(days=7 if kind == "week" else 1)


def _label(kind: WindowKind, first: date) -> str:
    if kind == "week":
        year, week, _ = first.isocalendar()
        return f"{year}-W{week:02d}"
    return first.strftime("%Y-%m" if kind == "month" else "%Y-%m-%d")


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return the first moment of `day`: fold 0 is the earlier of two midnights, and the change where there is none."""
    return datetime.combine(day, time.min, tzinfo=zone).astimezone(UTC)


class Calendar:
    """Windows at the present moment, remembered until they end; holds one entry per kind and zone in use."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._current: dict[tuple[WindowKind, str], Window] = {}

    def now(self) -> datetime:
        """Return the clock's present moment."""
        return self._clock.now()

    def window(self, kind: WindowKind, zone: ZoneInfo, moment: datetime) -> Window:
        """Return the window that holds `moment`."""
        key = (kind, zone.key)
        window = self._current.get(key)
        if window is None or not window.starts_at <= moment < window.ends_at:
            window = self._current[key] = window_at(kind, zone, moment)
        return window
