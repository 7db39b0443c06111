"""Prometheus metrics from finished traces; label values come from configuration only, children are cached."""

from collections import Counter as Counted
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from core.money import NANO_PER_USD
from core.trace import SHADOW_PATH, AttemptKind, AttemptOutcome, RequestTrace
from gateway.telemetry import request_families as families
from gateway.telemetry.attainment import tpot_ms, verdict_on
from gateway.telemetry.instruments import Instruments
from gateway.telemetry.savings import HITS

MAX_SLA_BOUNDS = 24
NONE = "none"
OTHER = "other"


@dataclass(frozen=True, slots=True)
class _Series:
    """The children that one request counts in; of the gateway's own requests, `requests` counts with their purpose."""

    requests: Counter
    routes: Counter | None
    input_tokens: Counter
    output_tokens: Counter
    cost: Counter
    saved: Counter
    baseline: Counter
    judged: Counter
    missed: Counter
    violations: Counter
    ttft: Histogram
    tpot: Histogram
    total: Histogram
    overhead: Histogram
    queued: Histogram


class Metrics:
    """A sink that counts in what `request_families` names.

    The histograms' bounds hold the SLA limits in `sla_bounds_s`, one for each tenant and tier that sets it; of very
    many different ones, the `MAX_SLA_BOUNDS` that most share. Bounds cannot change while a process lives, so limits of
    policies that are reloaded become bounds at the next start.
    """

    def __init__(self, is_tenant: Callable[[str], bool], sla_bounds_s: Iterable[float] = ()) -> None:
        limits_s = tuple(limit for limit, _ in Counted(sla_bounds_s).most_common(MAX_SLA_BOUNDS))
        self._registry = CollectorRegistry()
        self._of = Instruments(self._registry, families.FAMILIES, limits_s)
        self._series: dict[tuple[str | int | bool | None, ...], _Series] = {}
        self._is_tenant = is_tenant
        ProcessCollector(registry=self._registry)

    def record(self, trace: RequestTrace) -> None:
        """Count one request; of what the gateway asked by itself, the cost alone and that it happened."""
        of = self._series_of(trace)
        self._count_cost(trace, of)
        of.requests.inc()
        if trace.is_shadow:
            return
        if of.routes is not None:
            of.routes.inc()
        if trace.shadow_price_per_usd is not None:
            self._of.gauge(families.SHADOW_PRICE, self.tenant_label(trace.tenant)).set(trace.shadow_price_per_usd)
        verdict = verdict_on(trace)
        if verdict is not None:
            of.judged.inc()
        if verdict == "missed":
            of.missed.inc()
        if trace.sla_violated:
            of.violations.inc()
        self._time(trace, of)

    def _time(self, trace: RequestTrace, of: "_Series") -> None:
        if trace.ttft_ms is not None:
            of.ttft.observe(trace.ttft_ms / 1000)
            between_ms = tpot_ms(trace)
            if between_ms is not None:
                of.tpot.observe(between_ms / 1000)
        of.total.observe(trace.total_ms / 1000)
        of.overhead.observe(trace.overhead_ms / 1000)
        if trace.queued_ms:
            of.queued.observe(trace.queued_ms / 1000)

    def _count_cost(self, trace: RequestTrace, of: "_Series") -> None:
        if trace.usage is not None and trace.attempts:
            of.input_tokens.inc(trace.usage.input_tokens)
            of.output_tokens.inc(trace.usage.output_tokens)
        if trace.cost_nano_usd:
            of.cost.inc(trace.cost_nano_usd / NANO_PER_USD)
        if trace.saved_nano_usd:
            of.saved.inc(trace.saved_nano_usd / NANO_PER_USD)
        baseline = trace.cost_nano_usd if trace.baseline_nano_usd is None else trace.baseline_nano_usd
        if baseline and not trace.is_shadow:
            of.baseline.inc(baseline / NANO_PER_USD)
        for attempt in trace.attempts:
            self._of.counter(families.ATTEMPTS, attempt.deployment, attempt.outcome.value).inc()
            if attempt.other_model is not None:
                self._of.counter(families.OTHER_MODEL, attempt.deployment).inc()
            if attempt.kind is not AttemptKind.FIRST:
                self._of.counter(families.RESCUES, attempt.kind.value, attempt.outcome.value).inc()
            if attempt.outcome is AttemptOutcome.OUTRUN:
                self._of.counter(families.OUTRUN_COST, attempt.tier).inc(attempt.cost_nano_usd / NANO_PER_USD)

    def _series_of(self, trace: RequestTrace) -> "_Series":
        """Return what a request of such labels counts in: one look-up instead of a dozen."""
        tenant, tier = self.tenant_label(trace.tenant), trace.tier or NONE
        key = (tenant, tier, trace.status, trace.cache, trace.reason, trace.is_shadow and trace.path)
        found = self._series.get(key)
        if found is None:
            source = "cache" if trace.cache in HITS else "routing"
            found = self._series[key] = _Series(
                requests=self._of.counter(families.REQUESTS, tenant, str(trace.status), trace.cache, tier)
                if not trace.is_shadow
                else self._of.counter(
                    families.SHADOWS, tenant, trace.path.removeprefix(SHADOW_PATH), str(trace.status)
                ),
                routes=None if trace.reason is None else self._of.counter(families.ROUTES, tier, trace.reason),
                input_tokens=self._of.counter(families.TOKENS, tenant, tier, "input"),
                output_tokens=self._of.counter(families.TOKENS, tenant, tier, "output"),
                cost=self._of.counter(families.COST, tenant, tier),
                saved=self._of.counter(families.SAVED, tenant, tier),
                baseline=self._of.counter(families.BASELINE, tenant, source),
                judged=self._of.counter(families.JUDGED, tenant, tier),
                missed=self._of.counter(families.MISSED, tenant, tier),
                violations=self._of.counter(families.VIOLATIONS, tenant, tier),
                ttft=self._of.histogram(families.TTFT, tier),
                tpot=self._of.histogram(families.TPOT, tier),
                total=self._of.histogram(families.TOTAL, tier),
                overhead=self._of.histogram(families.OVERHEAD, tier),
                queued=self._of.histogram(families.QUEUED, tier),
            )
        return found

    def refused(self, code: str) -> None:
        """Count a request that never got a tenant or a readable body."""
        self._of.counter(families.REFUSALS, code).inc()

    def shed(self, reason: str) -> None:
        """Count a request that was refused for want of capacity."""
        self._of.counter(families.SHEDS, reason).inc()

    def queue_waiting(self, requests: int) -> None:
        """Set how many requests wait for a slot."""
        self._of.gauge(families.WAITING).set(requests)

    def deployment(self, name: str, *, in_flight: int, ejections: int, ready: bool) -> None:
        """Set a deployment's gauges."""
        self._of.gauge(families.IN_FLIGHT, name).set(in_flight)
        self._of.gauge(families.EJECTIONS, name).set(ejections)
        self._of.gauge(families.DEPLOYMENT_READY, name).set(1 if ready else 0)

    def budget_alert(self, tenant: str, percent: int) -> None:
        """Count one alert of a budget."""
        self._of.counter(families.BUDGET_ALERTS, self.tenant_label(tenant), str(percent)).inc()

    def loop_lag(self, seconds: float) -> None:
        """Note how late the event loop woke."""
        self._of.histogram(families.LOOP_LAG).observe(seconds)

    def store_away(self, is_away: bool) -> None:
        """Set the store's gauge."""
        self._of.gauge(families.STORE_AWAY).set(1 if is_away else 0)

    def tier_ready(self, tier: str, ready: bool) -> None:
        """Set a tier's gauge."""
        self._of.gauge(families.TIER_READY, tier).set(1 if ready else 0)

    def tenant_label(self, tenant: str) -> str:
        """Return the tenant's label: its name when it is configured, `other` otherwise."""
        return tenant if self._is_tenant(tenant) else OTHER

    def include(self, collector: Collector) -> None:
        """Show what another part of the gateway collects when it is asked."""
        self._registry.register(collector)

    def exposition(self) -> tuple[bytes, str]:
        """Return the text exposition and its content type; call it off the event loop."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
