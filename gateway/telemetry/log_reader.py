"""What the request log tells: sums, series and percentiles of a window, pages of rows, and one request.

Every call opens the file read-only, so a slow reader never holds up the writer; calls block and belong in a thread.
Percentiles are exact up to 50,000 rows and come from sketches above that, within `sketch.ERROR_RATIO`.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeVar

from core.errors import HeadgateError
from gateway.telemetry.attainment import COUNTS, Attained
from gateway.telemetry.request_rows import LoggedAttempt, attempts_decoder
from gateway.telemetry.rollup import CACHE, DAY_S, HOUR_S, MINUTE_S, Sums, folded_until
from gateway.telemetry.savings import Saved, Source, Trials
from gateway.telemetry.sketch import ERROR_RATIO, exact_percentile, merged, percentile
from policies.sqlite_schema import reading

EXACT_ROWS = 50_000
MINUTES_UP_TO_S = 6 * HOUR_S
HOURS_UP_TO_S = 8 * DAY_S
SCAN_ROWS = 200_000
MAX_PAGE = 200
QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
Label = Literal["tenant", "tier", "deployment", "cache", "reason"]
Outcome = Literal["ok", "refused", "failed", "late"]
_SERVED_BY = f"CASE WHEN cache IN ('exact', 'semantic', 'joined') THEN '{CACHE}' ELSE coalesce(tier, '') END"
_SUM_NAMES = tuple(field.name for field in fields(Sums))
_SUM_COLUMNS = ", ".join(f"sum({name})" for name in _SUM_NAMES)
_OUTCOMES: Mapping[Outcome, str] = {
    "ok": "status = 200",
    "refused": "status BETWEEN 400 AND 499",
    "failed": "status >= 500",
    "late": "sla_violated = 1",
}


class LogUnreadable(HeadgateError):
    """The request log cannot be read now."""

    code = "request_log_unreadable"
    http_status = 503


_Step = tuple[int, str, bytes | None, bytes | None]
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Window:
    """Unix seconds from `start_s` (the start of a span) up to and without `end_s`; `span_s` is one step of a series."""

    start_s: int
    end_s: int
    span_s: int

    @classmethod
    def between(cls, start_s: float, end_s: float) -> "Window":
        """Return the window that begins with the whole minute (hour above 6 hours, day above 8) of `start_s`."""
        length_s = end_s - start_s
        span_s = MINUTE_S if length_s <= MINUTES_UP_TO_S else HOUR_S if length_s <= HOURS_UP_TO_S else DAY_S
        return cls(int(start_s // span_s) * span_s, int(end_s) + 1, span_s)


@dataclass(frozen=True, slots=True)
class Group:
    """Sums of all requests that share some labels."""

    labels: tuple[str, ...]
    sums: Sums


@dataclass(frozen=True, slots=True)
class Point:
    """Sums of one step of a series, by who served: a tier, or `cache`."""

    starts_at_s: int
    served_by: str
    sums: Sums


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Milliseconds by name (`p50`, `p95`, `p99`) of answered requests; None where there were none."""

    served_by: str
    ttft_ms: Mapping[str, float | None]
    total_ms: Mapping[str, float | None]
    error_ratio: float


@dataclass(frozen=True, slots=True)
class TenantLatency:
    """Milliseconds by name (`p50`, `p95`, `p99`) of one tenant's answered requests at one tier, within 1 %."""

    ttft_ms: Mapping[str, float | None]
    total_ms: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class LatencyPoint:
    """The 95th percentiles of one step of a series, in milliseconds, from sketches."""

    starts_at_s: int
    served_by: str
    ttft_ms: float | None
    total_ms: float | None


@dataclass(frozen=True, slots=True)
class Latencies:
    """The percentiles of a window by who served, and of its steps, oldest first."""

    whole: tuple[Percentiles, ...]
    series: tuple[LatencyPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which rows; None asks for all. `request_id` is a whole id, or its beginning."""

    tenant: str | None = None
    tier: str | None = None
    deployment: str | None = None
    cache: str | None = None
    reason: str | None = None
    key_id: str | None = None
    outcome: Outcome | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One row: the columns as the log names them, and its attempts."""

    id: int
    columns: Mapping[str, str | int | float | None]
    attempts: tuple[LoggedAttempt, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Rows, newest first; `searched_to` is where the search stopped, None at the end of the log."""

    rows: tuple[LoggedRequest, ...]
    searched_to: int | None


@dataclass(frozen=True, slots=True)
class LogReader:
    """Reads one request log."""

    path: Path

    def sums(
        self, window: Window, by: Sequence[Label] = (), tenant: str | None = None, most: int = -1
    ) -> tuple[Group, ...]:
        """Return the sums of the window by the given labels, most requests first, and `most` of them at most."""
        grouped = f"GROUP BY {', '.join(by)}" if by else ""
        then = f"{grouped} ORDER BY sum(requests) DESC LIMIT {most}"
        rows = self._cells(", ".join((*by, _SUM_COLUMNS)), "rollup", window, tenant, then)
        return tuple(Group(row[: len(by)], Sums(*row[len(by) :])) for row in rows if row[-1] is not None)

    def series(self, window: Window, tenant: str | None = None) -> tuple[Point, ...]:
        """Return the sums of every step by who served, oldest first."""
        columns = f"{_step(window)}, {_SERVED_BY}, {_SUM_COLUMNS}"
        rows = self._cells(columns, "rollup", window, tenant, "GROUP BY 1, 2 ORDER BY 1")
        return tuple(Point(row[0], row[1], Sums(*row[2:])) for row in rows)

    def latencies(self, window: Window, tenant: str | None = None) -> Latencies:
        """Return the percentiles of the window and of every step."""
        sketches = self._cells(f"{_step(window)}, served_by, ttft, total", "latencies", window, tenant)
        steps = {
            key: (percentile(merged(ttft), 0.95), percentile(merged(total), 0.95))
            for key, (ttft, total) in _by(sketches, lambda step: (step[0], step[1])).items()
        }
        series = tuple(LatencyPoint(*key, *values) for key, values in sorted(steps.items()))
        counted = self.sums(window, (), tenant)
        if not counted or counted[0].sums.requests <= EXACT_ROWS:
            return Latencies(self._exact(window, tenant), series)
        whole = tuple(
            Percentiles(served_by, _sketched(ttft), _sketched(total), ERROR_RATIO)
            for served_by, (ttft, total) in sorted(_by(sketches, lambda step: step[1]).items())
        )
        return Latencies(whole, series)

    def page(self, wanted: Filter, *, before: int | None = None, after: int | None = None, limit: int = 50) -> Page:
        """Return up to `limit` rows older than `before` (or newer than `after`), newest first.

        One call looks at 200,000 rows at most, so that a filter that fits nothing costs a bounded time; the next call
        goes on from `searched_to`.
        """
        with self._reading() as connection:
            newest = connection.execute("SELECT coalesce(max(id), 0) FROM requests").fetchone()[0]
            top = newest + 1 if before is None else before
            floor = max(after or 0, top - SCAN_ROWS - 1)
            where, values = _conditions(wanted)
            query = f"SELECT * FROM requests WHERE id < ? AND id > ?{where} ORDER BY id DESC LIMIT ?"  # noqa: S608 - our own names
            connection.row_factory = sqlite3.Row
            rows = connection.execute(query, (top, floor, *values, min(limit, MAX_PAGE))).fetchall()
        found = tuple(_logged(row) for row in rows)
        if len(found) == limit:
            return Page(found, found[-1].id)
        return Page(found, floor + 1 if floor > (after or 0) else None)

    def request(self, request_id: str) -> LoggedRequest | None:
        """Return the row of one request."""
        query = "SELECT * FROM requests WHERE substr(request_id, -16) = ?"
        with self._reading() as connection:
            connection.row_factory = sqlite3.Row
            row = connection.execute(query, (request_id[-16:],)).fetchone()
        return None if row is None or row["request_id"] != request_id else _logged(row)

    def attained(self, window: Window, tenant: str | None = None) -> Mapping[tuple[str, str], Attained]:
        """Return what the requests held to an SLA came to, by tenant and tier."""
        sums = ", ".join(f"sum({name})" for name in COUNTS)
        rows = self._cells(f"tenant, tier, {sums}", "attainment", window, tenant, "GROUP BY 1, 2")
        sketches = dict[tuple[str, str], list[bytes | None]]()
        for of, tier, sketch in self._cells("tenant, tier, tpot", "attainment", window, tenant):
            sketches.setdefault((of, tier), []).append(sketch)
        return {(row[0], row[1]): Attained.of(row[2:], sketches.get((row[0], row[1]), [])) for row in rows}

    def by_tenant(self, window: Window, tenant: str | None = None) -> Mapping[tuple[str, str], TenantLatency]:
        """Return the percentiles of answered requests by tenant and by who served, from sketches."""
        grouped: dict[tuple[str, str], tuple[list[bytes | None], list[bytes | None]]] = {}
        for of, served_by, ttft, total in self._cells("tenant, served_by, ttft, total", "latencies", window, tenant):
            lists = grouped.setdefault((of, served_by), ([], []))
            lists[0].append(ttft)
            lists[1].append(total)
        return {key: TenantLatency(_sketched(ttft), _sketched(total)) for key, (ttft, total) in grouped.items()}

    def savings(self, window: Window, tenant: str | None = None) -> Mapping[Source, Saved]:
        """Return what each source saved in the window."""
        columns = "source, sum(requests), sum(saved_nano_usd)"
        return {row[0]: Saved(*row[1:]) for row in self._cells(columns, "sources", window, tenant, "GROUP BY 1")}

    def trials(self, window: Window, tenant: str | None = None) -> Mapping[tuple[int, bool], Trials]:
        """Return both paths of the comparison by (held out of 10,000, whether held out)."""
        sums = ", ".join(f"sum({field.name})" for field in fields(Trials))
        rows = self._cells(f"per_10k, held_out, {sums}", "trials", window, tenant, "GROUP BY 1, 2")
        return {(row[0], bool(row[1])): Trials(*row[2:]) for row in rows}

    def _exact(self, window: Window, tenant: str | None) -> tuple[Percentiles, ...]:
        only = "AND tenant = ?" if tenant is not None else ""
        query = f"""
            SELECT {_SERVED_BY}, CASE WHEN stream THEN ttft_ms END, total_ms FROM requests
            WHERE received_at_ms >= ? AND received_at_ms < ? AND status = 200 {only}
        """  # noqa: S608 - our own names
        values = (window.start_s * 1000, window.end_s * 1000, *(() if tenant is None else (tenant,)))
        times: dict[str, tuple[list[float], list[float]]] = {}
        with self._reading() as connection:
            for served_by, ttft_ms, total_ms in connection.execute(query, values):
                lists = times.setdefault(served_by, ([], []))
                lists[1].append(total_ms)
                if ttft_ms is not None:
                    lists[0].append(ttft_ms)
        return tuple(
            Percentiles(served_by, _exactly(ttft), _exactly(total), 0.0)
            for served_by, (ttft, total) in sorted(times.items())
        )

    def _cells(self, columns: str, table: str, window: Window, tenant: str | None, then: str = "") -> list[Any]:
        """Return columns of a roll-up's cells in a window, as grouped and ordered by `then`."""
        only = "" if tenant is None else "WHERE tenant = ?"
        with self._reading() as connection:
            parts = _parts(window, folded_until(connection))
            query = f"""
                SELECT {columns} FROM (VALUES {", ".join(["(?, ?, ?)"] * len(parts))}) CROSS JOIN {table}
                ON span_s = column1 AND starts_at_s >= column2 AND starts_at_s < column3 {only} {then}
            """  # noqa: S608 - our own names
            return connection.execute(query, (*chain(*parts), *(() if tenant is None else (tenant,)))).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with reading(self.path) as connection:
                yield connection
        except sqlite3.Error as problem:
            raise LogUnreadable(f"The request log cannot be read ({problem}).") from problem


def regrouped(groups: Iterable[Group], keep: Sequence[int]) -> tuple[Group, ...]:
    """Return the groups summed over all but the labels at the positions `keep`, most requests first."""
    summed: dict[tuple[str, ...], Sums] = {}
    for group in groups:
        labels = tuple(group.labels[at] for at in keep)
        before = summed.get(labels)
        summed[labels] = group.sums if before is None else before.plus(group.sums)
    return tuple(Group(*one) for one in sorted(summed.items(), key=lambda one: -one[1].requests))


def _parts(window: Window, folded_until_s: Mapping[int, int]) -> list[tuple[int, int, int]]:
    """Return (span, from, to) of the cells that make up a window: whole spans as far as they are folded, then parts."""
    parts, from_s = [], window.start_s
    for span_s in (DAY_S, HOUR_S, MINUTE_S):
        if span_s <= window.span_s:
            to_s = min(window.end_s, max(from_s, folded_until_s.get(span_s, window.end_s)))
            parts.append((span_s, from_s, to_s))
            from_s = to_s
    return parts


def _step(window: Window) -> str:
    return f"starts_at_s - starts_at_s % {window.span_s}"


def _conditions(wanted: Filter) -> tuple[str, list[str]]:
    where, values = "", []
    for name in ("tenant", "tier", "deployment", "cache", "reason", "key_id"):
        value = getattr(wanted, name)
        if value is not None:
            where += f" AND {name} = ?"
            values.append(value)
    if wanted.outcome is not None:
        where += f" AND {_OUTCOMES[wanted.outcome]}"
    if wanted.request_id is not None:
        where += " AND request_id GLOB ?"
        values.append("".join(c for c in wanted.request_id if c.isalnum() or c in "_-") + "*")
    return where, values


def _logged(row: sqlite3.Row) -> LoggedRequest:
    columns = {name: row[name] for name in row.keys() if name not in ("id", "attempts")}  # noqa: SIM118 - a Row iterates over values
    return LoggedRequest(row["id"], columns, tuple(attempts_decoder.decode(row["attempts"])))


def _by(steps: Iterable[_Step], key: Callable[[_Step], K]) -> dict[K, tuple[list[bytes | None], list[bytes | None]]]:
    """Return the sketches of TTFT and of total time by key."""
    grouped: dict[K, tuple[list[bytes | None], list[bytes | None]]] = {}
    for step in steps:
        ttft, total = grouped.setdefault(key(step), ([], []))
        ttft.append(step[2])
        total.append(step[3])
    return grouped


def _exactly(values: list[float]) -> Mapping[str, float | None]:
    values.sort()
    return {name: exact_percentile(values, q) for name, q in QUANTILES.items()}


def _sketched(sketches: list[bytes | None]) -> Mapping[str, float | None]:
    counts = merged(sketches)
    return {name: percentile(counts, q) for name, q in QUANTILES.items()}
