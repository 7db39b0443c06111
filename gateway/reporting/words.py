"""A tenant's report in words and figures that text and page share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.money import usd_text
from gateway.reporting.evidence import LEAST_HELD_OUT, LEAST_RATED, Difference
from gateway.reporting.report import Spend, TenantReport
from gateway.reporting.sources import SourceLine

SHOWN_NANO = 1_000


@dataclass(frozen=True, slots=True)
class Section:
    """A table with a sentence below it; all columns but the first hold figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def sections_of(report: TenantReport) -> Iterator[Section]:
    """Yield the report's parts in their order."""
    yield _summary(report)
    yield _spending("Spend by tier", "tier", report.tiers)
    yield _spending("Spend by deployment", "deployment", report.deployments)
    rows = tuple((key.name, f"{key.requests:,}", usd(key.cost_nano_usd)) for key in report.keys)
    yield Section("Spend by key", ("key", "requests", "cost, USD"), rows, report.keys_note or "")
    yield _ledger(report)
    yield _savings(report)
    yield _spending("Why requests went where they went", "reason", report.reasons)


def _summary(report: TenantReport) -> Section:
    total, cache = report.total, report.cache
    judged = "nothing was looked up since the gateway's start"
    if cache.false_hit_bound is not None:
        judged = (
            f"at most {cache.false_hit_bound:.2%} of requests; {cache.judged} hits were verified, {cache.wrong} wrong"
        )
    rows = (
        ("requests", f"{total.requests:,}", f"{report.refused:,} refused, {report.failed:,} failed"),
        ("cost, USD", usd(total.cost_nano_usd), _per_thousand(total)),
        ("saved, USD", usd(report.calculated_nano_usd), f"calculated, of {usd(report.baseline_nano_usd)} without"),
        ("within SLA", attained(total), f"{total.late:,} late"),
        ("cache hits", ratio(cache.hits, cache.looked_up), f"{cache.hits:,} of {cache.looked_up:,} looked up"),
        ("wrong hits", "-" if cache.false_hit_bound is None else f"<= {cache.false_hit_bound:.2%}", judged),
    )
    return Section("Summary", ("", "", ""), rows)


def _spending(title: str, what: str, spends: Sequence[Spend]) -> Section:
    rows = tuple((one.name, f"{one.requests:,}", usd(one.cost_nano_usd), attained(one)) for one in spends)
    return Section(title, (what, "requests", "cost, USD", "within SLA"), rows)


def _ledger(report: TenantReport) -> Section:
    rows = tuple(
        (
            f"{line.budget.starts_at[:16]} to {line.budget.ends_at[:16]}",
            line.budget.limit_usd,
            line.budget.spent_usd,
            line.logged_usd or "-",
            line.difference_usd or "-",
            line.reason or "",
        )
        for line in report.ledger
    )
    note = "" if rows else "The policy has no budget per month; the ledger keeps nothing to compare with."
    return Section("Budgets, and the ledger", ("window", "limit", "ledger", "log", "difference", "why"), rows, note)


def _savings(report: TenantReport) -> Section:
    rows = [_source(line) for line in report.sources]
    measured = sum(line.saved_nano_usd or 0 for line in report.sources)
    rest = report.calculated_nano_usd - measured
    if rest:
        rows.append(("not split", usd(rest), "logged before savings were kept by source"))
    rows.append(("together, calculated", usd(report.calculated_nano_usd), "baseline less cost"))
    rows += [_source(line, "beside the ledger") for line in report.beside]
    rows.append(("measured by the holdout", *measured_words(report.saved)))
    rows.append(("quality, routed less held out", *quality_words(report.quality)))
    return Section("What is saved, and by what", ("source", "USD", ""), tuple(rows))


def _source(line: SourceLine, note: str = "") -> tuple[str, str, str]:
    figure = "not measured" if line.saved_nano_usd is None else usd(line.saved_nano_usd)
    return line.source, figure, "; ".join(filter(None, (note, line.why_not)))


def measured_words(saved: Difference) -> tuple[str, str]:
    """Say what the holdout shows of money: a figure, and what stands behind it."""
    paths = f"{saved.routed:,} routed and {saved.held_out:,} held-out requests"
    if not saved.routed and not saved.held_out:
        return "not measured", "`routing.holdout_ratio` is 0"
    if saved.value is None or saved.low is None or saved.high is None:
        return "not enough evidence yet", f"{paths}; an interval is told from {LEAST_HELD_OUT} held out on"
    count = saved.routed
    span = f"95 %, at any time: {usd(saved.low * count)} to {usd(saved.high * count)}"
    shown = "" if saved.low > 0 or saved.high < 0 else "; not enough evidence yet that it is not 0"
    return usd(saved.value * count), f"{span}{shown}; {paths}"


def quality_words(quality: Difference) -> tuple[str, str]:
    """Say what users' scores show of quality."""
    paths = f"{quality.routed:,} routed and {quality.held_out:,} held-out answers were rated"
    if quality.value is None or quality.low is None or quality.high is None:
        return "not enough evidence yet", f"{paths}; an interval is told from {LEAST_RATED} of each on"
    span = f"95 %, at any time: {100 * quality.low:+.1f} to {100 * quality.high:+.1f} points"
    return f"{100 * quality.value:+.1f} points", f"{span}; {paths}"


def usd(nano_usd: float) -> str:
    """Write an amount in USD to the millionth; the JSON has every nano-dollar."""
    return usd_text(round(nano_usd / SHOWN_NANO) * SHOWN_NANO)


def ratio(part: int, of: int) -> str:
    """Write a share."""
    return f"{part / of:.1%}" if of else "-"


def attained(spend: Spend) -> str:
    """Write which share of the answered requests were in time."""
    return ratio(spend.answered - spend.late, spend.answered)


def _per_thousand(total: Spend) -> str:
    return f"{usd(1_000 * total.cost_nano_usd / total.requests)} per 1,000 requests" if total.requests else ""
