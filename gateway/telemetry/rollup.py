"""The sums of each minute, hour and day (of UTC): minutes grow with every group of rows, and are folded when closed.

Sums are kept apart by everything one may ask for; sketches of latency, which are large, by tenant and by who served.
A row is added to its minute alone, in its own transaction; an hour is added up from its minutes once it is over, a day
from its hours, and the table `folded` says up to when. Whoever asks for hours reads hours up to then, and minutes from
then on (`log_reader`). A row that comes after its hour or day was folded is added to that, too.
"""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from operator import add
from typing import Any, Generic, Protocol, TypeVar

from core.trace import RequestTrace
from gateway.telemetry.attainment import Attained, verdict_on
from gateway.telemetry.savings import HITS, Saved, Trials, sources_of
from gateway.telemetry.sketch import bucket_of, encode, merged

MINUTE_S = 60
HOUR_S = 3_600
DAY_S = 86_400
FOLDS = ((HOUR_S, MINUTE_S), (DAY_S, HOUR_S))
GRACE_S = 300
"""How long after its end a span is folded: by then nearly all its requests are over, and rows are cheap to add."""
OK = 200
CACHE = "cache"
"""`served_by` of what came from the cache or from an identical request; otherwise it is the tier."""
Key = tuple[int | str, ...]
Row = tuple[Any, ...]


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
        """Count one request of a client, if it was answered."""
        if trace.status == OK:
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
    """The cells of one table by span, start and labels: those that lately grew, and those that must be written.

    A cell that is not in memory is read back first. `labels` and the fields of `kind` are named like the columns.
    """

    def __init__(self, connection: sqlite3.Connection, name: str, labels: Sequence[str], kind: type[C]) -> None:
        values = [one.name for one in fields(kind)]  # type: ignore[arg-type]
        chosen = "".join(f" AND {label} = ?" for label in labels)
        self._connection = connection
        self._kind = kind
        width = 2 + len(labels) + len(values)
        self._insert = f"INSERT OR REPLACE INTO {name} VALUES ({','.join('?' * width)})"  # noqa: S608 - our own names
        self._one = f"SELECT {', '.join(values)} FROM {name} WHERE span_s = ? AND starts_at_s = ?{chosen}"  # noqa: S608
        self._parts = f"SELECT * FROM {name} WHERE span_s = ? AND starts_at_s >= ? AND starts_at_s < ?"  # noqa: S608
        self._labels = slice(2, 2 + len(labels))
        self._grown: dict[Key, C] = {}
        self._changed: dict[Key, C] = {}

    def cell(self, *key: int | str) -> C:
        """Return a cell to add to: of a span, its start and the labels."""
        cell = self._grown.get(key)
        if cell is None:
            row = self._connection.execute(self._one, key).fetchone()
            cell = self._grown[key] = summed(self._kind, () if row is None else (row,))
        self._changed[key] = cell
        return cell

    def write(self) -> None:
        self._connection.executemany(self._insert, [(*key, *cell.values()) for key, cell in self._changed.items()])
        self._changed.clear()

    def fold(self, from_s: int, to_s: int, span_s: int, part_s: int) -> None:
        """Add up the parts that start in [from_s, to_s) to whole spans."""
        parts: dict[Key, list[Row]] = defaultdict(list)
        for row in self._connection.execute(self._parts, (part_s, from_s, to_s)):
            parts[(span_s, row[1] - row[1] % span_s, *row[self._labels])].append(row[self._labels.stop :])
        for key, rows in parts.items():
            self._connection.execute(self._insert, (*key, *summed(self._kind, rows).values()))

    def keep_since(self, starts_at_s: int) -> None:
        """Let go of older cells, which hardly grow any more."""
        self._grown = {key: cell for key, cell in self._grown.items() if int(key[1]) >= starts_at_s}

    def forget(self) -> None:
        self._grown.clear()
        self._changed.clear()


class Rollup:
    """The cells that still grow, over the log's own connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._sums = _Table(connection, "rollup", ("tenant", "tier", "deployment", "cache", "reason"), Sums)
        self._latencies = _Table(connection, "latencies", ("tenant", "served_by"), Latencies)
        self._sources = _Table(connection, "sources", ("tenant", "source"), Saved)
        self._trials = _Table(connection, "trials", ("tenant", "per_10k", "held_out"), Trials)
        self._attained = _Table(connection, "attainment", ("tenant", "tier"), Attained)
        self._tables = (self._sums, self._latencies, self._sources, self._trials, self._attained)
        self._group: dict[tuple[int, *tuple[str, ...]], list[RequestTrace]] = defaultdict(list)
        self._newest_s = 0
        self._folded_until_s = folded_until(connection)
        self._is_unsure = False

    def add(self, traces: Iterable[RequestTrace]) -> None:
        """Take requests, which count from the next `write` on."""
        for trace in traces:
            at_s = int(trace.received_at.timestamp())
            key = (at_s - at_s % MINUTE_S, trace.tenant, trace.tier or "", trace.deployment or "", trace.cache)
            self._group[*key, trace.reason or ""].append(trace)

    def write(self, now_s: float) -> None:
        """Count and write what was taken, and fold what closed, inside the caller's transaction."""
        if self._is_unsure:
            self._folded_until_s, self._is_unsure = folded_until(self._connection), False
        for (minute_s, *labels), traces in self._group.items():
            self._count(MINUTE_S, minute_s, labels, traces)
            for span_s, until_s in self._folded_until_s.items():
                if minute_s < until_s:
                    self._count(span_s, minute_s - minute_s % span_s, labels, traces)
            self._newest_s = max(self._newest_s, minute_s)
        self._group.clear()
        for table in self._tables:
            table.write()
            table.keep_since(self._newest_s - MINUTE_S)
        for span_s, part_s in FOLDS:
            self._fold(span_s, part_s, int(now_s - GRACE_S) // span_s * span_s)

    def _count(self, span_s: int, starts_at_s: int, labels: list[str], traces: list[RequestTrace]) -> None:
        """Count requests of equal labels, which are far fewer than requests, in one span."""
        tenant, tier, _, cache, _ = labels
        sums = self._sums.cell(span_s, starts_at_s, *labels)
        latencies = self._latencies.cell(span_s, starts_at_s, tenant, CACHE if cache in HITS else tier)
        for trace in traces:
            sums.add(trace)
            if trace.is_shadow:
                continue
            latencies.add(trace)
            verdict = verdict_on(trace)
            if verdict is not None or len(trace.attempts) > 1:
                self._attained.cell(span_s, starts_at_s, tenant, tier).add(trace, verdict)
            if trace.trial is not None:
                trial = trace.trial
                self._trials.cell(span_s, starts_at_s, tenant, trial.per_10k, int(trial.held_out)).add(trace)
        for trace in traces:
            for source, part_nano_usd in sources_of(trace).items():
                self._sources.cell(span_s, starts_at_s, tenant, source).add(part_nano_usd)

    def _fold(self, span_s: int, part_s: int, to_s: int) -> None:
        from_s = self._folded_until_s[span_s]
        if to_s <= from_s:
            return
        for table in self._tables:
            table.fold(from_s, to_s, span_s, part_s)
        self._connection.execute("INSERT OR REPLACE INTO folded VALUES (?, ?)", (span_s, to_s))
        self._folded_until_s[span_s] = to_s

    def let_go(self) -> None:
        """Keep no cell in memory that another process may change; what is added to is read back."""
        for table in self._tables:
            table.forget()

    def forget(self) -> None:
        """Drop what a transaction that failed left in memory; what is in the file is read back with the next one."""
        self._group.clear()
        for table in self._tables:
            table.forget()
        self._is_unsure = True


def folded_until(connection: sqlite3.Connection) -> dict[int, int]:
    """Return up to when hours and days are folded, in Unix seconds by span."""
    known = dict(connection.execute("SELECT span_s, until_s FROM folded"))
    return {span_s: known.get(span_s, 0) for span_s, _ in FOLDS}


def summed(kind: type[C], rows: Sequence[Row]) -> C:
    """Return a cell of what rows of its table hold together: numbers are added, sketches merged."""
    columns = zip(fields(kind), zip(*rows, strict=True), strict=False)  # type: ignore[arg-type]
    return kind(*(merged(values) if one.default_factory is Counter else sum(values) for one, values in columns))
