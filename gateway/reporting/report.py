"""A tenant's month: spend, budgets, savings with evidence, hits, SLA attainment, reasons; held against the ledger.

Sums come from the request log's roll-ups (days and hours of UTC), spend by key from its rows. Each replica logs for
itself, so with several the report is one replica's while the ledger is everybody's.
"""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from core.money import usd_text
from gateway.reporting.budget_line import BudgetLine
from gateway.reporting.evidence import Difference, quality_difference, saved_per_request
from gateway.reporting.sources import Machine, SourceLine, by_source
from gateway.telemetry.log_reader import Group, LogReader, LogUnreadable, Window, regrouped
from gateway.telemetry.rollup import DAY_S, HOUR_S, Sums
from gateway.telemetry.savings import HITS
from gateway.telemetry.time_ranges import TimeRange
from policies.sqlite_schema import reading

TOP_REASONS = 10
MOST_KEYS = 50
_BY_KEY = """
SELECT key_id, count(*), sum(cost_nano_usd) FROM requests
WHERE received_at_ms >= ? AND received_at_ms < ? AND tenant = ? GROUP BY key_id ORDER BY 3 DESC LIMIT ?
"""
_SCORES = """
SELECT trial > 0, score FROM outcomes JOIN requests USING (request_id)
WHERE received_at_ms >= ? AND received_at_ms < ? AND requests.tenant = ? AND trial IS NOT NULL AND kind = 'answer'
ORDER BY n
"""
_HAS_OUTCOMES = "SELECT count(*) FROM sqlite_master WHERE name = 'outcomes'"


class Spend(Struct, frozen=True):
    """What one tier, deployment or key came to; money in nano-USD."""

    name: str
    requests: int
    cost_nano_usd: int
    late: int = 0
    answered: int = 0


class LedgerLine(Struct, frozen=True):
    """One budget of the month: what the ledger spent in its window, what the log adds up to, and why they differ."""

    budget: BudgetLine
    logged_usd: str | None = None
    difference_usd: str | None = None
    reason: str | None = None


class CacheLine(Struct, frozen=True):
    """Hits of what was looked up; what is known of wrong ones, None before anything was looked up here."""

    hits: int
    looked_up: int
    judged: int | None = None
    wrong: int | None = None
    false_hit_bound: float | None = None


class TenantReport(Struct, frozen=True):
    """A tenant's month; `saved` and `quality` are what the holdout shows, `sources` what is calculated.

    `beside` is what the ledger does not hold.
    """

    tenant: str
    month: str
    made_at: datetime
    total: Spend
    refused: int
    failed: int
    baseline_nano_usd: int
    tiers: list[Spend]
    deployments: list[Spend]
    keys: list[Spend]
    keys_note: str | None
    sources: list[SourceLine]
    beside: list[SourceLine]
    saved: Difference
    quality: Difference
    cache: CacheLine
    reasons: list[Spend]
    ledger: list[LedgerLine]

    @property
    def calculated_nano_usd(self) -> int:
        """Return what was saved by the calculation."""
        return self.baseline_nano_usd - self.total.cost_nano_usd


def month_report(
    log: Path,
    machine: Machine,
    tenant: str,
    month: str,
    span: TimeRange,
    budgets: Sequence[BudgetLine],
    verified: tuple[int, int, float] | None,
    now: datetime,
) -> TenantReport:
    """Put the report together; it blocks.

    Args:
        log: the request log.
        machine: what is known beside it.
        tenant: whose.
        month: as it is told.
        span: the month in UTC.
        budgets: the tenant's budgets in their present windows.
        verified: hits that were judged, how many were wrong, and the bound on wrong hits.
        now: when it is made.

    Raises:
        LogUnreadable: the log cannot be read.
    """
    reader = LogReader(log)
    window = Window(int(span.start.timestamp()), int(span.end.timestamp()), DAY_S)
    groups = reader.sums(window, ("tier", "deployment", "cache", "reason"), tenant)
    whole = regrouped(groups, ())
    total = whole[0].sums if whole else Sums()
    keys, scores = _rows(log, span, tenant)
    saved = by_source(reader, machine, window, tenant)
    note = None if sum(key.cost_nano_usd for key in keys) == total.cost_nano_usd else _key_note(keys, total)
    return TenantReport(
        tenant=tenant,
        month=month,
        made_at=now,
        total=_spend("all", total),
        refused=total.refused,
        failed=total.failed,
        baseline_nano_usd=total.baseline_nano_usd,
        tiers=_spends(regrouped(groups, (0,))),
        deployments=_spends(regrouped(groups, (1,))),
        keys=keys,
        keys_note=note,
        sources=saved.sources,
        beside=saved.beside,
        saved=saved_per_request(reader.trials(window, tenant)),
        quality=quality_difference(*scores),
        cache=_cache(regrouped(groups, (2,)), verified),
        reasons=_spends(regrouped(groups, (3,)))[:TOP_REASONS],
        ledger=[_ledger_line(log, line, span, tenant) for line in budgets if line.window == "month"],
    )


def _rows(log: Path, span: TimeRange, tenant: str) -> tuple[list[Spend], tuple[list[float], list[float]]]:
    """Return spend by key, and the scores that users gave to routed and to held-out answers."""
    values = (span.start_ms, span.end_ms, tenant)
    routed: list[float] = []
    held_out: list[float] = []
    try:
        with reading(log) as connection:
            keys = [Spend(row[0], row[1], row[2]) for row in connection.execute(_BY_KEY, (*values, MOST_KEYS))]
            if connection.execute(_HAS_OUTCOMES).fetchone()[0]:
                for is_held, score in connection.execute(_SCORES, values):
                    (held_out if is_held else routed).append(score)
    except sqlite3.Error as problem:
        raise LogUnreadable(f"The request log cannot be read ({problem}).") from problem
    return keys, (routed, held_out)


def _key_note(keys: Sequence[Spend], total: Sums) -> str:
    left_out = usd_text(total.cost_nano_usd - sum(key.cost_nano_usd for key in keys))
    return f"{left_out} USD are of rows that are no longer kept, or of keys beyond the first {MOST_KEYS}"


def _ledger_line(log: Path, line: BudgetLine, span: TimeRange, tenant: str) -> LedgerLine:
    """Hold a budget of all the tenant's spending against the log's hours of its very window."""
    starts_at, ends_at = datetime.fromisoformat(line.starts_at), datetime.fromisoformat(line.ends_at)
    if line.rolling or starts_at >= span.end or ends_at <= span.start:
        return LedgerLine(line, reason="its present window is not of this month")
    if line.key_id is not None or line.user is not None or line.tier is not None:
        return LedgerLine(line, reason="counts a part of the spending only")
    window = Window(int(starts_at.timestamp()), int(ends_at.timestamp()), HOUR_S)
    logged = sum(group.sums.cost_nano_usd for group in LogReader(log).sums(window, (), tenant))
    difference = nano_of(line.spent_usd) - logged
    return LedgerLine(line, usd_text(logged), usd_text(difference), _why(difference, line))


def _why(difference: int, line: BudgetLine) -> str:
    if difference == 0:
        return "equal to the nano-dollar"
    if difference == nano_of(line.unconfirmed_usd):
        return "holds of a gateway that died, charged in full when their lease ran out"
    if difference < 0:
        return "spent before the budget was written, or while its store was away"
    return "requests whose rows are not written yet or were dropped, other replicas, or holds that were charged in full"


def nano_of(usd: str) -> int:
    """Return the nano-USD of an exact decimal text."""
    sign = -1 if usd.startswith("-") else 1
    whole, _, part = usd.lstrip("-").partition(".")
    return sign * (int(whole) * 1_000_000_000 + int(part.ljust(9, "0")))


def _cache(groups: Sequence[Group], verified: tuple[int, int, float] | None) -> CacheLine:
    by_outcome = {group.labels[0]: group.sums.requests for group in groups}
    hits = sum(by_outcome.get(one, 0) for one in HITS)
    looked_up = sum(count for outcome, count in by_outcome.items() if outcome != "bypass")
    return CacheLine(hits, looked_up, *(verified or ()))


def _spends(groups: Sequence[Group]) -> list[Spend]:
    ordered = sorted(groups, key=lambda group: -group.sums.cost_nano_usd)
    return [_spend(group.labels[0] or "nobody", group.sums) for group in ordered]


def _spend(name: str, sums: Sums) -> Spend:
    return Spend(name, sums.requests, sums.cost_nano_usd, sums.late, sums.answered)
