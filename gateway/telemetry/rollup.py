"""The sums of each minute and each hour, kept while they grow and written whole with every group of rows."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from core.trace import RequestTrace
from gateway.telemetry.request_rows import INSERT_CELL
from gateway.telemetry.sketch import bucket_of, encode, merged

MINUTE_S = 60
HOUR_S = 3600
SPANS_S = (MINUTE_S, HOUR_S)
MAX_CELLS = 4_096
OK = 200
_LOAD = """
SELECT requests, answered, failed, refused, late, attempts, input_tokens, output_tokens, cost_nano_usd, saved_nano_usd,
  baseline_nano_usd, ttft, total
FROM rollup
WHERE span_s = ? AND starts_at_s = ? AND tenant = ? AND tier = ? AND deployment = ? AND cache = ? AND reason = ?
"""
Key = tuple[int, int, str, str, str, str, str]


@dataclass(slots=True)
class Cell:
    """What the requests of one span, tenant, tier, deployment, cache outcome and reason add up to."""

    requests: int = 0
    answered: int = 0
    failed: int = 0
    refused: int = 0
    late: int = 0
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: int = 0
    saved_nano_usd: int = 0
    baseline_nano_usd: int = 0
    ttft: Counter[int] = field(default_factory=Counter, kw_only=True)
    total: Counter[int] = field(default_factory=Counter, kw_only=True)

    def add(self, trace: RequestTrace) -> None:
        """Count one request; of what the gateway asked by itself, only what it used and cost."""
        self.attempts += len(trace.attempts)
        if trace.usage is not None:
            self.input_tokens += trace.usage.input_tokens
            self.output_tokens += trace.usage.output_tokens
        self.cost_nano_usd += trace.cost_nano_usd
        self.saved_nano_usd += trace.saved_nano_usd
        if trace.is_shadow:
            return
        self.baseline_nano_usd += trace.cost_nano_usd if trace.baseline_nano_usd is None else trace.baseline_nano_usd
        self.requests += 1
        self.answered += trace.status == OK
        self.failed += trace.status >= 500
        self.refused += 400 <= trace.status < 500
        self.late += trace.sla_violated
        if trace.status == OK:
            self.total[bucket_of(trace.total_ms)] += 1
            if trace.stream and trace.ttft_ms is not None:
                self.ttft[bucket_of(trace.ttft_ms)] += 1


class Rollup:
    """The cells that still grow; those of an earlier start are read back before they are added to."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cells: dict[Key, Cell] = {}
        self._changed: set[Key] = set()

    def add(self, trace: RequestTrace) -> None:
        """Count one request in its minute and its hour."""
        at_s = int(trace.received_at.timestamp())
        labels = (trace.tenant, trace.tier or "", trace.deployment or "", trace.cache, trace.reason or "")
        for span_s in SPANS_S:
            key = (span_s, at_s - at_s % span_s, *labels)
            cell = self._cells.get(key)
            if cell is None:
                cell = self._cells[key] = self._loaded(key)
            cell.add(trace)
            self._changed.add(key)

    def write(self) -> None:
        """Write what changed, inside the caller's transaction."""
        self._connection.executemany(INSERT_CELL, self._rows())
        self._changed.clear()
        if len(self._cells) > MAX_CELLS:
            self.forget()

    def forget(self) -> None:
        """Drop everything in memory; what is added to is read back first."""
        self._cells.clear()
        self._changed.clear()

    def _rows(self) -> Iterator[tuple[object, ...]]:
        for key in self._changed:
            cell = self._cells[key]
            yield (
                *key,
                cell.requests,
                cell.answered,
                cell.failed,
                cell.refused,
                cell.late,
                cell.attempts,
                cell.input_tokens,
                cell.output_tokens,
                cell.cost_nano_usd,
                cell.saved_nano_usd,
                cell.baseline_nano_usd,
                encode(cell.ttft),
                encode(cell.total),
            )

    def _loaded(self, key: Key) -> Cell:
        row = self._connection.execute(_LOAD, key).fetchone()
        if row is None:
            return Cell()
        *sums, ttft, total = row
        return Cell(*sums, ttft=merged([ttft]), total=merged([total]))
