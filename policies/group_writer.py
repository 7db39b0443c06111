"""One thread that writes what others hand over, many changes in one commit, so that no request waits for a disk.

Failure rule: a group that cannot be written is kept, grows by what arrives, and is tried again; `is_failing` says so
meanwhile. Nothing that was handed over is dropped while the process lives.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from core.hand_over import HandOver

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
_logger = logging.getLogger(__name__)

CHECKPOINT_S = 1.0
RETRY_S = 0.2
MOST_CHANGES = 10_000


class Group(Protocol[T_contra]):
    """What one commit writes: the net effect of changes, so that it stays small however many there were."""

    def add(self, change: T_contra) -> None:
        """Take one more change."""
        ...

    def write(self, connection: sqlite3.Connection) -> None:
        """Write the net effect; runs inside a transaction and may be repeated after a failure."""
        ...


class GroupWriter(Generic[T]):
    """Commits changes in the order in which they were put; `linger_s` is how long a group gathers."""

    def __init__(self, connection: sqlite3.Connection, new_group: Callable[[], Group[T]], linger_s: float) -> None:
        self.is_failing = False
        self._connection = connection
        self._new_group = new_group
        self._queue: HandOver[T | Future[None]] = HandOver(linger_s, MOST_CHANGES)
        self._checkpoint_due_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="headgate-writer", daemon=True)
        self._thread.start()

    def put(self, change: T) -> None:
        """Hand over one change; returns at once."""
        self._queue.put(change)

    def flushed(self) -> "Future[None]":
        """Return a future that is done once everything put so far is committed."""
        done: Future[None] = Future()
        self._queue.put_now(done)
        return done

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is left, then close the connection; gives up after `timeout_s` when the file stays unwritable."""
        self._queue.close()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            _logger.error("the last changes could not be written before closing")

    def _run(self) -> None:
        group, waiting, is_last = self._new_group(), list[Future[None]](), False
        while True:
            is_last = self._gather(group, waiting) or is_last
            if self._commit(group):
                for done in waiting:
                    done.set_result(None)
                if is_last:
                    self._connection.close()
                    return
                group, waiting = self._new_group(), []
            elif is_last:
                time.sleep(RETRY_S)
            self._checkpoint_if_due()

    def _gather(self, group: Group[T], waiting: list["Future[None]"]) -> bool:
        """Add what arrives to the group while it lingers, and tell whether that was the last."""
        items, is_open = self._queue.take(self._patience_s())
        for item in items:
            if isinstance(item, Future):
                waiting.append(item)
            else:
                group.add(item)
        return not is_open

    def _patience_s(self) -> float | None:
        if self.is_failing:
            return RETRY_S
        return None if self._checkpoint_due_s is None else max(0.0, self._checkpoint_due_s - time.monotonic())

    def _commit(self, group: Group[T]) -> bool:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            group.write(self._connection)
            self._connection.execute("COMMIT")
        except (sqlite3.Error, OverflowError) as problem:  # OverflowError: an integer of more than 64 bits
            if not self.is_failing:
                _logger.error("the state file cannot be written, trying again", extra={"problem": str(problem)})
            self.is_failing = True
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            return False
        self.is_failing = False
        if self._checkpoint_due_s is None:
            self._checkpoint_due_s = time.monotonic() + CHECKPOINT_S
        return True

    def _checkpoint_if_due(self) -> None:
        """Bring the log into the file and onto the disk once a second, so that a power cut costs about that much."""
        if self._checkpoint_due_s is None or time.monotonic() < self._checkpoint_due_s:
            return
        self._checkpoint_due_s = None
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as problem:
            _logger.warning("checkpoint failed", extra={"problem": str(problem)})
