"""Items handed from the event loop to one thread that works on them in groups, and is hardly ever woken for it.

Waking a thread for each item would cost the loop more than most of its request: the woken one asks for the interpreter
at once, and the loop's thread then waits for its core or for the interpreter (a fifth of a request's CPU time, measured
on a busy core). While items come, the reader therefore looks after them by itself, once in each gathering time.
"""

import sys
import threading
import time
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")
AWAKE_S = 0.25


class HandOver(Generic[T]):
    """A queue with any number of writers, none of which ever waits, and one reader.

    `gather_s` is how long a group gathers, in seconds; `most` is how many items it may have; the reader falls asleep,
    to be woken by the next item, when nothing came for `awake_s`. At most `limit` items wait.
    """

    def __init__(self, gather_s: float, most: int, awake_s: float = AWAKE_S, limit: int = sys.maxsize) -> None:
        self._gather_s = gather_s
        self._most = most
        self._limit = limit
        self._awake_s = awake_s if gather_s > 0 else 0.0
        self._took_s = -awake_s
        self._items: deque[T] = deque()
        self._is_asleep = False
        self._is_closed = False
        self._arrived = threading.Event()
        self._hurry = threading.Event()

    def __len__(self) -> int:
        """Return how many items wait."""
        return len(self._items)

    def put(self, item: T) -> bool:
        """Hand over one item; False when too many wait already, and it was not taken."""
        if len(self._items) >= self._limit:
            return False
        self._items.append(item)
        if self._is_asleep:
            self._is_asleep = False
            self._arrived.set()
        return True

    def put_now(self, item: T) -> None:
        """Hand over one item that shall be taken at once."""
        self._items.append(item)
        self._hurry.set()
        self._arrived.set()

    def close(self) -> None:
        """Let the reader take what is left without waiting for more."""
        self._is_closed = True
        self._hurry.set()
        self._arrived.set()

    def take(self, timeout_s: float | None = None) -> tuple[list[T], bool]:
        """Wait for a group, which is empty after `timeout_s`; False once the queue is closed and this was the last."""
        give_up_at_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        if len(self._items) < self._most:
            self._hurry.wait(self._gather_s)
        while not self._items and not self._is_closed and time.monotonic() < give_up_at_s:
            if time.monotonic() - self._took_s >= self._awake_s:
                self._sleep(None if timeout_s is None else give_up_at_s - time.monotonic())
            self._hurry.wait(self._gather_s)
        if not self._is_closed:
            self._hurry.clear()
        group = [self._items.popleft() for _ in range(min(self._most, len(self._items)))]
        if group:
            self._took_s = time.monotonic()
        return group, bool(self._items) or not self._is_closed

    def _sleep(self, limit_s: float | None) -> None:
        self._arrived.clear()
        self._is_asleep = True  # before looking: what is put from now on wakes us
        if not self._items and not self._is_closed:
            self._arrived.wait(limit_s)
        self._is_asleep = False
