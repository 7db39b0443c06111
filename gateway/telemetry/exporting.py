"""Export the traces that are kept, by a thread of its own: a collector that is slow or gone never touches a request.

What waits is bounded; what does not fit, or the collector does not take, is counted as dropped and said once.
"""

import logging
import threading

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from core.hand_over import HandOver
from core.trace import RequestTrace
from gateway.telemetry.spans import Keeping, resource, spans_of

logger = logging.getLogger("headgate.spans")
MAX_QUEUED = 4_096
GROUP_TRACES = 128
GROUP_WAIT_S = 1.0
CLOSE_S = 3.0


class Spans:
    """A sink that exports what `keeping` keeps through `exporter`; `close` sends what is queued."""

    def __init__(self, exporter: SpanExporter, keeping: Keeping | None = None, of: Resource | None = None) -> None:
        self._exporter = exporter
        self._keeping = keeping or Keeping()
        self._resource = of or resource()
        self._queue: HandOver[RequestTrace] = HandOver(GROUP_WAIT_S, GROUP_TRACES, limit=MAX_QUEUED)
        self._is_failing = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Return how many traces are queued."""
        return len(self._queue)

    def record(self, trace: RequestTrace) -> None:
        """Queue a trace that is kept, or count it as dropped."""
        if self._keeping.keeps(trace) and not self._queue.put(trace):
            self.dropped += 1

    def close(self) -> None:
        """Send what is queued, for a bounded time, and stop; a thread that a collector holds up is left behind."""
        self._queue.close()
        self._thread.join(timeout=CLOSE_S)
        if self._thread.is_alive():
            logger.warning("spans were not sent in time", extra={"traces": len(self._queue)})
            self._exporter.shutdown()  # ends the waits between the exporter's tries
            self._thread.join(timeout=CLOSE_S)

    def _run(self) -> None:
        going_on = True
        while going_on:
            group, going_on = self._queue.take()
            if group:
                self._export(group)
        self._exporter.shutdown()

    def _export(self, group: list[RequestTrace]) -> None:
        try:
            spans = [span for trace in group for span in spans_of(trace, self._resource)]
            is_taken = self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as problem:  # an exporter may raise anything; the thread must outlive it
            is_taken = False
            logger.debug("an exporter failed", exc_info=problem)
        if not is_taken:
            self.dropped += len(group)
        if is_taken is self._is_failing:
            self._is_failing = not is_taken
            logger.warning("spans are exported again" if is_taken else "spans cannot be exported; they are dropped")
