"""Prometheus metrics from finished traces; label values come from configuration only, children are cached."""

from collections import Counter as Counted
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from core.money import NANO_PER_USD
from core.trace import SHADOW_PATH, AttemptKind, AttemptOutcome, RequestTrace
from gateway.telemetry.attainment import tpot_ms, verdict_on
from gateway.telemetry.families import PREFIX, Family

MAX_SLA_BOUNDS = 24
TTFT_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10)
TOTAL_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120)
OVERHEAD_BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
TPOT_BOUNDS_S = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.5, 1)
LAG_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
NONE = "none"
M = TypeVar("M", Counter, Gauge, Histogram)
OTHER = "other"
SERVED_AGAIN = frozenset({"exact", "semantic", "joined"})


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
    """A sink that counts; `families` says of what.

    The histograms' bounds hold the SLA limits in `sla_bounds_s`, one for each tenant and tier that sets it; of very
    many different ones, the `MAX_SLA_BOUNDS` that most share. Bounds cannot change while a process lives, so limits of
    policies that are reloaded become bounds at the next start.
    """

    def __init__(self, is_tenant: Callable[[str], bool], sla_bounds_s: Iterable[float] = ()) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a further series for each child, which nobody reads
        self._registry = CollectorRegistry()
        self.families: list[Family] = []
        self._children: dict[tuple[object, tuple[str, ...]], Any] = {}
        self._series: dict[tuple[str | int | bool | None, ...], _Series] = {}
        self._is_tenant = is_tenant
        limits = tuple(limit for limit, _ in Counted(sla_bounds_s).most_common(MAX_SLA_BOUNDS))
        self._requests = self._counter(
            "requests", "Finished requests; those of clients alone.", ("tenant", "status", "cache", "tier")
        )
        self._shadows = self._counter(
            "shadow_requests",
            "What the gateway asked by itself, such as `cache`; it counts in tokens, cost and attempts, nowhere else.",
            ("tenant", "purpose", "status"),
        )
        self._refusals = self._counter("refusals", "Requests refused before a tenant or a body was known.", ("code",))
        self._tokens = self._counter("tokens", "Input and output tokens.", ("tenant", "tier", "kind"))
        self._cost = self._counter("cost_usd", "Settled cost in USD.", ("tenant", "tier"))
        self._saved = self._counter(
            "saved_usd", "What the answers had cost in USD that the cache served again.", ("tenant", "tier")
        )
        self._baseline = self._counter(
            "baseline_usd", "What the same answers cost at the dearest tier without a cache.", ("tenant", "source")
        )
        self._routes = self._counter(
            "route_decisions", "Answers by tier and the plan's binding reason, `cache` for hits.", ("tier", "reason")
        )
        self._attempts = self._counter("attempts", "Tries, by how they ended.", ("deployment", "outcome"))
        self._other_model = self._counter(
            "other_model", "Answers of another model than was asked; alert on any.", ("deployment",)
        )
        self._rescues = self._counter("rescues", "Fallbacks, retries and hedges by outcome.", ("kind", "outcome"))
        self._outrun_cost = self._counter(
            "outrun_cost_usd", "What attempts cost that a hedge outran, or the hedge itself where it lost.", ("tier",)
        )
        self._sheds = self._counter(
            "sheds",
            "Requests refused for want of capacity: `late`, `full`, `evicted`, `waited`, `policy`.",
            ("reason",),
        )
        self._judged = self._counter(
            "sla_judged",
            "Requests that had an SLA to keep, were not refused and whose client stayed.",
            ("tenant", "tier"),
        )
        self._missed = self._counter("sla_missed", "Judged requests that were late, cut or failed.", ("tenant", "tier"))
        self._violations = self._counter("sla_violations", "Requests outside their SLA.", ("tenant", "tier"))
        self._ttft = self._histogram("ttft_seconds", "Request received to first token sent.", TTFT_BOUNDS_S, limits)
        self._total = self._histogram("request_seconds", "Request received to answer complete.", TOTAL_BOUNDS_S, limits)
        self._tpot = self._histogram(
            "tpot_seconds", "Mean time between the output tokens of a stream.", TPOT_BOUNDS_S, ()
        )
        self._overhead = self._histogram("overhead_seconds", "Time in the gateway itself.", OVERHEAD_BOUNDS_S, ())
        self._queued = self._histogram("queue_seconds", "Wait for a slot of a deployment.", TTFT_BOUNDS_S, ())
        self._waiting = self._gauge("queue_waiting", "Requests that wait for a slot.")
        self._in_flight = self._gauge("in_flight", "Attempts under way.", ("deployment",))
        self._ejections = self._gauge("ejections", "How often the breaker opened.", ("deployment",))
        self._up = self._gauge("deployment_ready", "Whether a deployment is sent requests.", ("deployment",))
        self._alerts = self._counter(
            "budget_alerts", "Budgets that passed one of their percentages.", ("tenant", "percent")
        )
        price = "What pacing asks of a dearer tier, as of the last plan; 0 while the budget is not ahead of its pace."
        self._price = self._gauge("shadow_price_per_usd", price, ("tenant",))
        self._store_away = self._gauge("store_away", "Whether the budget store is away.")
        self._ready = self._gauge("tier_ready", "Whether a tier can answer.", ("tier",))
        self._lag = self._histogram("event_loop_lag_seconds", "How late the event loop wakes.", LAG_BOUNDS_S, (), ())
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
            self._child(self._price, self.tenant_label(trace.tenant)).set(trace.shadow_price_per_usd)
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
            self._child(self._attempts, attempt.deployment, attempt.outcome.value).inc()
            if attempt.other_model is not None:
                self._child(self._other_model, attempt.deployment).inc()
            if attempt.kind is not AttemptKind.FIRST:
                self._child(self._rescues, attempt.kind.value, attempt.outcome.value).inc()
            if attempt.outcome is AttemptOutcome.OUTRUN:
                self._child(self._outrun_cost, attempt.tier).inc(attempt.cost_nano_usd / NANO_PER_USD)

    def _series_of(self, trace: RequestTrace) -> "_Series":
        """Return what a request of such labels counts in: one look-up instead of a dozen."""
        tenant, tier = self.tenant_label(trace.tenant), trace.tier or NONE
        key = (tenant, tier, trace.status, trace.cache, trace.reason, trace.is_shadow and trace.path)
        found = self._series.get(key)
        if found is None:
            source = "cache" if trace.cache in SERVED_AGAIN else "routing"
            found = self._series[key] = _Series(
                requests=self._requests.labels(tenant, str(trace.status), trace.cache, tier)
                if not trace.is_shadow
                else self._shadows.labels(tenant, trace.path.removeprefix(SHADOW_PATH), str(trace.status)),
                routes=None if trace.reason is None else self._routes.labels(tier, trace.reason),
                input_tokens=self._tokens.labels(tenant, tier, "input"),
                output_tokens=self._tokens.labels(tenant, tier, "output"),
                cost=self._cost.labels(tenant, tier),
                saved=self._saved.labels(tenant, tier),
                baseline=self._baseline.labels(tenant, source),
                judged=self._judged.labels(tenant, tier),
                missed=self._missed.labels(tenant, tier),
                violations=self._violations.labels(tenant, tier),
                ttft=self._ttft.labels(tier),
                tpot=self._tpot.labels(tier),
                total=self._total.labels(tier),
                overhead=self._overhead.labels(tier),
                queued=self._queued.labels(tier),
            )
        return found

    def refused(self, code: str) -> None:
        """Count a request that never got a tenant or a readable body."""
        self._child(self._refusals, code).inc()

    def shed(self, reason: str) -> None:
        """Count a request that was refused for want of capacity."""
        self._child(self._sheds, reason).inc()

    def queue_waiting(self, requests: int) -> None:
        """Set how many requests wait for a slot."""
        self._waiting.set(requests)

    def deployment(self, name: str, *, in_flight: int, ejections: int, ready: bool) -> None:
        """Set a deployment's gauges."""
        self._child(self._in_flight, name).set(in_flight)
        self._child(self._ejections, name).set(ejections)
        self._child(self._up, name).set(1 if ready else 0)

    def budget_alert(self, tenant: str, percent: int) -> None:
        """Count one alert of a budget."""
        self._child(self._alerts, self.tenant_label(tenant), str(percent)).inc()

    def loop_lag(self, seconds: float) -> None:
        """Note how late the event loop woke."""
        self._lag.observe(seconds)

    def store_away(self, is_away: bool) -> None:
        """Set the store's gauge."""
        self._store_away.set(1 if is_away else 0)

    def tier_ready(self, tier: str, ready: bool) -> None:
        """Set a tier's gauge."""
        self._child(self._ready, tier).set(1 if ready else 0)

    def tenant_label(self, tenant: str) -> str:
        """Return the tenant's label: its name when it is configured, `other` otherwise."""
        return tenant if self._is_tenant(tenant) else OTHER

    def include(self, collector: Collector) -> None:
        """Show what another part of the gateway collects when it is asked."""
        self._registry.register(collector)

    def exposition(self) -> tuple[bytes, str]:
        """Return the text exposition and its content type; call it off the event loop."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def _child(self, metric: M, *labels: str) -> M:
        """Return a metric's child, remembered: there are few, since labels come from configuration."""
        key = (metric, labels)
        child: M | None = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        self.families.append(Family("counter", name, text, labels))
        return Counter(PREFIX + name, text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        self.families.append(Family("gauge", name, text, labels))
        return Gauge(PREFIX + name, text, labels, registry=self._registry)

    def _histogram(
        self,
        name: str,
        text: str,
        bounds: tuple[float, ...],
        limits: tuple[float, ...],
        labels: tuple[str, ...] = ("tier",),
    ) -> Histogram:
        self.families.append(Family("histogram", name, text, labels))
        merged = tuple(sorted({float(bound) for bound in (*bounds, *limits)}))
        return Histogram(PREFIX + name, text, labels, buckets=merged, registry=self._registry)
