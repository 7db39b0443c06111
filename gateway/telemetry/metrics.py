"""Prometheus metrics of requests and of the gateway's own state; label values come from configuration only."""

from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from gateway.telemetry import request_families as families
from gateway.telemetry import request_sums
from gateway.telemetry.instruments import Instruments

MAX_SLA_BOUNDS = 24


class Metrics:
    """A sink that counts in what `request_families` names; `record` takes a trace, on the event loop.

    The histograms' bounds hold the SLA limits in `sla_bounds_s`, one for each tenant and tier that sets it; of very
    many different ones, the `MAX_SLA_BOUNDS` that most share. Bounds cannot change while a process lives, so limits of
    policies that are reloaded become bounds at the next start.
    """

    def __init__(self, is_tenant: Callable[[str], bool], sla_bounds_s: Iterable[float] = ()) -> None:
        limits_s = tuple(limit for limit, _ in Counter(sla_bounds_s).most_common(MAX_SLA_BOUNDS))
        self._registry = CollectorRegistry()
        self._requests = request_sums.RequestSums(is_tenant, limits_s)
        self._registry.register(self._requests)
        instruments = [one for one in families.FAMILIES if one not in request_sums.FAMILIES]
        self._of = Instruments(self._registry, instruments)
        ProcessCollector(registry=self._registry)
        self.record = self._requests.record

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
        self._of.counter(families.BUDGET_ALERTS, self._requests.tenant_label(tenant), str(percent)).inc()

    def loop_lag(self, seconds: float) -> None:
        """Note how late the event loop woke."""
        self._of.histogram(families.LOOP_LAG).observe(seconds)

    def store_away(self, is_away: bool) -> None:
        """Set the store's gauge."""
        self._of.gauge(families.STORE_AWAY).set(1 if is_away else 0)

    def tier_ready(self, tier: str, ready: bool) -> None:
        """Set a tier's gauge."""
        self._of.gauge(families.TIER_READY, tier).set(1 if ready else 0)

    def include(self, collector: Collector) -> None:
        """Show what another part of the gateway collects when it is asked."""
        self._registry.register(collector)

    def exposition(self) -> tuple[bytes, str]:
        """Return the text exposition and its content type; call it off the event loop."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
