"""The sums of each minute, hour and day (of UTC), kept while they grow and written whole with every group of rows.

Sums are kept apart by everything one may ask for; sketches of latency, which are large, by tenant and by who served.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import add
from typing import Generic, Protocol, TypeVar, cast

from core.trace import RequestTrace
from gateway.telemetry.attainment import COUNTS, Attained
from gateway.telemetry.request_rows import INSERT_ATTAINED, INSERT_CELL, INSERT_LATENCIES, INSERT_SOURCE, INSERT_TRIAL
from gateway.telemetry.savings import HITS, Saved, Source, Trials, sources_of
from gateway.telemetry.sketch import bucket_of, encode, merged

MINUTE_S = 60
HOUR_S = 3_600
DAY_S = 86_400
SPANS_S = (MINUTE_S, HOUR_S, DAY_S)
MAX_CELLS = 4_096
OK = 200
CACHE = "cache"
"""`served_by` of what came from the cache or from an identical request; otherwise it is the tier."""
_LOAD_SUMS = """
SELECT requests, answered, failed, refused, late, attempts, input_tokens, output_tokens, cost_nano_usd, saved_nano_usd,
  baseline_nano_usd
FROM rollup
WHERE span_s = ? AND starts_at_s = ? AND tenant = ? AND tier = ? AND deployment = ? AND cache = ? AND reason = ?
"""
_LOAD_LATENCIES = """
SELECT ttft, total FROM latencies WHERE span_s = ? AND starts_at_s = ? AND tenant = ? AND served_by = ?
"""
_LOAD_SOURCE = """
SELECT requests, saved_nano_usd FROM sources WHERE span_s = ? AND starts_at_s = ? AND tenant = ? AND source = ?
"""
_LOAD_TRIALS = """
SELECT requests, cost_nano_usd, cost_squared, baseline_nano_usd, late FROM trials
WHERE span_s = ? AND starts_at_s = ? AND tenant = ? AND per_10k = ? AND held_out = ?
"""
_LOAD_ATTAINED = (
    f"SELECT {', '.join(COUNTS)}, tpot FROM attainment "  # noqa: S608 - our own names
    "WHERE span_s = ? AND starts_at_s = ? AND tenant = ? AND tier = ?"
)
Key = tuple[int | str, ...]


@dataclass(slots=True)
class Sums:
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

    def plus(self, other: "Sums") -> "Sums":
        """Return both together."""
        return Sums(*map(add, self.values(), other.values()))

    def values(self) -> tuple[int, ...]:
        """Return the sums in the order of the table."""
        return (
            self.requests,
            self.answered,
            self.failed,
            self.refused,
            self.late,
            self.attempts,
            self.input_tokens,
            self.output_tokens,
            self.cost_nano_usd,
            self.saved_nano_usd,
            self.baseline_nano_usd,
        )


@dataclass(slots=True)
class Latencies:
    """Sketches of answered requests; streams alone have a time to first token."""

    ttft: Counter[int] = field(default_factory=Counter)
    total: Counter[int] = field(default_factory=Counter)

    def add(self, trace: RequestTrace) -> None:
        """Count one request, if it was answered, and not one that the gateway asked by itself."""
        if trace.status == OK and not trace.is_shadow:
            self.total[bucket_of(trace.total_ms)] += 1
            if trace.stream and trace.ttft_ms is not None:
                self.ttft[bucket_of(trace.ttft_ms)] += 1

    def values(self) -> tuple[bytes | None, bytes | None]:
        """Return the sketches in the order of the table."""
        return encode(self.ttft), encode(self.total)


class _Cell(Protocol):
    def add(self, trace: RequestTrace) -> None: ...

    def values(self) -> tuple[object, ...]: ...


C = TypeVar("C", bound=_Cell)


class _Growing(Generic[C]):
    """Cells of one table by key; one that is not in memory is read back before it is added to."""

    def __init__(self, load: Callable[[Key], C]) -> None:
        self._load = load
        self._cells: dict[Key, C] = {}
        self._changed: set[Key] = set()

    def add(self, key: Key, trace: RequestTrace) -> None:
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = self._load(key)
        cell.add(trace)
        self._changed.add(key)

    def taken(self) -> Iterable[tuple[object, ...]]:
        """Return the rows of what changed since the last call."""
        rows = [(*key, *self._cells[key].values()) for key in self._changed]
        self._changed.clear()
        if len(self._cells) > MAX_CELLS:
            self._cells.clear()
        return rows

    def forget(self) -> None:
        self._cells.clear()
        self._changed.clear()


class Rollup:
    """The cells that still grow, over the log's own connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._sums = _Growing(self._load_sums)
        self._latencies = _Growing(self._load_latencies)
        self._sources = _Growing(self._load_source)
        self._trials = _Growing(self._load_trials)
        self._attained = _Growing(self._load_attained)

    def add(self, trace: RequestTrace) -> None:
        """Count one request in its minute, its hour and its day."""
        at_s = int(trace.received_at.timestamp())
        tier = trace.tier or ""
        served_by = CACHE if trace.cache in HITS else tier
        sources = sources_of(trace)
        for span_s in SPANS_S:
            start_s = at_s - at_s % span_s
            labels = (trace.tenant, tier, trace.deployment or "", trace.cache, trace.reason or "")
            self._sums.add((span_s, start_s, *labels), trace)
            self._latencies.add((span_s, start_s, trace.tenant, served_by), trace)
            if Attained.concerns(trace):
                self._attained.add((span_s, start_s, trace.tenant, tier), trace)
            for source in sources:
                self._sources.add((span_s, start_s, trace.tenant, source), trace)
            if trace.trial is not None:
                arm = (trace.trial.per_10k, int(trace.trial.held_out))
                self._trials.add((span_s, start_s, trace.tenant, *arm), trace)

    def write(self) -> None:
        """Write what changed, inside the caller's transaction."""
        self._connection.executemany(INSERT_CELL, self._sums.taken())
        self._connection.executemany(INSERT_LATENCIES, self._latencies.taken())
        self._connection.executemany(INSERT_SOURCE, self._sources.taken())
        self._connection.executemany(INSERT_TRIAL, self._trials.taken())
        self._connection.executemany(INSERT_ATTAINED, self._attained.taken())

    def forget(self) -> None:
        """Drop everything in memory; what is added to is read back first."""
        for cells in (self._sums, self._latencies, self._sources, self._trials, self._attained):
            cells.forget()

    def _load_sums(self, key: Key) -> Sums:
        row = self._connection.execute(_LOAD_SUMS, key).fetchone()
        return Sums() if row is None else Sums(*row)

    def _load_latencies(self, key: Key) -> Latencies:
        row = self._connection.execute(_LOAD_LATENCIES, key).fetchone()
        return Latencies() if row is None else Latencies(merged([row[0]]), merged([row[1]]))

    def _load_source(self, key: Key) -> Saved:
        row = self._connection.execute(_LOAD_SOURCE, key).fetchone()
        return Saved(cast(Source, key[3]), *(row or ()))

    def _load_attained(self, key: Key) -> Attained:
        row = self._connection.execute(_LOAD_ATTAINED, key).fetchone()
        return Attained() if row is None else Attained.of(row[:-1], [row[-1]])

    def _load_trials(self, key: Key) -> Trials:
        row = self._connection.execute(_LOAD_TRIALS, key).fetchone()
        return Trials(*(row or ()))
