"""Items handed from the event loop to one thread that works on them in groups, which is woken once for each group.

Waking a thread for each item would cost the loop more than its whole request: the woken thread asks for the interpreter
at once, and the loop's thread then waits for its core or for the interpreter (measured: 3 ms a request on a busy core).
"""

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class HandOver(Generic[T]):
    """A queue with any number of writers, none of which ever waits, and one reader, which sleeps while a group gathers.

    `gather_s` is how long that is, in seconds; `most` is how many items a group may have.
    """

    def __init__(self, gather_s: float, most: int) -> None:
        self._gather_s = gather_s
        self._most = most
        self._items: deque[T] = deque()
        self._arrived = threading.Event()
        self._closed = threading.Event()

    def __len__(self) -> int:
        """Return how many items wait."""
        return len(self._items)

    def put(self, item: T) -> None:
        """Hand over one item."""
        self._items.append(item)
        if not self._arrived.is_set():
            self._arrived.set()

    def close(self) -> None:
        """Let the reader take what is left without waiting for more."""
        self._closed.set()
        self._arrived.set()

    def take(self) -> tuple[list[T], bool]:
        """Wait for a first item and for the rest of its group; False once the queue is closed and this was the last."""
        self._arrived.wait()
        if len(self._items) < self._most:
            self._closed.wait(self._gather_s)
        is_closed = self._closed.is_set()
        self._arrived.clear()  # before looking: what is put meanwhile is taken now, or announced again
        group = [self._items.popleft() for _ in range(min(self._most, len(self._items)))]
        if self._items or is_closed:
            self._arrived.set()
        return group, bool(self._items) or not is_closed
