"""The request log as a file that other tools read: every row once, with its types."""

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.errors import ConfigurationError
from core.trace import Trial
from gateway.telemetry.export import COLUMNS, Export
from gateway.telemetry.request_log import RequestLog
from gateway.telemetry.time_ranges import TimeRange, parse_range
from tests.traces import RECEIVED_AT, a_hit, a_refusal, a_trace

DAY = TimeRange(datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC))
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    made = RequestLog(tmp_path / "requests.db", now_s=RECEIVED_AT.timestamp)
    made.record(a_trace(request_id="b", trial=Trial(held_out=True, per_10k=100), model_alias="=2+3"))
    made.record(a_hit(request_id="a", received_at=RECEIVED_AT - timedelta(seconds=1)))
    made.record(a_refusal(request_id="c", tenant="other"))
    made.record(a_trace(request_id="d", received_at=RECEIVED_AT - timedelta(days=1)))
    made.close()
    return tmp_path / "requests.db"


def test_a_csv_file_holds_the_rows_of_the_span_in_order(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    seen: list[int] = []
    export = Export(log, DAY, None)
    assert export.count() == 3
    assert export.write(out, "csv", seen.append) == 3
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert seen == [3]
    assert [row["request_id"] for row in rows] == ["a", "b", "c"]
    assert list(rows[0]) == list(COLUMNS)
    held = rows[1]
    assert (held["held_out"], held["holdout_ratio"], held["received_at"]) == (
        "true",
        "0.01",
        "2026-01-02T03:04:05.678+00:00",
    )
    assert json.loads(held["attempts"])[0]["deployment"] == "s1"


def test_a_cell_that_a_spreadsheet_would_calculate_is_text(log: Path, tmp_path: Path) -> None:
    Export(log, DAY, None).write(tmp_path / "out.csv", "csv")
    assert ",'=2+3," in (tmp_path / "out.csv").read_text()


def test_a_parquet_file_has_the_same_rows_with_their_types(log: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "out.parquet"
    assert Export(log, DAY, "acme").write(out, "parquet") == 2
    table = parquet.read_table(out)
    assert table.column_names == list(COLUMNS)
    hit, held = table.to_pylist()
    assert (hit["cache"], hit["cost_nano_usd"], hit["held_out"]) == ("semantic", 0, None)
    assert (held["received_at"], held["stream"], held["holdout_ratio"]) == (RECEIVED_AT, True, 0.01)


def test_a_file_that_cannot_be_written_is_one_line_and_leaves_nothing(log: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written"):
        Export(log, DAY, None).write(tmp_path / "nowhere" / "out.csv", "csv")
    with pytest.raises(ConfigurationError, match="no request log"):
        Export(tmp_path / "none.db", DAY, None)


def test_spans_of_time_are_what_people_mean_by_them() -> None:
    november = parse_range("2026-11", NOW)
    assert (november.start, november.end) == (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
    days = parse_range("2026-11-03..2026-11-04", NOW)
    assert days.end - days.start == timedelta(days=2)
    assert parse_range("7d", NOW).start == NOW - timedelta(days=7)
    assert parse_range("all", NOW).start_ms == 0
    for wrong in ("yesterday", "2026-13", "2026-11-04..2026-11-03", "7w", ""):
        with pytest.raises(ConfigurationError, match="--range"):
            parse_range(wrong, NOW)
