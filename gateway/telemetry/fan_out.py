"""Hand each trace to every sink; a sink that fails is logged once per kind of error and never reaches a request."""

import logging
from collections.abc import Sequence

from core.trace import RequestTrace, TraceSink

logger = logging.getLogger("headgate.telemetry")
MAX_REMEMBERED = 100


class FanOut:
    """A sink made of sinks."""

    def __init__(self, sinks: Sequence[TraceSink]) -> None:
        self._sinks = [(sink, sink.record) for sink in sinks]
        self._reported: set[tuple[str, str]] = set()

    def record(self, trace: RequestTrace) -> None:
        """Pass `trace` on; see the module's rule for failures."""
        for sink, record in self._sinks:
            try:
                record(trace)
            except Exception as problem:
                self._report(sink, problem)

    def _report(self, sink: TraceSink, problem: Exception) -> None:
        kind = (type(sink).__name__, type(problem).__name__)
        if kind not in self._reported and len(self._reported) < MAX_REMEMBERED:
            self._reported.add(kind)
            logger.error("a trace sink failed", extra={"sink": kind[0]}, exc_info=problem)
