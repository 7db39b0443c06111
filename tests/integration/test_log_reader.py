"""What the request log tells, over real files: sums, series, percentiles and pages."""

from datetime import timedelta
from pathlib import Path

import pytest

from core.trace import RequestTrace
from gateway.settings.retention import Retention
from gateway.telemetry.log_reader import Filter, LogReader, LogUnreadable, Window, regrouped
from gateway.telemetry.request_log import RequestLog
from tests.traces import RECEIVED_AT, a_hit, a_refusal, a_trace

START_S = RECEIVED_AT.timestamp()


def logged(path: Path, traces: list[RequestTrace]) -> LogReader:
    log = RequestLog(path, Retention(), now_s=RECEIVED_AT.timestamp)
    for trace in traces:
        log.record(trace)
    log.close()
    return LogReader(path)


@pytest.fixture
def reader(tmp_path: Path) -> LogReader:
    """Thirty answers by two tiers over half an hour, ten hits, five refusals; two tenants."""
    answers = [
        a_trace(
            request_id=f"req_{n:032x}",
            received_at=RECEIVED_AT + timedelta(minutes=n),
            tenant="acme" if n % 3 else "globex",
            tier="large" if n % 5 == 0 else "small",
            total_ms=float(100 + n),
            baseline_nano_usd=2_000_000_000,
            sla_violated=n == 7,
        )
        for n in range(30)
    ]
    hits = [a_hit(request_id=f"hit_{100 + n:032x}", received_at=RECEIVED_AT, total_ms=1.0) for n in range(10)]
    refusals = [a_refusal(request_id=f"ref_{200 + n:032x}", received_at=RECEIVED_AT) for n in range(5)]
    return logged(tmp_path / "requests.db", answers + hits + refusals)


def hour() -> Window:
    return Window.between(START_S, START_S + 3600)


def test_sums_add_up_over_any_labels(reader: LogReader) -> None:
    (total,) = reader.sums(hour())
    assert (total.sums.requests, total.sums.answered, total.sums.refused, total.sums.late) == (45, 40, 5, 1)
    assert total.sums.cost_nano_usd == 30 * 1_500_000_000
    by_tier = {group.labels: group.sums.requests for group in reader.sums(hour(), ("tier", "cache"))}
    assert by_tier == {("small", "miss"): 24, ("large", "miss"): 6, ("small", "semantic"): 10, ("", "bypass"): 5}
    assert reader.sums(hour(), (), "globex")[0].sums.requests == 10


def test_a_window_without_requests_has_no_sums(reader: LogReader) -> None:
    assert reader.sums(Window.between(START_S + 7200, START_S + 9000)) == ()
    assert reader.series(Window.between(0, 60)) == ()


def test_a_series_has_a_step_per_minute_and_tells_hits_from_tiers(reader: LogReader) -> None:
    points = reader.series(hour())
    assert sum(point.sums.requests for point in points) == 45
    assert {point.served_by for point in points} == {"", "cache", "small", "large"}
    assert all(point.starts_at_s % 60 == 0 for point in points)


@pytest.mark.parametrize(("days", "span_s"), [(1, 3_600), (20, 86_400)])
def test_long_windows_are_read_in_hours_and_days(reader: LogReader, days: int, span_s: int) -> None:
    window = Window.between(START_S - days * 86_400, START_S + 3600)
    assert window.span_s == span_s
    assert reader.sums(window)[0].sums.requests == 45


def test_groups_are_summed_over_what_is_left_out(reader: LogReader) -> None:
    groups = reader.sums(hour(), ("tenant", "tier", "cache"))
    assert regrouped(groups, (1, 2)) == reader.sums(hour(), ("tier", "cache"))
    assert regrouped(groups, ()) == reader.sums(hour())
    assert regrouped((), ()) == ()


def test_percentiles_of_few_rows_are_exact(reader: LogReader) -> None:
    found = {one.served_by: one for one in reader.latencies(hour()).whole}
    assert found["small"].error_ratio == 0.0
    assert found["large"].total_ms == {"p50": 110.0, "p95": 125.0, "p99": 125.0}
    assert found["cache"].total_ms["p50"] == 1.0


def test_the_series_of_percentiles_is_within_its_error(reader: LogReader) -> None:
    steps = [one for one in reader.latencies(hour()).series if one.served_by == "large"]
    assert len(steps) == 6
    assert steps[0].total_ms == pytest.approx(100.0, rel=0.01)


def test_pages_go_back_to_the_first_row_without_a_gap(reader: LogReader) -> None:
    seen: list[int] = []
    before: int | None = None
    while True:
        page = reader.page(Filter(), before=before, limit=20)
        seen += [row.id for row in page.rows]
        if page.searched_to is None:
            break
        before = page.searched_to
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == 45


def test_filters_are_joined_by_and(reader: LogReader) -> None:
    rows = reader.page(Filter(tenant="acme", tier="small", outcome="late")).rows
    assert [row.columns["total_ms"] for row in rows] == [107.0]
    assert len(reader.page(Filter(outcome="refused")).rows) == 5
    assert len(reader.page(Filter(request_id="hit_")).rows) == 10
    assert reader.page(Filter(request_id="*")).rows[0].columns["request_id"] is not None


def test_only_newer_rows_come_after_a_row(reader: LogReader) -> None:
    newest = reader.page(Filter(), limit=1).rows[0].id
    assert reader.page(Filter(), after=newest).rows == ()
    assert len(reader.page(Filter(), after=newest - 3).rows) == 3


def test_one_request_is_found_by_its_whole_id_only(reader: LogReader) -> None:
    found = reader.request(f"req_{7:032x}")
    assert found is not None
    assert (found.columns["sla_violated"], found.attempts[0].deployment) == (1, "s1")
    assert reader.request(f"{7:016x}") is None
    assert reader.request("") is None


def test_a_log_that_is_gone_is_an_error_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(LogUnreadable, match="cannot be read"):
        LogReader(tmp_path / "nothing.db").sums(hour())
