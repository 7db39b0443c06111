"""One row per request in SQLite, written in groups by a thread of its own; it never blocks and never fails a request.

When the queue is full (the disk is slow or gone) rows are dropped and counted, and serving goes on.
"""

import logging
import queue
import sqlite3
import threading
from pathlib import Path

import msgspec

from core.errors import ConfigurationError
from core.trace import RequestTrace

logger = logging.getLogger("headgate.request_log")
SCHEMA_VERSION = 1
MAX_QUEUED = 20_000
GROUP_ROWS = 500
GROUP_WAIT_S = 0.2

_SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
  request_id TEXT PRIMARY KEY, received_at_ms INTEGER NOT NULL, tenant TEXT NOT NULL, key_id TEXT NOT NULL,
  path TEXT NOT NULL, model_alias TEXT NOT NULL, stream INTEGER NOT NULL, status INTEGER NOT NULL, error_code TEXT,
  cache TEXT NOT NULL, cache_detail TEXT NOT NULL, similarity REAL, tier TEXT, deployment TEXT, reason TEXT,
  degraded_from TEXT, p_small_suffices REAL, policy_version TEXT, input_tokens INTEGER, output_tokens INTEGER,
  cost_nano_usd INTEGER NOT NULL, saved_nano_usd INTEGER NOT NULL, reserved_nano_usd INTEGER NOT NULL,
  ttft_ms REAL, total_ms REAL NOT NULL, overhead_ms REAL NOT NULL, sla_violated INTEGER NOT NULL, attempts TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS requests_by_time ON requests (received_at_ms);
"""
_COLUMNS = 28
_INSERT = f"INSERT OR IGNORE INTO requests VALUES ({','.join('?' * _COLUMNS)})"  # noqa: S608 - placeholders only
_Row = tuple[str | int | float | None, ...]


class RequestLog:
    """A sink backed by one SQLite file; `close` writes what is queued."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = _open(path)
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
        going_on = True
        while going_on:
            group, going_on = self._take_group()
            try:
                with self._connection:
                    self._connection.executemany(_INSERT, group)
            except sqlite3.Error as problem:
                self.dropped += len(group)
                logger.warning("request rows were not written", extra={"rows": len(group), "problem": str(problem)})
        self._connection.close()

    def _take_group(self) -> tuple[list[_Row], bool]:
        """Wait for a first row, then take what comes within the group's time; False when the log was closed."""
        group: list[_Row] = []
        first = self._queue.get()
        while first is not None:
            group.append(first)
            if len(group) >= GROUP_ROWS:
                return group, True
            try:
                first = self._queue.get(timeout=GROUP_WAIT_S)
            except queue.Empty:
                return group, True
        return group, False


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise ConfigurationError(
            str(path), "", f"the request log has schema {version}, newer than {SCHEMA_VERSION}", "use a newer Headgate"
        )
    connection.executescript(_SCHEMA)
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    return connection


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
