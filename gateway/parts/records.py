"""Where what happened is written: the logs of requests, outcomes and decisions, and every other sink of traces."""

from collections.abc import Callable
from dataclasses import dataclass

from core.trace import TraceSink
from gateway.reporting.decisions import program_version
from gateway.settings.operator import Settings
from gateway.settings.telemetry_settings import TelemetrySettings
from gateway.telemetry.fan_out import FanOut
from gateway.telemetry.log_line import LogLine, dropped_lines
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.outcome_log import OutcomeLog
from gateway.telemetry.receipt_log import ReceiptLog
from gateway.telemetry.request_log import RequestLog

Dropped = dict[str, Callable[[], int]]
Closers = tuple[Callable[[], None], ...]


@dataclass(frozen=True, slots=True)
class Records:
    """The open logs; a finished trace goes to `traces`, which hands it to all that want it.

    Attributes:
        dropped: by the name of each log, tells how much it could not take.
        closers: write what is left, and close files and exporters.
    """

    requests: RequestLog
    outcomes: OutcomeLog
    receipts: ReceiptLog
    traces: FanOut
    dropped: Dropped
    closers: Closers


def open_records(settings: Settings, metrics: Metrics, costs: TraceSink, weights: str) -> Records:
    """Open the logs beside the state, and the exporters that are asked for.

    Args:
        settings: the operator's choices.
        metrics: what counts requests.
        costs: what learns from traces what engines cost.
        weights: the version of the router's weights, which every decision is written with.

    Raises:
        ConfigurationError: an exporter is not installed, or a file cannot be used.
    """
    telemetry = settings.telemetry
    requests = RequestLog(settings.beside("requests"), telemetry.rows, is_shared=settings.workers > 1)
    outcomes = OutcomeLog(settings.beside("requests"))
    receipts = ReceiptLog(settings.beside("decisions"), weights, program_version(), telemetry.receipts)
    exporters, dropped, closers = _exporters(telemetry)
    return Records(
        requests=requests,
        outcomes=outcomes,
        receipts=receipts,
        traces=FanOut([metrics, requests, costs, LogLine(), *exporters]),
        dropped={
            "requests": lambda: requests.dropped,
            "lines": dropped_lines,
            "receipts": lambda: receipts.dropped,
            **dropped,
        },
        closers=(outcomes.close, requests.close, *closers, receipts.close),
    )


def _exporters(settings: TelemetrySettings) -> tuple[list[TraceSink], Dropped, Closers]:
    sinks: list[TraceSink] = []
    dropped: Dropped = {}
    closers: Closers = ()
    if settings.exports:
        from gateway.telemetry.exporting import Spans
        from gateway.telemetry.otlp import span_exporter
        from gateway.telemetry.spans import Keeping

        spans = Spans(span_exporter(settings), Keeping(settings.sample_ratio, settings.dear_nano_usd))
        sinks.append(spans)
        closers = (spans.close,)
        dropped["spans"] = lambda: spans.dropped
    if settings.exports_metrics:
        from gateway.telemetry.genai_metrics import GenAiMetrics
        from gateway.telemetry.otlp import metric_exporter

        genai = GenAiMetrics(metric_exporter(settings), settings.semconv)
        sinks.append(genai)
        closers = (*closers, genai.close)
    return sinks, dropped, closers
