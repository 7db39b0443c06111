"""What a family of metrics is called and labelled with, said once for the exposition and for the reference."""

from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

PREFIX = "headgate_"


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One family; `name` is without the prefix, and a counter's without `_total`.

    A histogram has `bounds_s`, with the SLA limits among them where `has_sla_limits`.
    """

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    text: str
    labels: tuple[str, ...] = ()
    bounds_s: tuple[float, ...] = ()
    has_sla_limits: bool = False

    @property
    def full_name(self) -> str:
        """Return the name as queries use it."""
        return f"{PREFIX}{self.name}" + ("_total" if self.kind == "counter" else "")

    def bounds_with(self, limits_s: tuple[float, ...]) -> tuple[float, ...]:
        """Return the bounds in seconds, in order; the limits are among them where the family asks for them."""
        return tuple(sorted({float(one) for one in (*self.bounds_s, *(limits_s if self.has_sla_limits else ()))}))

    def gauge(self) -> GaugeMetricFamily:
        """Return an empty family of gauges, for a collector to fill."""
        return GaugeMetricFamily(PREFIX + self.name, self.text, labels=self.labels)

    def counter(self) -> CounterMetricFamily:
        """Return an empty family of counters, for a collector to fill."""
        return CounterMetricFamily(PREFIX + self.name, self.text, labels=self.labels)
