"""When an engine is reloaded without being asked."""

from datetime import UTC, datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from backends.engines.reload_plan import ReloadPlan, WeightsWatch, fingerprint
from core.errors import ConfigurationError
from gateway.settings.reload_settings import ReloadEntry, reload_plan

NIGHT = (time(23), time(2))
WINTER = datetime(2026, 1, 10, 22, 30, tzinfo=UTC)


def test_age_decides_without_a_window() -> None:
    plan = ReloadPlan(every_s=60)
    assert plan.is_due(60, WINTER)
    assert not plan.is_due(59.9, WINTER)
    assert not ReloadPlan(on_change=True).is_due(1e9, WINTER)


def test_a_window_is_read_in_its_zone_and_may_span_midnight() -> None:
    berlin = ReloadPlan(60, NIGHT, ZoneInfo("Europe/Berlin"))
    assert berlin.is_due(60, WINTER)
    assert not ReloadPlan(60, NIGHT).is_due(60, WINTER)
    assert not berlin.is_due(60, WINTER.replace(hour=1))
    assert ReloadPlan(60, (time(2), time(5))).is_due(60, WINTER.replace(hour=4))
    assert not ReloadPlan(60, (time(2), time(5))).is_due(60, WINTER.replace(hour=5, minute=0))


def test_a_change_counts_once_it_is_left_alone() -> None:
    old, part, new = (frozenset({("a", size, 1)}) for size in (1, 2, 3))
    watch = WeightsWatch()
    looks = [watch.look(seen) for seen in (old, old, part, new, new, new)]
    assert looks == [False, False, False, False, True, False]


def test_weights_that_are_gone_are_no_change() -> None:
    watch = WeightsWatch()
    looks = [watch.look(seen) for seen in (frozenset({("a", 1, 1)}), frozenset(), frozenset())]
    assert looks == [False, False, False]


def test_a_fingerprint_changes_with_the_files_and_reads_one_file_too(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "model.bin"
    file.parent.mkdir()
    file.write_bytes(b"1")
    before = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == before
    file.write_bytes(b"12")
    assert fingerprint(tmp_path) != before
    assert len(fingerprint(file)) == 1


def test_the_entry_is_read() -> None:
    entry = ReloadEntry(every="6h", between="02:00-05:30", zone="Europe/Berlin", on_change=True)
    plan = reload_plan(entry, "f", "k")
    assert plan == ReloadPlan(21_600, (time(2), time(5, 30)), ZoneInfo("Europe/Berlin"), on_change=True)
    assert reload_plan(None, "f", "k") is None


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (ReloadEntry(), "k: never reloads; write `every: 6h`"),
        (ReloadEntry(every="often"), "k.every: 'often' is no duration; write a number and s, m, h or d"),
        (ReloadEntry(every="0h"), "k.every: '0h' is no duration"),
        (ReloadEntry(every="1h", between="2-5"), "k.between: '2-5' is no window of a day; write HH:MM-HH:MM"),
        (ReloadEntry(every="1h", between="02:00-02:00"), "is no window of a day"),
        (ReloadEntry(every="1h", zone="Mars/Base"), "k.zone: there is no zone 'Mars/Base'; write an IANA name"),
    ],
)
def test_a_wrong_entry_is_one_line(entry: ReloadEntry, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        reload_plan(entry, "f", "k")
    assert words in caught.value.message
