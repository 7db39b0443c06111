"""Savings of a window by source: what the log calculates, quantisation's part of it, and what no token's price holds.

The sources of the log add up to baseline less cost. What quantisation saved is taken out of `routing` where it is
known: tokens of quantised deployments, at the measured difference to full precision. Embedding and idle hardware are
beside the ledger, since no token is charged for them. A tenant's part of the encoder's CPU time is by its prompts that
were looked up, and of idle hours by what it was charged for answers of hosted engines.
"""

import os
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from msgspec import Struct

from core.money import NANO_PER_USD
from gateway.hosting.engine_hours import sum_encoding, sum_hours
from gateway.hosting.quantised_prices import TokenSaving
from gateway.telemetry.log_reader import Label, LogReader, LogUnreadable, Window
from gateway.telemetry.rollup import HOUR_S, Sums
from gateway.telemetry.savings import HITS, Source

ENCODED = frozenset({"semantic", "miss"})
"""Look-ups that came as far as the encoder; identical prompts are found without it."""
_LOGGED: tuple[Source, ...] = ("cache", "routing", "prefix", "hedging", "tries", "judging")
_NAMES = {"prefix": "lost prefix cache", "tries": "failed tries"}
_BY_THE_HOUR = "kept by the hour: choose a window of more than 6 hours"


class SourceLine(Struct, frozen=True):
    """What one source saved, negative for a cost; None with the reason where it is not measured.

    Beside a figure, the reason says what it leaves out.
    """

    source: str
    saved_nano_usd: int | None
    why_not: str | None = None


class BySource(Struct, frozen=True):
    """`sources` add up to baseline less cost, which is the ledger's; `beside` is what the ledger does not hold."""

    sources: list[SourceLine]
    beside: list[SourceLine]


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known of the machine beside the log.

    Attributes:
        hours: the file of the engines' hours.
        hourly_usd: what an hour of the machine costs, None where nobody said it.
        hosted: the deployments whose engines the gateway runs.
        token_savings: of each quantised deployment, or why it is not known; asked anew for each report.
    """

    hours: Path
    hourly_usd: Decimal | None
    hosted: frozenset[str]
    token_savings: Callable[[], Mapping[str, TokenSaving | str]]


def by_source(reader: LogReader, machine: Machine, window: Window, tenant: str | None) -> BySource:
    """Return every source of savings of a window, measured or not; it blocks.

    Raises:
        LogUnreadable: the log, or the file of hours, cannot be read.
    """
    found = {source: saved.saved_nano_usd for source, saved in reader.savings(window, tenant).items()}
    quantised = _quantised(reader, machine.token_savings(), window, tenant)
    found["routing"] = found.get("routing", 0) - (quantised.saved_nano_usd or 0)
    logged = [SourceLine(_NAMES.get(name, name), found.get(name, 0)) for name in _LOGGED]
    try:
        beside = [_embedding(reader, machine, window, tenant), _idle(reader, machine, window, tenant)]
    except sqlite3.Error as problem:
        raise LogUnreadable(f"The hours of the engines cannot be read ({problem}).") from problem
    return BySource([*logged, quantised], beside)


def _quantised(
    reader: LogReader, savings: Mapping[str, TokenSaving | str], window: Window, tenant: str | None
) -> SourceLine:
    known = {name: one for name, one in savings.items() if isinstance(one, TokenSaving)}
    unknown = "; ".join(f"{name}: {one}" for name, one in savings.items() if isinstance(one, str)) or None
    if not known:
        return SourceLine("quantisation", None, unknown or "no model that is hosted here is quantised")
    saved = 0
    for group in reader.sums(window, ("deployment", "cache"), tenant):
        deployment, cache = group.labels
        if deployment in known and cache not in HITS:
            saved += known[deployment].nano_usd(group.sums.input_tokens, group.sums.output_tokens)
    return SourceLine("quantisation", saved, unknown and f"without {unknown}")


def _embedding(reader: LogReader, machine: Machine, window: Window, tenant: str | None) -> SourceLine:
    if machine.hourly_usd is None:
        return SourceLine("embedding", None, "write `telemetry: {machine_hourly_usd: …}`, or `hourly_usd` in a recipe")
    if window.span_s < HOUR_S:
        return SourceLine("embedding", None, _BY_THE_HOUR)
    cpu_s = sum_encoding(machine.hours, *_moments(window))
    if cpu_s is None:
        return SourceLine("embedding", None, "not enough evidence yet: nothing was encoded, or not for a minute")
    share = _share(reader, window, tenant, "cache", ENCODED, lambda sums: sums.requests)
    cost = Fraction(cpu_s) / (os.cpu_count() or 1) * Fraction(machine.hourly_usd) * NANO_PER_USD / HOUR_S
    return SourceLine("embedding", -round(cost * share))


def _idle(reader: LogReader, machine: Machine, window: Window, tenant: str | None) -> SourceLine:
    if not machine.hosted:
        return SourceLine("idle hardware", None, "the gateway hosts no engine")
    if window.span_s < HOUR_S:
        return SourceLine("idle hardware", None, _BY_THE_HOUR)
    costs = sum_hours(machine.hours, *_moments(window))
    if not costs:
        return SourceLine("idle hardware", None, "not enough evidence yet: no engine ran for a minute")
    idle = [cost.idle_nano_usd for cost in costs.values() if cost.idle_nano_usd is not None]
    unpriced = ", ".join(name for name, cost in costs.items() if cost.idle_nano_usd is None)
    if not idle:
        return SourceLine("idle hardware", None, "write `hourly_usd` in the engines' recipes")
    share = _share(reader, window, tenant, "deployment", machine.hosted, lambda sums: sums.cost_nano_usd)
    left_out = f"without {unpriced}: no `hourly_usd`" if unpriced else None
    return SourceLine("idle hardware", -round(sum(idle) * share), left_out)


def _share(
    reader: LogReader,
    window: Window,
    tenant: str | None,
    label: Label,
    values: frozenset[str],
    amount: Callable[[Sums], int],
) -> Fraction:
    """Return a tenant's part of what all have under some values of a label; 1 where all are asked for."""
    if tenant is None:
        return Fraction(1)
    own, everybody = (
        sum(amount(group.sums) for group in reader.sums(window, (label,), of) if group.labels[0] in values)
        for of in (tenant, None)
    )
    return Fraction(own, everybody) if everybody else Fraction(0)


def _moments(window: Window) -> tuple[datetime, datetime]:
    return datetime.fromtimestamp(window.start_s, UTC), datetime.fromtimestamp(window.end_s, UTC)
