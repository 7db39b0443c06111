"""What deployments were lately seen to do, read from a request log without touching it."""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import msgspec

from core.errors import ConfigurationError
from gateway.telemetry.request_rows import LoggedAttempt, attempts_decoder
from policies.abilities import Measured
from policies.sqlite_schema import reading

LAST_REQUESTS = 5_000
_QUERY = "SELECT stream, attempts FROM requests ORDER BY received_at_ms DESC LIMIT ?"


def measured_deployments(path: Path) -> Mapping[str, Measured]:
    """Return the measurements of the last 5,000 requests by deployment; no file, no measurements.

    Time to first token counts for streams only, as the SLA does; only complete attempts count.

    Raises:
        ConfigurationError: the file is no request log.
    """
    if not path.exists():
        return {}
    ttft: dict[str, list[float]] = defaultdict(list)
    total: dict[str, list[float]] = defaultdict(list)
    rate: dict[str, list[float]] = defaultdict(list)
    for stream, attempts in _rows(path):
        for attempt in attempts:
            if attempt.outcome != "complete":
                continue
            total[attempt.deployment].append(attempt.ended_ms - attempt.started_ms)
            if not stream or attempt.first_byte_ms is None:
                continue
            ttft[attempt.deployment].append(attempt.first_byte_ms - attempt.started_ms)
            writing_ms = attempt.ended_ms - attempt.first_byte_ms
            if attempt.output_tokens is not None and attempt.output_tokens > 1 and writing_ms > 0:
                rate[attempt.deployment].append((attempt.output_tokens - 1) / writing_ms * 1000)
    return {name: Measured(tuple(ttft[name]), tuple(total[name]), tuple(rate[name])) for name in total}


def _rows(path: Path) -> list[tuple[bool, list[LoggedAttempt]]]:
    try:
        with reading(path) as connection:
            rows = connection.execute(_QUERY, (LAST_REQUESTS,)).fetchall()
        return [(bool(stream), attempts_decoder.decode(attempts)) for stream, attempts in rows]
    except (sqlite3.Error, msgspec.DecodeError) as problem:
        mend = "name the file that ends in -requests.db, beside the state"
        raise ConfigurationError(str(path), "", f"cannot be read as a request log ({problem})", mend) from problem
