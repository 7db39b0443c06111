"""The gateway's own state in `/metrics`, read when somebody asks: breakers, SLA limits, lost rows, the version."""

from collections.abc import Callable, Iterator, Mapping
from typing import get_args

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from backends.health import BreakerState
from backends.registry import Registry
from core.clock import Clock
from gateway.telemetry.budget_metrics import MAX_TENANTS
from gateway.telemetry.families import Family
from policies.loading import PolicySet

BREAKER = Family("gauge", "breaker_state", "1 for the state a deployment's breaker is in.", ("deployment", "state"))
LIMIT = Family("gauge", "sla_limit_seconds", "Latency limit that a policy sets.", ("tenant", "tier", "kind"))
DROPPED = Family("counter", "dropped", "Rows that a log could not take; requests never wait for one.", ("log",))
BUILD = Family("gauge", "build_info", "Always 1; the program's version.", ("version",))
OBJECTIVE = Family(
    "gauge", "sla_objective_ratio", "Share of requests that a policy wants to keep its SLA.", ("tenant", "tier")
)
FAMILIES = (BREAKER, LIMIT, OBJECTIVE, DROPPED, BUILD)


class StateMetrics(Collector):
    """Collects from the registry, the policies and the logs."""

    def __init__(
        self,
        registry: Registry,
        policies: Callable[[], PolicySet],
        clock: Clock,
        dropped: Mapping[str, Callable[[], int]],
        version: str,
    ) -> None:
        """Ask `dropped` how many rows each log has lost so far, by the log's name."""
        self._registry = registry
        self._policies = policies
        self._clock = clock
        self._dropped = dropped
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        breaker, dropped, build = BREAKER.gauge(), DROPPED.counter(), BUILD.gauge()
        now_s = self._clock.monotonic_s()
        for one in self._registry:
            present = one.health.breaker(now_s)
            for state in get_args(BreakerState):
                breaker.add_metric((one.name, state), float(state == present))
        for log, count in self._dropped.items():
            dropped.add_metric((log,), count())
        build.add_metric((self._version,), 1.0)
        yield from (breaker, self._limits(), self._objectives(), dropped, build)

    def _objectives(self) -> Metric:
        objectives = OBJECTIVE.gauge()
        policies = self._policies().policies
        for tenant in sorted(policies)[:MAX_TENANTS]:
            for tier, sla in policies[tenant].sla.items():
                objectives.add_metric((tenant, tier), sla.objective_ratio)
        return objectives

    def _limits(self) -> Metric:
        limits = LIMIT.gauge()
        policies = self._policies().policies
        for tenant in sorted(policies)[:MAX_TENANTS]:
            for tier, sla in policies[tenant].sla.items():
                for kind, limit_ms in (("ttft", sla.ttft_ms), ("total", sla.total_ms)):
                    if limit_ms is not None:
                        limits.add_metric((tenant, tier, kind), limit_ms / 1000)
        return limits
