"""Rows in a real SQLite file: written, bounded, and never in the way of a request."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from core.errors import ConfigurationError
from core.trace import AttemptOutcome
from gateway.settings.retention import Retention
from gateway.telemetry.log_reader import LogReader, Window
from gateway.telemetry.request_log import RequestLog
from gateway.telemetry.request_rows import MIGRATIONS, attempts_decoder, row_of
from gateway.telemetry.rollup import DAY_S, HOUR_S, MINUTE_S
from gateway.telemetry.sketch import merged
from policies.sqlite_schema import open_database
from tests.traces import RECEIVED_AT, a_hit, a_refusal, a_trace, an_attempt


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "requests.db"


@pytest.fixture
def log(file: Path) -> Iterator[RequestLog]:
    made = RequestLog(file, now_s=RECEIVED_AT.timestamp)
    yield made
    made.close()


def rows(file: Path) -> list[sqlite3.Row]:
    with closing(sqlite3.connect(file)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT * FROM requests ORDER BY request_id").fetchall()


def test_a_trace_is_a_row_once_the_log_is_closed(log: RequestLog, file: Path) -> None:
    log.record(a_trace(similarity=0.5))
    log.close()
    (row,) = rows(file)
    assert (row["request_id"], row["tenant"], row["status"], row["stream"]) == ("req_1", "acme", 200, 1)
    assert row["received_at_ms"] == 1_767_323_045_678
    assert (row["tier"], row["deployment"], row["reason"], row["cache"]) == ("small", "s1", "score", "miss")
    assert (row["input_tokens"], row["output_tokens"]) == (20, 5)
    assert (row["cost_nano_usd"], row["reserved_nano_usd"]) == (1_500_000_000, 2_000_000_000)
    assert (row["ttft_ms"], row["total_ms"], row["similarity"]) == (61.5, 112.25, 0.5)
    (attempt,) = attempts_decoder.decode(row["attempts"])
    assert (attempt.deployment, attempt.outcome, attempt.output_tokens) == ("s1", "complete", 5)


def test_hits_and_refusals_are_rows_too(log: RequestLog, file: Path) -> None:
    log.record(a_hit(request_id="a"))
    log.record(a_refusal(request_id="b"))
    failed = an_attempt(outcome=AttemptOutcome.FAILED, usage=None, http_status=None, error="it's\nbroken")
    log.record(a_trace(request_id="c", status=502, error_code="upstream_error", attempts=(failed,), usage=None))
    log.close()
    hit, refusal, failure = rows(file)
    assert (hit["cache"], hit["saved_nano_usd"], hit["cost_nano_usd"]) == ("semantic", 1_500_000_000, 0)
    assert (refusal["status"], refusal["tier"], refusal["input_tokens"]) == (429, None, None)
    assert attempts_decoder.decode(failure["attempts"])[0].error == "it's\nbroken"


def test_a_thousand_rows_in_a_burst_are_all_written(log: RequestLog, file: Path) -> None:
    for n in range(1000):
        log.record(a_trace(request_id=f"req_{n:04d}"))
    log.close()
    assert len(rows(file)) == 1000
    assert log.dropped == 0


def test_rows_are_visible_while_requests_keep_coming(log: RequestLog, file: Path) -> None:
    tick = threading.Event()
    for n in range(200):
        log.record(a_trace(request_id=f"req_{n:04d}"))
        if rows(file):
            return
        tick.wait(0.02)
    pytest.fail("a steady trickle kept the group open")


def test_the_same_request_is_one_row(log: RequestLog, file: Path) -> None:
    log.record(a_trace())
    log.record(a_trace(status=500))
    log.close()
    assert [row["status"] for row in rows(file)] == [200]


def test_rows_of_an_earlier_start_are_kept(file: Path) -> None:
    for request_id in ("a", "b"):
        log = RequestLog(file, now_s=RECEIVED_AT.timestamp)
        log.record(a_trace(request_id=request_id))
        log.close()
    assert [row["request_id"] for row in rows(file)] == ["a", "b"]


def test_a_record_after_closing_does_not_raise(log: RequestLog, file: Path) -> None:
    log.close()
    log.record(a_trace())
    log.close()
    assert rows(file) == []


def test_a_number_that_sqlite_cannot_hold_costs_its_group_and_not_the_log(log: RequestLog, file: Path) -> None:
    log.record(a_trace(request_id="a", reserved_nano_usd=2**70))
    tick = threading.Event()
    while log.dropped == 0:
        tick.wait(0.01)
    log.record(a_trace(request_id="b"))
    log.close()
    assert [row["request_id"] for row in rows(file)] == ["b"]
    assert log.dropped == 1


def test_the_oldest_rows_go_when_there_are_too_many(file: Path) -> None:
    for max_rows, hours in ((100, range(10)), (3, range(10, 11))):
        log = RequestLog(file, Retention(max_rows=max_rows), now_s=RECEIVED_AT.timestamp)
        for hour in hours:
            log.record(a_trace(request_id=f"{hour:02d}", received_at=RECEIVED_AT + timedelta(hours=hour)))
        log.close()
    assert [row["request_id"] for row in rows(file)] == ["08", "09", "10"]


def test_a_table_that_is_gone_is_counted_and_not_raised(log: RequestLog, file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP TABLE requests")
        connection.commit()
    log.record(a_trace())
    log.close()
    assert log.dropped == 1


def test_a_file_of_a_newer_version_is_refused_in_one_line(file: Path) -> None:
    RequestLog(file).close()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE schema_versions SET version = version + 1")
        connection.commit()
    with pytest.raises(ConfigurationError, match="newer program") as caught:
        RequestLog(file)
    assert "\n" not in caught.value.message
    assert str(file) in caught.value.message


def test_a_file_that_is_no_database_is_refused_in_one_line(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"this is no database, but it is long enough to be looked at" * 20)
    with pytest.raises(ConfigurationError) as caught:
        RequestLog(file)
    assert str(file) in caught.value.message


HOURLY_TTFT = "SELECT ttft FROM latencies WHERE span_s = 3600 AND served_by = 'small'"


def query(file: Path, text: str) -> list[tuple[bytes]]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(text).fetchall()


def cells(file: Path, span_s: int) -> list[sqlite3.Row]:
    with closing(sqlite3.connect(file)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT * FROM rollup WHERE span_s = ? ORDER BY starts_at_s", (span_s,)).fetchall()


def test_every_request_counts_once_in_its_minute_and_its_hour(file: Path) -> None:
    for start in range(3):
        log = RequestLog(file, now_s=(RECEIVED_AT + timedelta(hours=start)).timestamp)
        for n in range(5):
            at = RECEIVED_AT + timedelta(seconds=30 * n)
            log.record(a_trace(request_id=f"{start}-{n}", received_at=at, baseline_nano_usd=2_000_000_000))
            log.record(a_trace(request_id=f"{start}-{n}", received_at=at))
        log.close()
    minutes, hours = cells(file, MINUTE_S), cells(file, HOUR_S)
    assert sum(cell["requests"] for cell in minutes) == 15
    assert len(minutes) == 3
    (hour,) = hours
    assert (hour["requests"], hour["answered"], hour["output_tokens"]) == (15, 15, 75)
    assert (hour["cost_nano_usd"], hour["baseline_nano_usd"]) == (15 * 1_500_000_000, 15 * 2_000_000_000)
    assert sum(merged([sketch]).total() for (sketch,) in query(file, HOURLY_TTFT)) == 15


def test_an_hour_is_folded_only_when_it_is_over(file: Path) -> None:
    log = RequestLog(file, now_s=RECEIVED_AT.timestamp)
    log.record(a_trace())
    log.close()
    assert len(cells(file, MINUTE_S)) == 1
    assert cells(file, HOUR_S) == cells(file, DAY_S) == []


def test_a_fold_that_was_rolled_back_is_made_again(file: Path) -> None:
    now = [RECEIVED_AT]
    log = RequestLog(file, now_s=lambda: now[0].timestamp())
    tick = threading.Event()
    log.record(a_trace(request_id="a"))
    while not rows(file):
        tick.wait(0.01)
    now[0] += timedelta(hours=2)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("ALTER TABLE folded RENAME TO elsewhere")
        connection.commit()
    log.record(a_trace(request_id="b"))
    while log.dropped == 0:
        tick.wait(0.01)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("ALTER TABLE elsewhere RENAME TO folded")
        connection.commit()
    log.record(a_trace(request_id="c"))
    log.close()
    (hour,) = cells(file, HOUR_S)
    assert (hour["requests"], log.dropped) == (2, 1)


def test_sums_of_an_earlier_schema_are_not_counted_twice(file: Path) -> None:
    file.parent.mkdir()
    with closing(open_database(file, "request_log", MIGRATIONS[:4])) as connection:
        at_s = int(RECEIVED_AT.timestamp())
        for span_s in (MINUTE_S, HOUR_S, DAY_S):
            key = (span_s, at_s - at_s % span_s, "acme", "small", "s1", "miss", "score")
            connection.execute(f"INSERT INTO rollup VALUES ({','.join('?' * 18)})", (*key, 1, *(0,) * 10))
    for later in (timedelta(minutes=5), timedelta(days=1)):
        log = RequestLog(file, now_s=(RECEIVED_AT + later).timestamp)
        log.record(a_trace(request_id=str(later), received_at=RECEIVED_AT + later))
        log.close()
    for span_s in (MINUTE_S, HOUR_S, DAY_S):
        (total,) = LogReader(file).sums(Window(at_s - at_s % DAY_S, at_s + 3 * DAY_S, span_s))
        assert total.sums.requests == 3


def test_a_group_that_failed_is_not_in_the_sums(log: RequestLog, file: Path) -> None:
    log.record(a_trace(request_id="a", reserved_nano_usd=2**70))
    tick = threading.Event()
    while log.dropped == 0:
        tick.wait(0.01)
    log.record(a_trace(request_id="b"))
    log.close()
    (minute,) = cells(file, MINUTE_S)
    assert minute["requests"] == 1


def test_old_rows_go_and_their_days_stay(file: Path) -> None:
    for days, now in ((0, RECEIVED_AT), (40, RECEIVED_AT + timedelta(days=40))):
        log = RequestLog(file, Retention(), now_s=now.timestamp)
        log.record(a_trace(request_id=f"day-{days}", received_at=RECEIVED_AT + timedelta(days=days)))
        log.close()
    assert [row["request_id"] for row in rows(file)] == ["day-40"]
    assert [len(cells(file, span_s)) for span_s in (MINUTE_S, HOUR_S, DAY_S)] == [1, 0, 1]
    year = Window(0, int((RECEIVED_AT + timedelta(days=365)).timestamp()), DAY_S)
    assert LogReader(file).sums(year)[0].sums.requests == 2


def test_rows_of_the_first_schema_are_brought_along(file: Path) -> None:
    file.parent.mkdir()
    with closing(open_database(file, "request_log", MIGRATIONS[:1])) as connection:
        attempts = msgspec.json.encode([an_attempt(), an_attempt(n=2, usage=None)]).decode()
        values = (*row_of(a_trace())[:-3], attempts)
        connection.execute(f"INSERT INTO requests VALUES ({','.join('?' * 28)})", values)
    RequestLog(file, now_s=RECEIVED_AT.timestamp).close()
    (row,) = rows(file)
    assert row["cost_nano_usd"] == 1_500_000_000
    first, second = attempts_decoder.decode(row["attempts"])
    assert (first.deployment, first.output_tokens, first.ended_ms, first.http_status) == ("s1", 5, 110.0, 200)
    assert (second.n, second.output_tokens) == (2, None)


def test_the_log_tells_whose_a_request_was(log: RequestLog) -> None:
    log.record(a_trace(request_id="req_" + "a" * 32))
    log.close()
    assert log.tenant_of("req_" + "a" * 32) == "acme"
    assert log.tenant_of("req_" + "b" * 16 + "a" * 16) is None


def test_what_the_gateway_asked_by_itself_costs_and_is_no_request(log: RequestLog, file: Path) -> None:
    log.record(a_trace())
    log.record(a_trace(request_id="req_2", path="shadow:cache"))
    log.close()
    with closing(sqlite3.connect(file)) as connection:
        sums = "SELECT sum(requests), sum(cost_nano_usd), sum(baseline_nano_usd) FROM rollup WHERE span_s = 60"
        assert connection.execute(sums).fetchone() == (1, 3_000_000_000, 1_500_000_000)
