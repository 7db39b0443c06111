"""Now against then: what a candidate would have come to, per tenant, with intervals that say how far to trust it.

An interval is made of three errors. Sampling: the 95 % of a bootstrap over blocks of consecutive requests, whose length
is the root of their number, so that bursts stay together. Drawing: the spread over runs with other donors. Model: the
share of requests that move, times the error that lending makes where it can be checked, on answers whose own outcome
is known. The first two are independent and added in quadrature; the third is a bias and added as it is.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import Struct

from core.plan import RegistrySnapshot
from gateway.whatif.donors import Donors, ease_of
from gateway.whatif.history import Past
from gateway.whatif.replay import Ended, Fate, Replay, fate_then, lent
from policies.loading import PolicySet

RUNS = 5
RESAMPLES = 400
Z_95 = 1.96
LEAST = 30
"""With fewer requests of a tenant no interval is told: it would pretend to know."""


class Estimate(Struct, frozen=True):
    """A figure with its 95 % interval; without bounds where there were too few requests."""

    value: float
    low: float | None = None
    high: float | None = None


class Then(Struct, frozen=True):
    """What was logged: money in nano-USD, ratios in [0, 1]."""

    requests: int
    hits: int
    refused: int
    failed: int
    cost_nano_usd: int
    shares: dict[str, float]
    sla_attainment: float | None


class Now(Struct, frozen=True):
    """What the candidate would have come to; `shares` are of the requests that a tier answered."""

    hits: Estimate
    refused: Estimate
    cost_nano_usd: Estimate
    shares: dict[str, Estimate]
    sla_attainment: Estimate | None


class TenantComparison(Struct, frozen=True):
    """One tenant, then and now.

    Attributes:
        kept_ratio: the share of requests that keep their own cost and times.
        imputed: decisions made with another request's inputs; `unmeasured` answers by a deployment that the log does
            not hold.
        refusals: refused requests by error code, in one run.
    """

    tenant: str
    then: Then
    now: Now
    kept_ratio: float
    imputed: int
    unmeasured: int
    refusals: dict[str, int]


class Comparison(Struct, frozen=True):
    """All tenants of the span; `runs` replays, `donors` answers by deployment, `notes` what to keep in mind."""

    first_at_s: float
    last_at_s: float
    runs: int
    donors: dict[str, int]
    lending_cost_error_ratio: float
    lending_sla_error: float
    tenants: list[TenantComparison]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Lending:
    """How wrong lending is where it can be checked: of cost as a ratio, of SLA attainment in [0, 1]."""

    cost_ratio: float
    attainment: float


def simulate(
    candidate: PolicySet,
    registry: RegistrySnapshot,
    history: Sequence[Past],
    *,
    runs: int = RUNS,
    seed: int = 1,
    progress: Callable[[], object] = lambda: None,
) -> Comparison:
    """Replay the history under the candidate; it takes a thread of its own for about 0.2 ms a request and run."""
    donors = Donors(history)
    fates = []
    for run in range(runs):
        fates.append(asyncio.run(Replay(candidate, registry, history, donors, seed + run).run()))
        progress()
    lending = _lending(history, donors, registry, seed)
    tenants = sorted({past.tenant for past in history})
    compared = [_tenant(one, history, fates, lending, seed) for one in tenants if candidate.get(one) is not None]
    return Comparison(
        first_at_s=history[0].at_s,
        last_at_s=history[-1].at_s,
        runs=runs,
        donors=dict(donors.counts()),
        lending_cost_error_ratio=lending.cost_ratio,
        lending_sla_error=lending.attainment,
        tenants=compared,
        notes=_notes(history, candidate),
    )


def _tenant(
    tenant: str, history: Sequence[Past], runs: Sequence[Sequence[Fate]], lending: Lending, seed: int
) -> TenantComparison:
    at = [n for n, past in enumerate(history) if past.tenant == tenant]
    then = [fate_then(history[n]) for n in at]
    now = [[fates[n] for n in at] for fates in runs]
    tiers = sorted({fate.tier for fates in (then, *now) for fate in fates if fate.tier is not None})
    estimated = _estimated(now, tiers, lending, seed)
    first = now[0]
    return TenantComparison(
        tenant=tenant,
        then=_then(then, tiers),
        now=estimated,
        kept_ratio=sum(fate.kept for fate in first) / len(first),
        imputed=sum(fate.imputed for fate in first),
        unmeasured=sum(fate.unmeasured for fate in first),
        refusals=_refusals(first),
    )


def _then(fates: Sequence[Fate], tiers: Sequence[str]) -> Then:
    answered = [fate for fate in fates if fate.ended is Ended.ANSWERED]
    judged = [fate for fate in fates if _is_judged(fate)]
    return Then(
        requests=len(fates),
        hits=sum(fate.ended is Ended.HIT for fate in fates),
        refused=sum(fate.ended is Ended.REFUSED for fate in fates),
        failed=sum(fate.ended is Ended.FAILED for fate in fates),
        cost_nano_usd=sum(fate.cost_nano_usd for fate in fates),
        shares={tier: sum(fate.tier == tier for fate in answered) / max(1, len(answered)) for tier in tiers},
        sla_attainment=1 - sum(fate.late for fate in judged) / len(judged) if judged else None,
    )


def _estimated(runs: Sequence[Sequence[Fate]], tiers: Sequence[str], lending: Lending, seed: int) -> Now:
    """Return the figures of all runs together.

    Every figure is a ratio of two columns, or a sum: columns are (requests, runs), and a bootstrap weighs blocks.
    """
    columns = {
        "cost": _column(runs, lambda fate: fate.cost_nano_usd),
        "hits": _column(runs, lambda fate: fate.ended is Ended.HIT),
        "refused": _column(runs, lambda fate: fate.ended is Ended.REFUSED),
        "answered": _column(runs, lambda fate: fate.ended is Ended.ANSWERED),
        "judged": _column(runs, _is_judged),
        "in time": _column(runs, lambda fate: _is_judged(fate) and not fate.late),
    }
    moved = 1.0 - float(_column(runs, lambda fate: fate.kept).mean())
    weights = _weights(len(runs[0]), seed)

    def figure(top: str, below: str | None, bias: float, most: float | None = None) -> Estimate:
        return _estimate(columns[top], None if below is None else columns[below], weights, bias, most)

    cost = float(columns["cost"].sum()) / len(runs)
    shares = {}
    for tier in tiers:
        columns[f"tier {tier}"] = _column(runs, _answered_by(tier))
        shares[tier] = figure(f"tier {tier}", "answered", 0.0, 1.0)
    attainment = None
    if columns["judged"].any():
        attainment = figure("in time", "judged", moved * lending.attainment, 1.0)
    return Now(
        hits=figure("hits", None, 0.0),
        refused=figure("refused", None, 0.0),
        cost_nano_usd=figure("cost", None, moved * lending.cost_ratio * cost),
        shares=shares,
        sla_attainment=attainment,
    )


def _is_judged(fate: Fate) -> bool:
    """Whether it was answered, or would have been but for the SLA's deadline."""
    return fate.late or fate.ended in (Ended.ANSWERED, Ended.HIT)


def _answered_by(tier: str) -> Callable[[Fate], bool]:
    return lambda fate: fate.ended is Ended.ANSWERED and fate.tier == tier


def _column(runs: Sequence[Sequence[Fate]], of: Callable[[Fate], float]) -> np.ndarray:
    return np.array([[float(of(fate)) for fate in fates] for fates in runs]).T


def _weights(requests: int, seed: int) -> np.ndarray:
    """Return how often each request is drawn, (resamples, requests): whole blocks of consecutive ones."""
    length = max(1, round(requests**0.5))
    blocks = -(-requests // length)
    drawn = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), RESAMPLES)
    return np.repeat(drawn, length, axis=1)[:, :requests].astype(float)


def _estimate(
    over: np.ndarray, below: np.ndarray | None, weights: np.ndarray, bias: float, most: float | None
) -> Estimate:
    scale = weights.shape[1] / weights.sum(axis=1)
    means = over.mean(axis=1)
    if below is None:
        per_run, resampled = over.sum(axis=0), (weights @ means) * scale
    else:
        per_run = over.sum(axis=0) / np.maximum(below.sum(axis=0), 1.0)
        resampled = (weights @ means) / np.maximum(weights @ below.mean(axis=1), 1e-9)
    value = float(per_run.mean())
    if over.shape[0] < LEAST:
        return Estimate(value)
    drawing = float(per_run.std(ddof=1)) if len(per_run) > 1 else 0.0
    half = Z_95 * float(np.hypot(float(resampled.std(ddof=1)), drawing)) + abs(bias)
    high = value + half
    return Estimate(value, max(0.0, value - half), high if most is None else min(most, high))


def _lending(history: Sequence[Past], donors: Donors, registry: RegistrySnapshot, seed: int) -> Lending:
    """Lend every answer that is known another one of its own deployment, and compare."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    own, borrowed, late, late_borrowed, checked = 0, 0, 0, 0, 0
    for past in history:
        if past.is_hit or past.answer is None or past.inputs is None:
            continue
        deployment = next((one for one in past.inputs.deployments if one.name == past.answer.deployment), None)
        if deployment is None:
            continue
        served = lent(past, past.inputs.facts, deployment, donors, ease_of(past), draw, 1 << 31)
        limits = dict(past.inputs.policy.sla).get(past.tier or "")
        own, borrowed, checked = own + past.answer.cost_nano_usd, borrowed + served.cost_nano_usd, checked + 1
        if limits is not None:
            in_time = limits.total_ms is None or served.total_ms <= limits.total_ms
            started = not past.stream or limits.ttft_ms is None or served.first_ms <= limits.ttft_ms
            late, late_borrowed = late + past.late, late_borrowed + (not (in_time and started))
    if not checked or not own:
        return Lending(0.0, 0.0)
    return Lending(abs(borrowed / own - 1), abs(late_borrowed - late) / checked)


def _refusals(fates: Sequence[Fate]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for fate in fates:
        if fate.refusal is not None:
            counts[fate.refusal] = counts.get(fate.refusal, 0) + 1
    return counts


def _notes(history: Sequence[Past], candidate: PolicySet) -> list[str]:
    notes = ["budgets begin whole, and control begins anew, at the first request of the span"]
    if any(past.inputs is None and not past.is_hit and past.is_answered for past in history):
        notes.append("some answered requests have no decision record any more; their decisions were imputed")
    looked_up = {past.tenant for past in history if past.cache not in ("bypass",)}
    for tenant in sorted({past.tenant for past in history}):
        policy = candidate.get(tenant)
        if policy is None:
            notes.append(f"{tenant} has no policy under the candidate and is left out")
        elif policy.cache.enabled and tenant not in looked_up:
            notes.append(
                f"the cache was off for {tenant}; what it would have served is not known, and counts as nothing"
            )
    return notes
