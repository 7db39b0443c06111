"""One row per request in SQLite, written in groups by a thread of its own; it never blocks and never fails a request.

When the queue is full (the disk is slow or gone) rows are dropped and counted, and serving goes on. Rows go when they
are older than `Retention` says or too many; the sums of hours and days (`rollup`) stay longer.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from core.hand_over import HandOver
from core.trace import RequestTrace
from gateway.settings.retention import Retention
from gateway.telemetry.request_rows import INSERT, MIGRATIONS, row_of
from gateway.telemetry.rollup import DAY_S, HOUR_S, MINUTE_S, Rollup
from policies.sqlite_schema import open_database, reading

logger = logging.getLogger("headgate.request_log")
MAX_QUEUED = 20_000
GROUP_ROWS = 500
GROUP_WAIT_S = 0.2
TRIM_EVERY_ROWS = 10_000
_TRIM_ROWS = "DELETE FROM requests WHERE id <= (SELECT id FROM requests ORDER BY id DESC LIMIT 1 OFFSET ?)"
_TENANT_OF = "SELECT tenant FROM requests WHERE substr(request_id, -16) = ? AND request_id = ?"
_TRIM_OLD = "DELETE FROM requests WHERE received_at_ms < ?"
_TRIM_SUMS = tuple(
    f"DELETE FROM {table} WHERE span_s = ? AND starts_at_s < ?"  # noqa: S608 - our own names
    for table in ("rollup", "latencies", "sources", "trials", "attainment")
)


class RequestLog:
    """A sink backed by one SQLite file; `close` writes what is queued."""

    def __init__(
        self,
        path: Path,
        retention: Retention | None = None,
        now_s: Callable[[], float] = time.time,
        *,
        is_shared: bool = False,
    ) -> None:
        """Open the file; when it `is_shared` with other processes, sums are read anew for every group."""
        self._is_shared = is_shared
        self._retention = retention or Retention()
        self._now_s = now_s
        self._path = path
        self._connection = open_database(path, "request_log", MIGRATIONS)
        self._rollup = Rollup(self._connection)
        self._queue: HandOver[RequestTrace] = HandOver(GROUP_WAIT_S, GROUP_ROWS, limit=MAX_QUEUED)
        self.dropped = 0
        self._thread = threading.Thread(target=self._write, name="request-log", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Return how many rows are queued."""
        return len(self._queue)

    def record(self, trace: RequestTrace) -> None:
        """Queue one row, or count it as dropped."""
        kept = trace if trace.content is None else replace(trace, content=None)  # texts never wait for a disk
        if not self._queue.put(kept):
            self.dropped += 1

    def close(self) -> None:
        """Write what is queued and close the file."""
        self._queue.close()
        self._thread.join(timeout=5.0)

    def tenant_of(self, request_id: str) -> str | None:
        """Return whose request it was, or None when there is no row (yet); for any thread."""
        try:
            with reading(self._path) as connection:
                row = connection.execute(_TENANT_OF, (request_id[-16:], request_id)).fetchone()
        except sqlite3.Error as problem:
            logger.warning("the request log cannot be read", extra={"problem": str(problem)})
            return None
        return None if row is None else str(row[0])

    def _write(self) -> None:
        going_on, since_trimmed = True, TRIM_EVERY_ROWS
        while going_on:
            group, going_on = self._queue.take()
            since_trimmed += len(group)
            try:
                with _transaction(self._connection):
                    self._write_group(group)
                    if since_trimmed >= TRIM_EVERY_ROWS:
                        self._trim()
                        since_trimmed = 0
            except (sqlite3.Error, OverflowError) as problem:
                self._rollup.forget()
                self.dropped += len(group)
                logger.warning("request rows were not written", extra={"rows": len(group), "problem": str(problem)})
        self._connection.close()

    def _write_group(self, group: list[RequestTrace]) -> None:
        rows = [row_of(trace) for trace in group]
        self._connection.execute("SAVEPOINT rows")
        if self._connection.executemany(INSERT, rows).rowcount == len(rows):
            new = group
        else:  # a request that has a row already gets no second one, and does not count again
            self._connection.execute("ROLLBACK TO rows")
            insert = self._connection.execute
            new = [trace for trace, row in zip(group, rows, strict=True) if insert(INSERT, row).rowcount]
        self._rollup.add(new)
        self._rollup.write(self._now_s())
        if self._is_shared:
            self._rollup.let_go()

    def _trim(self) -> None:
        now_s, keep = self._now_s(), self._retention
        self._connection.execute(_TRIM_ROWS, (keep.max_rows,))
        self._connection.execute(_TRIM_OLD, (int((now_s - keep.rows_days * DAY_S) * 1000),))
        for span_s, days in ((MINUTE_S, keep.minutes_days), (HOUR_S, keep.hours_days), (DAY_S, keep.days_days)):
            for trim in _TRIM_SUMS:
                self._connection.execute(trim, (span_s, int(now_s - days * DAY_S)))


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except (sqlite3.Error, OverflowError):
        connection.rollback()
        raise
    connection.execute("COMMIT")
