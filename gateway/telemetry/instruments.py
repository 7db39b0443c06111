"""Families as `prometheus_client` counts in them; children are remembered, since looking one up there is dear."""

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from gateway.telemetry.families import PREFIX, Family


class Instruments:
    """The instruments of a registry."""

    def __init__(self, registry: CollectorRegistry, families: Iterable[Family]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a further series for each child, which nobody reads
        self._made = {family: _made(family, registry) for family in families}
        self._children: dict[tuple[Family, tuple[str, ...]], Any] = {}

    def counter(self, family: Family, *labels: str) -> Counter:
        """Return the child of a family of counters."""
        child: Counter = self._children.get((family, labels)) or self._child(family, labels)
        return child

    def gauge(self, family: Family, *labels: str) -> Gauge:
        """Return the child of a family of gauges."""
        child: Gauge = self._children.get((family, labels)) or self._child(family, labels)
        return child

    def histogram(self, family: Family, *labels: str) -> Histogram:
        """Return the child of a family of histograms."""
        child: Histogram = self._children.get((family, labels)) or self._child(family, labels)
        return child

    def _child(self, family: Family, labels: tuple[str, ...]) -> Any:
        made = self._made[family]
        child = self._children[family, labels] = made.labels(*labels) if labels else made
        return child


def _made(family: Family, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    name = PREFIX + family.name
    match family.kind:
        case "counter":
            return Counter(name, family.text, family.labels, registry=registry)
        case "gauge":
            return Gauge(name, family.text, family.labels, registry=registry)
        case "histogram":
            buckets = family.bounds_with(())
            return Histogram(name, family.text, family.labels, registry=registry, buckets=buckets)
