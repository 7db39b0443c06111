"""Metrics of generative AI by OTLP, under either set of OpenTelemetry's names, summed here and sent once a minute.

The SDK's instruments cost ten microseconds a recording; these sums cost about one, on the event loop, and are turned
into OTLP by a thread. Attribute values come from configuration. A collector that is away costs nothing but its data:
sums are cumulative, so the next report makes up for those that were lost.
"""

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from core.trace import Attempt, AttemptOutcome, RequestTrace
from gateway.settings.telemetry_settings import Semconv
from gateway.telemetry import semconv
from gateway.telemetry.spans import NO_FAULT, resource

logger = logging.getLogger("headgate.genai_metrics")
EVERY_S = 60.0
CLOSE_S = 3.0
NANO = 1_000_000_000
# The bounds that the conventions advise.
DURATION_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
BETWEEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = tuple(float(4**n) for n in range(14))
Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Distribution:
    """One histogram: counts between bounds, one more than bounds; the sum, and the extremes."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0
    least: float = float("inf")
    most: float = float("-inf")

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
        self.least = min(self.least, value)
        self.most = max(self.most, value)


class GenAiMetrics:
    """A sink that sums attempts and requests; `close` sends the last sums."""

    def __init__(
        self,
        exporter: MetricExporter,
        version: Semconv = "v1.41",
        of: Resource | None = None,
        now_s: Callable[[], float] = time.time,
        every_s: float = EVERY_S,
    ) -> None:
        self._exporter = exporter
        self._names = semconv.NAMES[version]
        self._resource = of or resource()
        self._now_s = now_s
        self._every_s = every_s
        self._began_s = now_s()
        self._distributions: dict[tuple[str, Labels], _Distribution] = {}
        self._sums: dict[tuple[str, Labels], int] = {}
        self._is_failing = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="genai-metrics", daemon=True)
        self._thread.start()

    def record(self, trace: RequestTrace) -> None:
        """Sum one request and its attempts."""
        operation = semconv.operation_of(trace.path)
        for attempt in trace.attempts:
            self._attempt(trace, attempt, operation)
        if trace.is_shadow:
            return
        labels: Labels = ((semconv.OPERATION_NAME, operation), (semconv.PROVIDER_NAME, semconv.PROVIDER))
        if trace.error_code is not None:
            labels = (*labels, (semconv.ERROR_TYPE, trace.error_code))
        self._observe(semconv.SERVER_DURATION, labels, DURATION_S, trace.total_ms / 1000)
        if trace.stream and trace.ttft_ms is not None:
            self._observe(semconv.SERVER_TTFT, labels, FIRST_S, trace.ttft_ms / 1000)

    def close(self) -> None:
        """Send the last sums, for a bounded time."""
        self._closing.set()
        self._thread.join(timeout=CLOSE_S)
        if self._thread.is_alive():
            self._exporter.shutdown()

    def _attempt(self, trace: RequestTrace, attempt: Attempt, operation: str) -> None:
        names, ended_s = self._names, (attempt.ended_ms - attempt.started_ms) / 1000
        labels: Labels = (
            (semconv.OPERATION_NAME, operation),
            (semconv.PROVIDER_NAME, attempt.deployment),
            (semconv.REQUEST_MODEL, attempt.model),
        )
        is_fault = attempt.outcome not in NO_FAULT
        timed = (*labels, (semconv.ERROR_TYPE, attempt.outcome.value)) if is_fault else labels
        self._observe(names.duration, timed, DURATION_S, ended_s)
        usage = attempt.usage
        if trace.stream and attempt.first_byte_ms is not None:
            first_s = (attempt.first_byte_ms - attempt.started_ms) / 1000
            self._observe(names.time_to_first_chunk, labels, FIRST_S, first_s)
            if attempt.outcome is AttemptOutcome.COMPLETE and usage is not None and usage.output_tokens > 1:
                between_s = (ended_s - first_s) / (usage.output_tokens - 1)
                self._observe(names.time_per_output_chunk, labels, BETWEEN_S, between_s)
        if usage is not None:
            self._tokens(labels, "input", names.input_tokens, usage.input_tokens)
            self._tokens(labels, "output", names.output_tokens, usage.output_tokens)

    def _tokens(self, labels: Labels, kind: str, counter: str | None, tokens: int) -> None:
        if counter is not None:
            self._sums[counter, labels] = self._sums.get((counter, labels), 0) + tokens
        if self._names.token_usage is not None:
            self._observe(self._names.token_usage, (*labels, (semconv.TOKEN_TYPE, kind)), TOKENS, tokens)

    def _observe(self, name: str, labels: Labels, bounds: tuple[float, ...], value: float) -> None:
        distribution = self._distributions.get((name, labels))
        if distribution is None:
            distribution = self._distributions[name, labels] = _Distribution(bounds)
        distribution.add(value)

    def _run(self) -> None:
        going_on = True
        while going_on:
            going_on = not self._closing.wait(self._every_s)
            try:
                is_taken = self._exporter.export(self._report()) is MetricExportResult.SUCCESS
            except Exception as problem:  # an exporter may raise anything; the thread must outlive it
                is_taken = False
                logger.debug("an exporter failed", exc_info=problem)
            if is_taken is self._is_failing:
                self._is_failing = not is_taken
                logger.warning("metrics are exported again" if is_taken else "metrics cannot be exported by OTLP")
        self._exporter.shutdown()

    def _report(self) -> MetricsData:
        metrics = [*self._histograms(), *self._counters()]
        scope = ScopeMetrics(InstrumentationScope("headgate"), metrics, "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])

    def _histograms(self) -> Iterator[Metric]:
        began, now = int(self._began_s * NANO), int(self._now_s() * NANO)
        points: dict[str, list[HistogramDataPoint]] = {}
        for (name, labels), one in tuple(self._distributions.items()):
            counts = list(one.counts)
            point = HistogramDataPoint(
                dict(labels), began, now, sum(counts), one.total, counts, one.bounds, one.least, one.most
            )
            points.setdefault(name, []).append(point)
        for name, of_name in points.items():
            unit = "{token}" if name == self._names.token_usage else "s"
            yield Metric(name, "", unit, Histogram(of_name, AggregationTemporality.CUMULATIVE))

    def _counters(self) -> Iterator[Metric]:
        began, now = int(self._began_s * NANO), int(self._now_s() * NANO)
        points: dict[str, list[NumberDataPoint]] = {}
        for (name, labels), total in tuple(self._sums.items()):
            points.setdefault(name, []).append(NumberDataPoint(dict(labels), began, now, total))
        for name, of_name in points.items():
            yield Metric(name, "", "{token}", Sum(of_name, AggregationTemporality.CUMULATIVE, True))
