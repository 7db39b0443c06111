"""Replay a running gateway's own log, bounded so that the admin listener answers within seconds; one at a time."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from core.clock import Clock
from core.errors import Unavailable
from core.plan import RegistrySnapshot
from gateway.telemetry.time_ranges import parse_range
from gateway.whatif.comparison import Comparison, simulate
from gateway.whatif.history import read_history
from policies.loading import PolicySet

MOST_REQUESTS = 5_000
RUNS = 3
RETRY_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Replays the newest logged requests of a tenant; it blocks."""

    requests: Path
    receipts: Path
    registry: Callable[[], RegistrySnapshot]
    clock: Clock
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, candidate: PolicySet, span: str, tenant: str) -> Comparison:
        """Return then and now.

        Raises:
            ConfigurationError: the span cannot be read, or holds no request.
            Unavailable: another simulation is under way.
            LogUnreadable: a log cannot be read.
        """
        if not self._one_at_a_time.acquire(blocking=False):
            raise Unavailable("Another simulation is under way.", RETRY_AFTER_S)
        try:
            history = read_history(
                self.requests, self.receipts, parse_range(span, self.clock.now(), "range"), tenant, MOST_REQUESTS
            )
            return simulate(candidate, self.registry(), history, runs=RUNS)
        finally:
            self._one_at_a_time.release()
