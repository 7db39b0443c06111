"""Rows of the request log as CSV or Parquet, in the order of their time, a batch at a time; no prompt is in any row.

The file is written beside its place and moved there when it is whole, so that nobody reads half of one. The log may be
in use: what is written meanwhile is exported or not.
"""

import csv
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from core.errors import ConfigurationError
from gateway.telemetry.log_reader import LogUnreadable
from gateway.telemetry.request_rows import attempts_decoder
from gateway.telemetry.time_ranges import TimeRange
from policies.sqlite_schema import reading

Format = Literal["csv", "parquet"]
Kind = Literal["time", "text", "flag", "whole", "real"]
BATCH_ROWS = 10_000
COLUMNS: Mapping[str, Kind] = {
    "request_id": "text",
    "received_at": "time",
    "tenant": "text",
    "key_id": "text",
    "path": "text",
    "model_alias": "text",
    "stream": "flag",
    "status": "whole",
    "error_code": "text",
    "cache": "text",
    "cache_detail": "text",
    "similarity": "real",
    "tier": "text",
    "deployment": "text",
    "reason": "text",
    "degraded_from": "text",
    "p_small_suffices": "real",
    "policy_version": "text",
    "input_tokens": "whole",
    "output_tokens": "whole",
    "cost_nano_usd": "whole",
    "saved_nano_usd": "whole",
    "baseline_nano_usd": "whole",
    "reserved_nano_usd": "whole",
    "ttft_ms": "real",
    "total_ms": "real",
    "overhead_ms": "real",
    "sla_violated": "flag",
    "held_out": "flag",
    "holdout_ratio": "real",
    "attempts": "text",
}
_WHERE = "WHERE received_at_ms >= ? AND received_at_ms < ? AND (? IS NULL OR tenant = ?)"
_COUNT = f"SELECT count(*) FROM requests {_WHERE}"  # noqa: S608 - our own names
_ROWS = f"SELECT * FROM requests {_WHERE} ORDER BY received_at_ms, id"  # noqa: S608 - our own names
Batch = list[dict[str, Any]]


class Export:
    """The rows of a span of time, of one tenant or of all."""

    def __init__(self, log: Path, span: TimeRange, tenant: str | None) -> None:
        if not log.exists():
            raise ConfigurationError(str(log), "", "there is no request log yet", "let the gateway serve a request")
        self._log = log
        self._values = (span.start_ms, span.end_ms, tenant, tenant)

    def count(self) -> int:
        """Return how many rows there are; raises LogUnreadable."""
        with _readable(self._log), reading(self._log) as connection:
            return int(connection.execute(_COUNT, self._values).fetchone()[0])

    def write(self, to: Path, format_: Format, progress: Callable[[int], object] = lambda rows: None) -> int:
        """Write all rows and return how many.

        Raises:
            ConfigurationError: the file cannot be written, or Parquet takes a package that is not installed.
            LogUnreadable: the log cannot be read.
        """
        writing = {"csv": _write_csv, "parquet": _write_parquet}[format_]
        part = to.with_name(to.name + ".part")
        try:
            written = writing(part, self._batches(), progress)
            part.replace(to)
        except OSError as problem:
            reason = problem.strerror or str(problem)
            raise ConfigurationError(
                "--out", "", f"{to} cannot be written ({reason})", "choose another file"
            ) from problem
        finally:
            part.unlink(missing_ok=True)
        return written

    def _batches(self) -> Iterator[Batch]:
        with _readable(self._log), reading(self._log) as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute(_ROWS, self._values)
            while batch := rows.fetchmany(BATCH_ROWS):
                yield [_exported(row) for row in batch]


class _readable:  # noqa: N801 - reads as a clause
    """Tells of a log that cannot be read as what it is."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, problem: BaseException | None, trace: object) -> None:
        if isinstance(problem, sqlite3.Error):
            raise LogUnreadable(f"{self._log} cannot be read ({problem}).") from problem


def _exported(row: sqlite3.Row) -> dict[str, Any]:
    trial = row["trial"]
    made = {
        "received_at": datetime.fromtimestamp(row["received_at_ms"] / 1000, UTC),
        "held_out": None if trial is None else trial > 0,
        "holdout_ratio": None if trial is None else abs(trial) / 10_000,
        "attempts": json.dumps([one.by_name() for one in attempts_decoder.decode(row["attempts"])]),
    }
    values = {name: made[name] if name in made else row[name] for name in COLUMNS}
    flags = {name: bool(values[name]) for name, kind in COLUMNS.items() if kind == "flag" and values[name] is not None}
    return values | flags


def _write_csv(to: Path, batches: Iterator[Batch], progress: Callable[[int], object]) -> int:
    written = 0
    with to.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(COLUMNS))
        writer.writeheader()
        for batch in batches:
            writer.writerows({name: _text(value) for name, value in row.items()} for row in batch)
            written += len(batch)
            progress(len(batch))
    return written


def _text(value: object) -> object:
    """Write a value so that spreadsheets neither guess nor calculate: a formula would run where the file is opened."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value


def _write_parquet(to: Path, batches: Iterator[Batch], progress: Callable[[int], object]) -> int:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as missing:
        mend = "install it with `pip install 'headgate[parquet]'`, or use --format csv"
        raise ConfigurationError("--format", "", "Parquet takes the package pyarrow", mend) from missing
    kinds = {
        "time": arrow.timestamp("ms", tz="UTC"),
        "text": arrow.string(),
        "flag": arrow.bool_(),
        "whole": arrow.int64(),
        "real": arrow.float64(),
    }
    schema = arrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    written = 0
    with parquet.ParquetWriter(to, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(arrow.Table.from_pylist(batch, schema))
            written += len(batch)
            progress(len(batch))
    return written
