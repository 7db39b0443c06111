"""Outcomes in a table beside the request log, so that users' words can be joined with what was decided."""

import asyncio
import sqlite3
import threading
from pathlib import Path

from core.outcome import Outcome
from policies.sqlite_schema import open_database

MAX_ROWS = 1_000_000
_SCHEMA = """
CREATE TABLE outcomes (
  n INTEGER PRIMARY KEY AUTOINCREMENT, request_id TEXT NOT NULL, tenant TEXT NOT NULL, kind TEXT NOT NULL,
  score REAL NOT NULL, at_ms INTEGER NOT NULL
);
CREATE UNIQUE INDEX outcomes_by_request ON outcomes (request_id, kind);
"""
_INSERT = "INSERT OR REPLACE INTO outcomes (request_id, tenant, kind, score, at_ms) VALUES (?, ?, ?, ?, ?)"
_TRIM = "DELETE FROM outcomes WHERE n <= (SELECT max(n) FROM outcomes) - ?"


class OutcomeLog:
    """An `OutcomeSink` that keeps the last word of each kind on each request; the oldest rows go first."""

    def __init__(self, path: Path, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._connection = open_database(path, "outcomes", (_SCHEMA,))
        self._lock = threading.Lock()

    async def take(self, outcome: Outcome) -> None:
        """Write one row; see `OutcomeSink.take`."""
        await asyncio.to_thread(self._write, outcome)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _write(self, outcome: Outcome) -> None:
        at_ms = int(outcome.at.timestamp() * 1000)
        row = (outcome.request_id, outcome.tenant, outcome.kind, outcome.score, at_ms)
        try:
            with self._lock:
                self._connection.execute(_INSERT, row)
                self._connection.execute(_TRIM, (self._max_rows,))
        except sqlite3.Error as problem:
            raise OSError(f"the outcome was not written: {problem}") from problem
