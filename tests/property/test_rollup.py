"""Whenever rows come and logs are opened anew, minutes, hours and days add up to the rows."""

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.telemetry.log_reader import LogReader, Window
from gateway.telemetry.request_log import RequestLog
from gateway.telemetry.rollup import DAY_S, HOUR_S, MINUTE_S
from tests.traces import RECEIVED_AT, a_trace

START_S = int(RECEIVED_AT.timestamp()) // DAY_S * DAY_S - 2 * DAY_S
groups = st.lists(
    st.tuples(
        st.integers(0, 8 * HOUR_S),  # what passes before the group is written
        st.lists(st.integers(0, 30 * HOUR_S), max_size=4),  # how long ago its requests came
    ),
    min_size=1,
    max_size=8,
)


@given(groups)
@settings(max_examples=40, deadline=None)
def test_every_span_holds_every_request_once(written: list[tuple[int, list[int]]]) -> None:
    now, requests = RECEIVED_AT, 0
    with TemporaryDirectory() as folder:
        path = Path(folder) / "requests.db"
        for passed_s, ages_s in written:
            now += timedelta(seconds=passed_s)
            log = RequestLog(path, now_s=now.timestamp)
            for age_s in ages_s:
                requests += 1
                at = now - timedelta(seconds=age_s)
                log.record(a_trace(request_id=f"req_{requests}", received_at=at, baseline_nano_usd=2_000_000_000))
            log.close()
        reader, end_s = LogReader(path), int(now.timestamp()) + 1
        for span_s in (MINUTE_S, HOUR_S, DAY_S):
            window = Window(START_S, end_s, span_s)
            sums = reader.sums(window)
            assert (sums[0].sums.requests if sums else 0) == requests
            assert sum(point.sums.requests for point in reader.series(window)) == requests
            assert all(point.starts_at_s % span_s == 0 for point in reader.series(window))
            assert sum(part.saved_nano_usd for part in reader.savings(window).values()) == requests * 500_000_000
