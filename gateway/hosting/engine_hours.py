"""What every hosted engine did and cost, hour by hour, in a small file beside the state: for reports over months.

The CPU time of the gateway's own encoder is kept there, too.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from policies.loaded_cost import EngineUse
from policies.sqlite_schema import reading

VERSION = 1
CREATE = """
CREATE TABLE IF NOT EXISTS engine_hours (
  hour_s INTEGER NOT NULL, engine TEXT NOT NULL, up_s REAL NOT NULL, busy_s REAL NOT NULL,
  input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, marginal_nano_usd INTEGER NOT NULL,
  held_nano_usd INTEGER, idle_nano_usd INTEGER, PRIMARY KEY (hour_s, engine)
) WITHOUT ROWID
"""
CREATE_ENCODER = "CREATE TABLE IF NOT EXISTS encoder_hours (hour_s INTEGER PRIMARY KEY, cpu_s REAL NOT NULL)"
ADD_ENCODER = "INSERT INTO encoder_hours VALUES (?, ?) ON CONFLICT DO UPDATE SET cpu_s = cpu_s + excluded.cpu_s"
SUM_ENCODER = "SELECT sum(cpu_s) FROM encoder_hours WHERE hour_s >= ? AND hour_s < ?"
ADD = """
INSERT INTO engine_hours VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
  up_s = up_s + excluded.up_s, busy_s = busy_s + excluded.busy_s,
  input_tokens = input_tokens + excluded.input_tokens, output_tokens = output_tokens + excluded.output_tokens,
  marginal_nano_usd = marginal_nano_usd + excluded.marginal_nano_usd,
  held_nano_usd = coalesce(held_nano_usd + excluded.held_nano_usd, held_nano_usd, excluded.held_nano_usd),
  idle_nano_usd = coalesce(idle_nano_usd + excluded.idle_nano_usd, idle_nano_usd, excluded.idle_nano_usd)
"""
SUM = """
SELECT engine, sum(up_s), sum(busy_s), sum(input_tokens), sum(output_tokens), sum(marginal_nano_usd),
  sum(held_nano_usd), sum(idle_nano_usd)
FROM engine_hours WHERE hour_s >= ? AND hour_s < ? GROUP BY engine ORDER BY engine
"""


@dataclass(frozen=True, slots=True)
class EngineCost:
    """What an engine did, and the hours that it held; None where no `hourly_usd` was known."""

    use: EngineUse
    held_nano_usd: int | None
    idle_nano_usd: int | None

    @property
    def ratio(self) -> float | None:
        """Return fully loaded / marginal cost, None where one is not known."""
        if self.held_nano_usd is None or not self.use.marginal_nano_usd:
            return None
        return self.held_nano_usd / self.use.marginal_nano_usd


def add_hours(path: Path, at: datetime, costs: Mapping[str, EngineCost]) -> None:
    """Add what happened since the last time to the hour of `at`. Raises sqlite3.Error or OSError."""
    with _adding(path) as connection:
        for name, cost in costs.items():
            use = cost.use
            figures = (use.up_s, use.busy_s, use.input_tokens, use.output_tokens, use.marginal_nano_usd)
            connection.execute(ADD, (_hour_s(at), name, *figures, cost.held_nano_usd, cost.idle_nano_usd))


def add_encoding(path: Path, at: datetime, cpu_s: float) -> None:
    """Add CPU seconds of the encoder to the hour of `at`. Raises sqlite3.Error or OSError."""
    with _adding(path) as connection:
        connection.execute(ADD_ENCODER, (_hour_s(at), cpu_s))


def sum_hours(path: Path, since: datetime, until: datetime) -> dict[str, EngineCost]:
    """Return every engine's sums over the hours that begin in [since, until); empty where there is no file."""
    rows = _summed(path, SUM, since, until)
    return {name: EngineCost(EngineUse(*figures), held, idle) for name, *figures, held, idle in rows}


def sum_encoding(path: Path, since: datetime, until: datetime) -> float | None:
    """Return the encoder's CPU seconds over the hours that begin in [since, until), None where none was written."""
    rows = _summed(path, SUM_ENCODER, since, until)
    return None if not rows or rows[0][0] is None else float(rows[0][0])


@contextmanager
def _adding(path: Path) -> Iterator[sqlite3.Connection]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=5)) as connection, connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise sqlite3.DatabaseError(f"{path.name} was written by a newer version")
        connection.execute(CREATE)
        connection.execute(CREATE_ENCODER)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        yield connection


def _summed(path: Path, query: str, since: datetime, until: datetime) -> list[Any]:
    if not path.exists():
        return []
    bounds = (int(since.timestamp()), int(until.timestamp()))
    with reading(path) as connection:
        try:
            return connection.execute(query, bounds).fetchall()
        except sqlite3.OperationalError as problem:
            if "no such table" in str(problem):  # a file from before the encoder was metered
                return []
            raise


def _hour_s(at: datetime) -> int:
    return int(at.timestamp()) // 3600 * 3600
