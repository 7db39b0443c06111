"""One row per request in SQLite, written in groups by a thread of its own; it never blocks and never fails a request.

When the queue is full (the disk is slow or gone) rows are dropped and counted, and serving goes on. The oldest rows go
when there are more than `max_rows`.
"""

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from core.trace import RequestTrace
from policies.sqlite_schema import open_database

logger = logging.getLogger("headgate.request_log")
MAX_QUEUED = 20_000
GROUP_ROWS = 500
GROUP_WAIT_S = 0.2
MAX_ROWS = 1_000_000
TRIM_EVERY_ROWS = 10_000

_SCHEMA = """
CREATE TABLE requests (
  request_id TEXT PRIMARY KEY, received_at_ms INTEGER NOT NULL, tenant TEXT NOT NULL, key_id TEXT NOT NULL,
  path TEXT NOT NULL, model_alias TEXT NOT NULL, stream INTEGER NOT NULL, status INTEGER NOT NULL, error_code TEXT,
  cache TEXT NOT NULL, cache_detail TEXT NOT NULL, similarity REAL, tier TEXT, deployment TEXT, reason TEXT,
  degraded_from TEXT, p_small_suffices REAL, policy_version TEXT, input_tokens INTEGER, output_tokens INTEGER,
  cost_nano_usd INTEGER NOT NULL, saved_nano_usd INTEGER NOT NULL, reserved_nano_usd INTEGER NOT NULL,
  ttft_ms REAL, total_ms REAL NOT NULL, overhead_ms REAL NOT NULL, sla_violated INTEGER NOT NULL, attempts TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX requests_by_time ON requests (received_at_ms);
"""
_COLUMNS = 28
_INSERT = f"INSERT OR IGNORE INTO requests VALUES ({','.join('?' * _COLUMNS)})"  # noqa: S608 - placeholders only
_TRIM = """
DELETE FROM requests WHERE received_at_ms <= (
  SELECT received_at_ms FROM requests ORDER BY received_at_ms DESC LIMIT 1 OFFSET ?
)
"""
_Row = tuple[str | int | float | None, ...]


class RequestLog:
    """A sink backed by one SQLite file; `close` writes what is queued."""

    def __init__(self, path: Path, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._connection = open_database(path, "request_log", (_SCHEMA,))
        self._queue: queue.SimpleQueue[_Row | None] = queue.SimpleQueue()
        self.dropped = 0
        self._thread = threading.Thread(target=self._write, name="request-log", daemon=True)
        self._thread.start()

    def record(self, trace: RequestTrace) -> None:
        """Queue one row, or count it as dropped."""
        if self._queue.qsize() >= MAX_QUEUED:
            self.dropped += 1
            return
        self._queue.put(_row(trace))

    def close(self) -> None:
        """Write what is queued and close the file."""
        self._queue.put(None)
        self._thread.join(timeout=5.0)

    def _write(self) -> None:
        going_on, since_trimmed = True, TRIM_EVERY_ROWS
        while going_on:
            group, going_on = self._take_group()
            since_trimmed += len(group)
            try:
                with _transaction(self._connection):
                    self._connection.executemany(_INSERT, group)
                    if since_trimmed >= TRIM_EVERY_ROWS:
                        self._connection.execute(_TRIM, (self._max_rows,))
                        since_trimmed = 0
            except (sqlite3.Error, OverflowError) as problem:
                self.dropped += len(group)
                logger.warning("request rows were not written", extra={"rows": len(group), "problem": str(problem)})
        self._connection.close()

    def _take_group(self) -> tuple[list[_Row], bool]:
        """Wait for a first row, then take what comes within the group's time; False when the log was closed."""
        group: list[_Row] = []
        row = self._queue.get()
        write_at_s = time.monotonic() + GROUP_WAIT_S
        while row is not None:
            group.append(row)
            if len(group) >= GROUP_ROWS:
                return group, True
            try:
                row = self._queue.get(timeout=max(0.0, write_at_s - time.monotonic()))
            except queue.Empty:
                return group, True
        return group, False


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    except (sqlite3.Error, OverflowError):
        connection.rollback()
        raise
    connection.execute("COMMIT")


def _row(trace: RequestTrace) -> _Row:
    usage = trace.usage
    return (
        trace.request_id,
        int(trace.received_at.timestamp() * 1000),
        trace.tenant,
        trace.key_id,
        trace.path,
        trace.model_alias[:200],
        trace.stream,
        trace.status,
        trace.error_code,
        trace.cache,
        trace.cache_detail,
        trace.similarity,
        trace.tier,
        trace.deployment,
        trace.reason,
        trace.degraded_from,
        trace.p_small_suffices,
        trace.policy_version,
        None if usage is None else usage.input_tokens,
        None if usage is None else usage.output_tokens,
        trace.cost_nano_usd,
        trace.saved_nano_usd,
        trace.reserved_nano_usd,
        trace.ttft_ms,
        trace.total_ms,
        trace.overhead_ms,
        trace.sla_violated,
        msgspec.json.encode(trace.attempts).decode(),
    )
