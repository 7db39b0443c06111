"""Join what watches the gateway: the sinks of traces, the metrics with what they are collected from, and `/metrics`."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from backends.admission_queue import AdmissionQueue
from backends.registry import Registry
from core.clock import Clock
from core.plan import Readiness
from core.trace import TraceSink
from core.trace_context import Propagation
from gateway.hosting.deployments import Hosting
from gateway.reporting.decisions import program_version
from gateway.settings.operator import Settings
from gateway.settings.telemetry_settings import TelemetrySettings
from gateway.stores import Stores
from gateway.telemetry.budget_metrics import BudgetMetrics
from gateway.telemetry.engine_metrics import EngineMetrics
from gateway.telemetry.engine_work import EngineWork
from gateway.telemetry.fan_out import FanOut
from gateway.telemetry.log_line import LogLine, dropped_lines
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.receipt_log import ReceiptLog
from gateway.telemetry.request_log import RequestLog
from gateway.telemetry.state_metrics import StateMetrics
from policies.watching import PolicyWatcher

logger = logging.getLogger("headgate.monitoring")
LAG_EVERY_S = 0.5
Dropped = dict[str, Callable[[], int]]


def build_metrics(watcher: PolicyWatcher) -> Metrics:
    """Return the metrics, with the SLA limits of the policies in force as bounds."""
    slas = [sla for policy in watcher.current.policies.values() for sla in policy.sla.values()]
    bounds_s = [limit / 1000 for sla in slas for limit in (sla.ttft_ms, sla.total_ms) if limit is not None]
    return Metrics(lambda tenant: watcher.current.get(tenant) is not None, bounds_s)


@dataclass(frozen=True, slots=True)
class Sinks:
    """Where finished traces go; `dropped` says by the name of each log how much it could not take."""

    all: FanOut
    dropped: Dropped
    close: Callable[[], None]


def build_sinks(settings: TelemetrySettings, metrics: Metrics, request_log: RequestLog, costs: TraceSink) -> Sinks:
    """Open the exporters that are asked for, and join them with the metrics and the logs.

    Raises:
        ConfigurationError: an exporter is not installed.
    """
    sinks: list[TraceSink] = [metrics, request_log, costs, LogLine()]
    closers: list[Callable[[], None]] = [request_log.close]
    dropped: Dropped = {"requests": lambda: request_log.dropped, "lines": dropped_lines}
    if settings.exports:
        from gateway.telemetry.exporting import Spans
        from gateway.telemetry.otlp import span_exporter
        from gateway.telemetry.spans import Keeping

        spans = Spans(span_exporter(settings), Keeping(settings.sample_ratio, settings.dear_nano_usd))
        sinks.append(spans)
        closers.append(spans.close)
        dropped["spans"] = lambda: spans.dropped
    if settings.exports_metrics:
        from gateway.telemetry.genai_metrics import GenAiMetrics
        from gateway.telemetry.otlp import metric_exporter

        genai = GenAiMetrics(metric_exporter(settings), settings.semconv)
        sinks.append(genai)
        closers.append(genai.close)

    def close() -> None:
        for closer in closers:
            closer()

    return Sinks(FanOut(sinks), dropped, close)


def propagation(settings: TelemetrySettings) -> Propagation:
    """Return what engines of ours are told of traces."""
    return Propagation(settings.sample_ratio if settings.exports else None)


@dataclass(frozen=True, slots=True)
class Monitoring:
    """What `/metrics` is made from; `run` is its background work."""

    metrics: Metrics
    budgets: BudgetMetrics
    readiness: Callable[[], dict[str, str]]
    stores: Stores
    queue: AdmissionQueue
    registry: Registry

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
        await asyncio.gather(self.budgets.run(), self._time_loop())

    async def _time_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self.metrics.loop_lag(max(0.0, loop.time() - due_s))


def build_monitoring(
    settings: Settings,
    *,
    metrics: Metrics,
    watcher: PolicyWatcher,
    registry: Registry,
    hosting: Hosting,
    stores: Stores,
    queue: AdmissionQueue,
    clock: Clock,
    sinks: Sinks,
    receipts: ReceiptLog,
    readiness: Callable[[], dict[str, str]],
) -> Monitoring:
    """Let the metrics show everything that is not counted request by request."""
    budgets = BudgetMetrics(stores.treasury, lambda: watcher.current, clock)
    dropped = {**sinks.dropped, "receipts": lambda: receipts.dropped}
    metrics.include(EngineMetrics(lambda: hosting.supervisors, hosting.costs.cost))
    metrics.include(EngineWork(lambda: hosting.supervisors, hosting.watch, lambda: hosting.gpus.last))
    metrics.include(StateMetrics(registry, lambda: watcher.current, clock, dropped, program_version()))
    metrics.include(budgets)
    return Monitoring(metrics, budgets, readiness, stores, queue, registry)
