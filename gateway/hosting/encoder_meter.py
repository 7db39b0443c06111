"""Meters the gateway's own encoder: what its CPU seconds grew by goes to the file of hours."""

import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from core.clock import Clock
from gateway.hosting.engine_hours import add_encoding

logger = logging.getLogger("headgate.hosting")


class EncoderMeter:
    """Writes from any thread; a failure is logged, and the time is kept for the next one."""

    def __init__(self, cpu_s: Callable[[], float], file: Path, clock: Clock) -> None:
        self._cpu_s = cpu_s
        self._file = file
        self._clock = clock
        self._written_s = 0.0
        self._lock = threading.Lock()

    def write(self) -> None:
        """Add what is not written yet to the present hour."""
        with self._lock:
            now_s = self._cpu_s()
            if now_s <= self._written_s:
                return
            try:
                add_encoding(self._file, self._clock.now(), now_s - self._written_s)
                self._written_s = now_s
            except (sqlite3.Error, OSError) as problem:
                logger.warning("the encoder's hours cannot be written", extra={"problem": str(problem)})
