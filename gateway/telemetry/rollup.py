"""The sums of each minute, hour and day (of UTC), kept while they grow and written whole with every group of rows.

Sums are kept apart by everything one may ask for; sketches of latency, which are large, by tenant and by who served.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import add
from typing import Generic, Protocol, TypeVar

from core.trace import RequestTrace
from gateway.telemetry.attainment import COUNTS, Attained
from gateway.telemetry.request_rows import INSERT_ATTAINED, INSERT_CELL, INSERT_LATENCIES, INSERT_SOURCE, INSERT_TRIAL
from gateway.telemetry.savings import HITS, Saved, Trials, sources_of
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
    def values(self) -> tuple[object, ...]: ...


C = TypeVar("C", bound=_Cell)


class _Table(Generic[C]):
    """The cells of one table: those of the present group by minute, and those that still grow by span.

    A request is added to its minute alone; a group is then merged into every span, which costs little. A grown cell
    that is not in memory is read back first.
    """

    def __init__(self, insert: str, empty: Callable[[], C], load: Callable[[Key], C]) -> None:
        self._insert = insert
        self._empty = empty
        self._load = load
        self._group: dict[Key, C] = {}
        self._grown: dict[Key, C] = {}

    def cell(self, *key: int | str) -> C:
        """Return the group's cell of a minute and its labels."""
        cell = self._group.get(key)
        if cell is None:
            cell = self._group[key] = self._empty()
        return cell

    def write(self, connection: sqlite3.Connection) -> None:
        """Merge the group into every span, and write what changed."""
        changed = {}
        for span_s in SPANS_S:
            for (minute_s, *labels), more in self._group.items():
                key = (span_s, int(minute_s) - int(minute_s) % span_s, *labels)
                cell = self._grown.get(key)
                if cell is None:
                    cell = self._grown[key] = self._load(key)
                _merge(cell, more)
                changed[key] = cell
        self._group.clear()
        connection.executemany(self._insert, [(*key, *cell.values()) for key, cell in changed.items()])
        if len(self._grown) > MAX_CELLS:
            self._grown.clear()

    def forget(self) -> None:
        self._group.clear()
        self._grown.clear()


class Rollup:
    """The cells that still grow, over the log's own connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._sums = _Table(INSERT_CELL, Sums, self._load_sums)
        self._latencies = _Table(INSERT_LATENCIES, Latencies, self._load_latencies)
        self._sources = _Table(INSERT_SOURCE, Saved, self._load_source)
        self._trials = _Table(INSERT_TRIAL, Trials, self._load_trials)
        self._attained = _Table(INSERT_ATTAINED, Attained, self._load_attained)
        self._tables = (self._sums, self._latencies, self._sources, self._trials, self._attained)

    def add(self, trace: RequestTrace) -> None:
        """Count one request, until `write` or `forget`."""
        at_s = int(trace.received_at.timestamp())
        minute_s, tenant, tier = at_s - at_s % MINUTE_S, trace.tenant, trace.tier or ""
        self._sums.cell(minute_s, tenant, tier, trace.deployment or "", trace.cache, trace.reason or "").add(trace)
        self._latencies.cell(minute_s, tenant, CACHE if trace.cache in HITS else tier).add(trace)
        if Attained.concerns(trace):
            self._attained.cell(minute_s, tenant, tier).add(trace)
        for source, part_nano_usd in sources_of(trace).items():
            self._sources.cell(minute_s, tenant, source).add(part_nano_usd)
        if trace.trial is not None:
            self._trials.cell(minute_s, tenant, trace.trial.per_10k, int(trace.trial.held_out)).add(trace)

    def write(self) -> None:
        """Write what changed, inside the caller's transaction."""
        for table in self._tables:
            table.write(self._connection)

    def forget(self) -> None:
        """Drop everything in memory; what is added to is read back first."""
        for table in self._tables:
            table.forget()

    def _load_sums(self, key: Key) -> Sums:
        row = self._connection.execute(_LOAD_SUMS, key).fetchone()
        return Sums() if row is None else Sums(*row)

    def _load_latencies(self, key: Key) -> Latencies:
        row = self._connection.execute(_LOAD_LATENCIES, key).fetchone()
        return Latencies() if row is None else Latencies(merged([row[0]]), merged([row[1]]))

    def _load_source(self, key: Key) -> Saved:
        row = self._connection.execute(_LOAD_SOURCE, key).fetchone()
        return Saved(*(row or ()))

    def _load_attained(self, key: Key) -> Attained:
        row = self._connection.execute(_LOAD_ATTAINED, key).fetchone()
        return Attained() if row is None else Attained.of(row[:-1], [row[-1]])

    def _load_trials(self, key: Key) -> Trials:
        row = self._connection.execute(_LOAD_TRIALS, key).fetchone()
        return Trials(*(row or ()))


def _merge(cell: object, more: object) -> None:
    """Add every number, and every sketch, of one cell to another of its kind."""
    for name in more.__slots__:  # type: ignore[attr-defined]
        value = getattr(more, name)
        if isinstance(value, Counter):
            getattr(cell, name).update(value)
        elif value:
            setattr(cell, name, getattr(cell, name) + value)
