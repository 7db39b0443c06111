"""One thread that owns a resource which no two threads may use, and answers waiting searches in batches."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.cached import Vector

Found = tuple[NDArray[np.float32], NDArray[np.int64]]
Resource = TypeVar("Resource")
Made = TypeVar("Made")

_MOST_AT_ONCE = 64
PATIENCE_S = 2.0
"""How long a search waits before the index counts as failed."""


class Searchable(Protocol):
    """An index in the manner of FAISS."""

    def search(self, queries: NDArray[np.float32], k: int) -> Found:
        """Return (n, k) similarities and row numbers for (n, d) float32 queries."""
        ...


class SearchOwner(Generic[Resource]):
    """Opens the resource in its own thread and runs everything there; use one owner per resource.

    Raises:
        Exception: whatever `open_resource` raised, from the constructor.
    """

    def __init__(self, open_resource: Callable[[], Resource], *, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._queue: queue.SimpleQueue[_Job | _Search | None] = queue.SimpleQueue()
        opened: Future[Resource] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(open_resource, opened), name="headgate-gpu", daemon=True
        )
        self._thread.start()
        self._resource = opened.result()

    def run(self, work: Callable[[Resource], Made]) -> Made:
        """Run `work` in the owner's thread and return what it returns or raise what it raises."""
        done: Future[Made] = Future()
        self._queue.put(_Job(work, done))
        return done.result()

    def forget(self, work: Callable[[Resource], object]) -> None:
        """Run `work` in the owner's thread without waiting for it."""
        self._queue.put(_Job(work, Future()))

    def search(self, index: Searchable, vector: Vector, k: int) -> Found:
        """Search with whatever else waits for the same index.

        Raises:
            TimeoutError: no answer within the patience.
        """
        wanted = _Search(index, vector, k)
        self._queue.put(wanted)
        return wanted.found.result(self._patience_s)

    def waiting(self) -> int:
        """Return how much waits for the thread."""
        return self._queue.qsize()

    def close(self) -> None:
        """End the thread after what is queued."""
        self._queue.put(None)
        self._thread.join(30.0)

    def _run(self, open_resource: Callable[[], Resource], opened: "Future[Resource]") -> None:
        try:
            resource = open_resource()
        except BaseException as problem:
            opened.set_exception(problem)
            return
        opened.set_result(resource)
        while self._turn(resource):
            pass

    def _turn(self, resource: Resource) -> bool:
        """Do what is next, with all waiting searches where it is one; False at the end. Nothing is held afterwards."""
        first = self._queue.get()
        taken = [first, *(self._drained() if isinstance(first, _Search) else [])]
        for index, searches in _by_index(taken).items():
            _answer(index, searches)
        for one in taken:
            if isinstance(one, _Job):
                one.run(resource)
        return None not in taken

    def _drained(self) -> "list[_Job | _Search | None]":
        """Take what waits, up to the first thing that is no search."""
        taken: list[_Job | _Search | None] = []
        while len(taken) < _MOST_AT_ONCE - 1:
            try:
                taken.append(self._queue.get_nowait())
            except queue.Empty:
                break
            if not isinstance(taken[-1], _Search):
                break
        return taken


class _Job:
    def __init__(self, work: Callable[[Any], Any], done: "Future[Any]") -> None:
        self._work = work
        self._done = done

    def run(self, resource: object) -> None:
        try:
            self._done.set_result(self._work(resource))
        except Exception as problem:
            self._done.set_exception(problem)


class _Search:
    def __init__(self, index: Searchable, vector: Vector, k: int) -> None:
        self.index = index
        self.vector = vector
        self.k = k
        self.found: Future[Found] = Future()


def _by_index(waiting: "list[_Job | _Search | None]") -> dict[Searchable, list[_Search]]:
    groups: dict[Searchable, list[_Search]] = {}
    for one in waiting:
        if isinstance(one, _Search):
            groups.setdefault(one.index, []).append(one)
    return groups


def _answer(index: Searchable, searches: list[_Search]) -> None:
    try:
        queries = np.ascontiguousarray(np.stack([one.vector for one in searches]), dtype=np.float32)
        similarities, numbers = index.search(queries, max(one.k for one in searches))
    except Exception as problem:
        for one in searches:
            one.found.set_exception(problem)
        return
    for at, one in enumerate(searches):
        one.found.set_result((similarities[at, : one.k], numbers[at, : one.k]))
