"""Calendar windows: aligned to the zone's calendar, contiguous in UTC, whatever the clock there does."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import ManualClock
from core.rules import WindowKind
from policies.windows import PARTS, Calendar, rolling_part, window_at

LORD_HOWE = "Australia/Lord_Howe"
KINDS: tuple[WindowKind, ...] = ("minute", "hour", "day", "week", "month")
# Gaps and repeats at, before and after midnight; half-hour changes; offsets of quarters; a zone that skipped a day.
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Africa/Cairo", "America/Havana", "America/Sao_Paulo",
    "America/St_Johns", LORD_HOWE, "Asia/Kathmandu", "Asia/Kolkata", "Pacific/Apia", "Asia/Beirut",
)  # fmt: skip


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("kind", "zone", "moment", "label", "starts", "ends"),
    [
        ("month", "Europe/Berlin", "2026-11-20T10:00Z", "2026-11", "2026-10-31T23:00Z", "2026-11-30T23:00Z"),
        ("month", "Europe/Berlin", "2026-10-31T22:59:59Z", "2026-10", "2026-09-30T22:00Z", "2026-10-31T23:00Z"),
        ("month", "UTC", "2026-12-31T23:59:59Z", "2026-12", "2026-12-01T00:00Z", "2027-01-01T00:00Z"),
        ("week", "UTC", "2027-01-01T00:00Z", "2026-W53", "2026-12-28T00:00Z", "2027-01-04T00:00Z"),
        ("day", "Europe/Berlin", "2026-10-25T12:00Z", "2026-10-25", "2026-10-24T22:00Z", "2026-10-25T23:00Z"),
        ("day", "Europe/Berlin", "2026-03-29T12:00Z", "2026-03-29", "2026-03-28T23:00Z", "2026-03-29T22:00Z"),
        ("day", "Africa/Cairo", "2026-04-24T12:00Z", "2026-04-24", "2026-04-23T22:00Z", "2026-04-24T21:00Z"),
        ("day", "America/Havana", "2026-11-01T04:30Z", "2026-11-01", "2026-11-01T04:00Z", "2026-11-02T05:00Z"),
        ("day", "America/St_Johns", "2010-11-07T02:40Z", "2010-11-07", "2010-11-07T02:30Z", "2010-11-08T03:30Z"),
        ("hour", "Asia/Kolkata", "2026-11-20T10:10Z", "2026-11-20T09:30:00Z", "2026-11-20T09:30Z", "2026-11-20T10:30Z"),
        ("hour", LORD_HOWE, "2026-04-04T15:10Z", "2026-04-04T15:00:00Z", "2026-04-04T15:00Z", "2026-04-04T15:30Z"),
        ("minute", "UTC", "2026-11-20T10:10:11.5Z", "2026-11-20T10:10:00Z", "2026-11-20T10:10Z", "2026-11-20T10:11Z"),
    ],
)  # fmt: skip
def test_windows_follow_the_calendar_of_the_zone(
    kind: WindowKind, zone: str, moment: str, label: str, starts: str, ends: str
) -> None:
    window = window_at(kind, ZoneInfo(zone), at(moment))
    assert (window.window_id, window.starts_at, window.ends_at) == (label, at(starts), at(ends))


def test_days_across_a_change_last_23_and_25_hours() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    lengths = [
        window.ends_at - window.starts_at
        for window in (window_at("day", berlin, at(f"2026-{day}T12:00Z")) for day in ("03-29", "10-25", "10-26"))
    ]
    assert lengths == [timedelta(hours=23), timedelta(hours=25), timedelta(hours=24)]


@given(
    kind=st.sampled_from(KINDS),
    zone=st.sampled_from(ZONES),
    moment=st.datetimes(datetime(1990, 1, 1), datetime(2037, 12, 1)),
)
def test_every_moment_lies_in_one_window_and_the_next_begins_where_it_ends(
    kind: WindowKind, zone: str, moment: datetime
) -> None:
    here = ZoneInfo(zone)
    now = moment.replace(tzinfo=UTC)
    window = window_at(kind, here, now)
    following = window_at(kind, here, window.ends_at)
    assert window.starts_at <= now < window.ends_at
    assert window_at(kind, here, window.starts_at) == window
    assert window_at(kind, here, window.ends_at - timedelta(microseconds=1)) == window
    assert following.starts_at == window.ends_at
    assert following.window_id != window.window_id


def test_the_calendar_turns_the_page_when_a_window_ends() -> None:
    clock = ManualClock(at("2026-11-30T22:59:59Z"))
    calendar = Calendar(clock)
    berlin = ZoneInfo("Europe/Berlin")
    assert calendar.window("month", berlin, calendar.now()).window_id == "2026-11"
    clock.advance(1)
    assert calendar.window("month", berlin, calendar.now()).window_id == "2026-12"


@pytest.mark.parametrize(
    ("kind", "length_s"), [("minute", 60), ("hour", 3600), ("day", 86_400), ("week", 604_800), ("month", 2_592_000)]
)
def test_a_part_of_a_rolling_window_counts_for_its_length_and_at_most_a_sixtieth_longer(
    kind: WindowKind, length_s: int
) -> None:
    clock = ManualClock(at("2026-11-20T10:00:00.5Z"))
    part = Calendar(clock).part(kind, clock.now())
    assert part.window_id == str(int(clock.now().timestamp()) // (length_s // PARTS))
    counts_for_s = (part.ends_at - clock.now()).total_seconds()
    assert length_s < counts_for_s <= length_s + length_s // PARTS
    assert rolling_part(kind, int(part.window_id)) == part


def test_the_next_part_begins_on_the_second() -> None:
    clock = ManualClock(at("2026-11-20T10:00:59Z"))
    calendar = Calendar(clock)
    first = calendar.part("hour", clock.now())
    clock.advance(0.9)
    assert calendar.part("hour", clock.now()) == first
    clock.advance(0.1)
    assert int(calendar.part("hour", clock.now()).window_id) == int(first.window_id) + 1
