"""Decision records, written in groups by a thread of its own; never in the way of a request.

What waits to be written can be read already. When the queue is full (the disk is slow or gone) receipts are dropped and
counted. They have a retention of their own: the oldest go when they are too old, or when all together take too much.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from core.hand_over import HandOver
from gateway.settings.retention import ReceiptRetention
from gateway.telemetry.receipt_blocks import DAY_MS, BlockFile, Written, read_receipt
from router.receipt import Decided, ReceiptWriter

logger = logging.getLogger("headgate.receipt_log")
MAX_QUEUED = 10_000
GROUP_RECEIPTS = 512
GROUP_WAIT_S = 0.2
TRIM_EVERY = 2_000


class ReceiptLog:
    """Keeps receipts in one SQLite file; `router` and `program` are the versions by which is decided here."""

    def __init__(
        self,
        path: Path,
        router: str,
        program: str,
        retention: ReceiptRetention | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.router = router
        self.program = program
        self._path = path
        self._writer = ReceiptWriter(router, program)
        self._retention = retention or ReceiptRetention()
        self._now_s = now_s
        self._file = BlockFile(path)
        self._queue: HandOver[Decided] = HandOver(GROUP_WAIT_S, GROUP_RECEIPTS)
        self._waiting: dict[str, Decided] = {}
        self.dropped = 0
        self._thread = threading.Thread(target=self._write, name="receipt-log", daemon=True)
        self._thread.start()

    def record(self, decided: Decided) -> None:
        """Queue one decision, or count it as dropped."""
        if len(self._waiting) >= MAX_QUEUED:
            self.dropped += 1
            return
        self._waiting[decided.id] = decided
        self._queue.put(decided)

    def find(self, request_id: str) -> bytes | None:
        """Return the canonical bytes of a request's receipt, or None when there is none; for any thread."""
        waiting = self._waiting.get(request_id)
        return read_receipt(self._path, request_id) if waiting is None else self._writer.content(waiting)

    def close(self) -> None:
        """Write what is queued and close the file."""
        self._queue.close()
        self._thread.join(timeout=5.0)

    def _write(self) -> None:
        going_on, since_trimmed = True, TRIM_EVERY
        while going_on:
            group, going_on = self._queue.take()
            since_trimmed += len(group)
            try:
                self._file.add([self._written(decided) for decided in group])
            except (sqlite3.Error, OverflowError) as problem:
                self.dropped += len(group)
                logger.warning("receipts were not written", extra={"receipts": len(group), "problem": str(problem)})
            for decided in group:
                self._waiting.pop(decided.id, None)
            if since_trimmed >= TRIM_EVERY:
                self._trim()
                since_trimmed = 0
        self._file.close()

    def _written(self, decided: Decided) -> Written:
        content, policy = self._writer.written(decided)
        return Written(decided.id, int(decided.decided_at.timestamp() * 1000), content, policy)

    def _trim(self) -> None:
        since_ms = int(self._now_s() * 1000 - self._retention.days * DAY_MS)
        try:
            self._file.trim(since_ms, self._retention.max_bytes)
        except sqlite3.Error as problem:
            logger.warning("old receipts were not removed", extra={"problem": str(problem)})
