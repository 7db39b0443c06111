"""Join what watches the gateway: the metrics, with bounds from the policies, and what `/metrics` is made from."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from backends.admission_queue import AdmissionQueue
from backends.registry import Registry
from core.plan import Readiness
from gateway.parts.ground import Ground
from gateway.parts.records import Records
from gateway.parts.stores import Stores
from gateway.parts.upstreams import Upstreams
from gateway.reporting.decisions import program_version
from gateway.telemetry.budget_metrics import BudgetMetrics
from gateway.telemetry.engine_metrics import EngineMetrics
from gateway.telemetry.engine_work import EngineWork
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.state_metrics import StateMetrics
from policies.watching import PolicyWatcher

logger = logging.getLogger("headgate.monitoring")
LAG_EVERY_S = 0.5


def build_metrics(watcher: PolicyWatcher) -> Metrics:
    """Return the metrics, with the SLA limits of the policies in force as bounds."""
    slas = [sla for policy in watcher.current.policies.values() for sla in policy.sla.values()]
    bounds_s = [limit / 1000 for sla in slas for limit in (sla.ttft_ms, sla.total_ms) if limit is not None]
    return Metrics(lambda tenant: watcher.current.get(tenant) is not None, bounds_s)


@dataclass(frozen=True, slots=True)
class Monitoring:
    """What `/metrics` is made from; `run` is its background work."""

    metrics: Metrics
    budgets: BudgetMetrics
    readiness: Callable[[], dict[str, str]]
    stores: Stores
    queue: AdmissionQueue
    registry: Registry
    is_first: bool

    def exposition(self) -> tuple[bytes, str]:
        """Return `/metrics` with the present state of tiers, deployments, queue and store; call it in a thread."""
        metrics = self.metrics
        metrics.store_away(self.stores.is_away())
        metrics.queue_waiting(self.queue.waiting)
        for one in self.registry:
            is_ready = self.registry.readiness_of(one.name) is Readiness.READY
            ejections = one.health.ejections
            metrics.deployment(one.name, in_flight=one.latency.in_flight, ejections=ejections, ready=is_ready)
        for tier, state in self.readiness().items():
            metrics.tier_ready(tier, state == Readiness.READY)
        return metrics.exposition()

    async def run(self) -> None:
        """Read the budgets, and time the event loop, for as long as the gateway lives."""
        duties = (self.budgets.run(), self._time_loop()) if self.is_first else (self._time_loop(),)
        await asyncio.gather(*duties)

    async def _time_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self.metrics.loop_lag(max(0.0, loop.time() - due_s))


def build_monitoring(
    ground: Ground,
    metrics: Metrics,
    upstreams: Upstreams,
    stores: Stores,
    records: Records,
    readiness: Callable[[], dict[str, str]],
) -> Monitoring:
    """Let the metrics show everything that is not counted request by request; `readiness` tells the state by tier."""
    hosting, registry = upstreams.hosting, upstreams.registry
    budgets = BudgetMetrics(stores.treasury, ground.policies, ground.clock)
    metrics.include(EngineMetrics(lambda: hosting.supervisors, hosting.costs.cost))
    metrics.include(EngineWork(lambda: hosting.supervisors, hosting.watch, lambda: hosting.gpus.last))
    metrics.include(StateMetrics(registry, ground.policies, ground.clock, records.dropped, program_version()))
    metrics.include(budgets)
    queue, is_first = upstreams.dispatcher.queue, ground.settings.worker.is_first
    return Monitoring(metrics, budgets, readiness, stores, queue, registry, is_first)
