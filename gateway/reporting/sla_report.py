"""How well every tenant's SLA was kept: attainment, error budget, burn rates, percentiles, goodput, cost of rescue.

    attainment   = (judged - missed) / judged
    budget left  = 1 - missed / ((1 - objective) * judged)
    burn rate    = (1 - attainment of a window) / (1 - objective); 1 uses the budget up just in its time
    goodput      = (judged - missed) / seconds of the window

What is judged and missed: `gateway.telemetry.attainment`. Burn rates over several windows: Google, The Site Reliability
Workbook, chapter 5, "Alerting on SLOs".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.rules import NO_SLA, Sla
from gateway.telemetry.attainment import Attained
from gateway.telemetry.log_reader import QUANTILES, LogReader, TenantLatency, Window
from gateway.telemetry.rollup import CACHE
from gateway.telemetry.sketch import percentile
from policies.loading import PolicySet

BURN_WINDOWS_S: Mapping[str, int] = {"5m": 300, "1h": 3_600, "6h": 21_600, "3d": 259_200}
MAX_LINES = 1_000
NOTHING: Mapping[str, float | None] = dict.fromkeys(QUANTILES)
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Rescued:
    """How often requests were rescued in one way, and what that cost beyond the answers, in nano-USD."""

    count: int
    cost_nano_usd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlaLine:
    """One tenant at one tier; ratios are None where nothing was judged, percentiles where nothing was answered.

    `tier` is empty for requests that no deployment was tried for. Limits and `objective_ratio` are those in force now.
    Percentiles are milliseconds within 1 %; answers from the cache are not among them.
    """

    tenant: str
    tier: str
    ttft_limit_ms: int | None
    total_limit_ms: int | None
    objective_ratio: float
    judged: int
    missed: int
    attainment_ratio: float | None
    budget_left_ratio: float | None
    goodput_per_s: float
    burn_rates: Mapping[str, float | None]
    ttft_ms: Mapping[str, float | None]
    tpot_ms: Mapping[str, float | None]
    total_ms: Mapping[str, float | None]
    retries: Rescued
    hedges: Rescued
    fallbacks: Rescued


@dataclass(frozen=True, slots=True)
class SlaReport:
    """All lines of a window, in Unix seconds."""

    start_s: int
    end_s: int
    lines: tuple[SlaLine, ...] = field(default=())


def sla_report(log: LogReader, policies: PolicySet, window: Window, now_s: float, tenant: str | None) -> SlaReport:
    """Return the report of a window; it blocks. Without `tenant`, tenants without an SLA are left out."""
    attained, latencies = log.attained(window, tenant), log.by_tenant(window, tenant)
    recent = {
        name: log.attained(Window.between(now_s - length_s, now_s), tenant) for name, length_s in BURN_WINDOWS_S.items()
    }
    keys = {key for key in latencies if key[1] not in ("", CACHE) and (tenant is not None or _promises(policies, key))}
    lines = []
    for key in sorted(keys | set(attained))[:MAX_LINES]:
        objective_ratio = _sla(policies, key).objective_ratio
        burn_rates = {name: _burn_rate(of.get(key), objective_ratio) for name, of in recent.items()}
        lines.append(_line(key, policies, attained.get(key, Attained()), latencies.get(key), burn_rates, window))
    return SlaReport(window.start_s, window.end_s, tuple(lines))


def _line(
    key: Key,
    policies: PolicySet,
    attained: Attained,
    latency: TenantLatency | None,
    burn_rates: Mapping[str, float | None],
    window: Window,
) -> SlaLine:
    sla, kept = _sla(policies, key), attained.judged - attained.missed
    allowed = (1 - sla.objective_ratio) * attained.judged
    return SlaLine(
        tenant=key[0],
        tier=key[1],
        ttft_limit_ms=sla.ttft_ms,
        total_limit_ms=sla.total_ms,
        objective_ratio=sla.objective_ratio,
        judged=attained.judged,
        missed=attained.missed,
        attainment_ratio=kept / attained.judged if attained.judged else None,
        budget_left_ratio=1 - attained.missed / allowed if attained.judged else None,
        goodput_per_s=kept / (window.end_s - window.start_s),
        burn_rates=burn_rates,
        ttft_ms=NOTHING if latency is None else latency.ttft_ms,
        tpot_ms={name: percentile(attained.tpot, q) for name, q in QUANTILES.items()},
        total_ms=NOTHING if latency is None else latency.total_ms,
        retries=Rescued(attained.retries, attained.retry_nano_usd),
        hedges=Rescued(attained.hedges, attained.hedge_nano_usd),
        fallbacks=Rescued(attained.fallbacks, attained.fallback_nano_usd),
    )


def _burn_rate(attained: Attained | None, objective_ratio: float) -> float | None:
    if attained is None or not attained.judged:
        return None
    return attained.missed / attained.judged / (1 - objective_ratio)


def _sla(policies: PolicySet, key: Key) -> Sla:
    policy = policies.get(key[0])
    return NO_SLA if policy is None else policy.sla.get(key[1], NO_SLA)


def _promises(policies: PolicySet, key: Key) -> bool:
    return _sla(policies, key) is not NO_SLA
