"""Calendar windows of an IANA zone as half-open intervals of aware UTC, so that no daylight saving can bend them.

Consecutive windows of one kind and zone share their boundary: every moment lies in exactly one of them. Days, weeks and
months begin at the zone's first local midnight of their first date (the moment of the change where the clock skips
midnight); a day may thus last 23 or 25 hours. Hours and minutes follow the zone's present offset, cut at a change.

A rolling window is counted in parts of a sixtieth of its length, aligned to the Unix epoch: a minute in seconds, an
hour in minutes, a day in 24 minutes, a week in 2 h 48 min, a month (30 days) in half days. The present part and the
sixty before it count: what was spent counts for at least the window's length and at most a sixtieth longer.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from core.clock import Clock
from core.rules import WindowKind

_SHORT = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}
_ROLLING_S: dict[WindowKind, int] = {
    "minute": 60, "hour": 3600, "day": 86_400, "week": 7 * 86_400, "month": 30 * 86_400,
}  # fmt: skip
PARTS = 60
"""Into how many parts a rolling window is cut; one more than this many count at any moment."""


@dataclass(frozen=True, slots=True)
class Window:
    """One window, `starts_at` included and `ends_at` not; `window_id` is unique within kind and zone.

    For a part of a rolling window: the time that counts while it is the present part, until the moment when nothing of
    it counts any more.
    """

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


def part_s(kind: WindowKind) -> int:
    """Return the length of one part of a rolling window in seconds."""
    return _ROLLING_S[kind] // PARTS


def rolling_part(kind: WindowKind, part: int) -> Window:
    """Return the `part`-th part since the Unix epoch; what is spent in it counts until `ends_at`."""
    length_s = part_s(kind)
    starts_at = datetime.fromtimestamp((part - PARTS) * length_s, UTC)
    return Window(str(part), starts_at, datetime.fromtimestamp((part + 1 + PARTS) * length_s, UTC))


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
        self._parts: dict[WindowKind, Window] = {}

    def now(self) -> datetime:
        """Return the clock's present moment."""
        return self._clock.now()

    def unix_s(self) -> float:
        """Return the clock's present moment in seconds since the Unix epoch."""
        return self._clock.unix_s()

    def window(self, kind: WindowKind, zone: ZoneInfo, moment: datetime) -> Window:
        """Return the calendar window that holds `moment`."""
        key = (kind, zone.key)
        window = self._current.get(key)
        if window is None or not window.starts_at <= moment < window.ends_at:
            window = self._current[key] = window_at(kind, zone, moment)
        return window

    def part(self, kind: WindowKind, moment: datetime) -> Window:
        """Return the part of a rolling window that holds `moment`."""
        number = int(moment.timestamp()) // part_s(kind)
        part = self._parts.get(kind)
        if part is None or part.window_id != str(number):
            part = self._parts[kind] = rolling_part(kind, number)
        return part
