"""One thread owns the resource: batches, failures, and what happens when nothing answers."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from cache.search_owner import SearchOwner


class Counted:
    """An index that notes which thread asked for how many queries, and waits when told."""

    def __init__(self, wait: threading.Event | None = None) -> None:
        self.batches: list[int] = []
        self.threads: set[str] = set()
        self.wait = wait
        self.entered = threading.Event()

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        self.batches.append(len(queries))
        self.threads.add(threading.current_thread().name)
        self.entered.set()
        if self.wait is not None:
            assert self.wait.wait(20)
        return np.repeat(queries[:, :1], k, axis=1), np.tile(np.arange(k, dtype=np.int64), (len(queries), 1))


def vector(value: float) -> NDArray[np.float32]:
    return np.full(4, value, dtype=np.float32)


def test_searches_that_wait_are_one_batch_and_each_gets_its_own_answer() -> None:
    go_on = threading.Event()
    owner, index = SearchOwner(lambda: None, patience_s=20.0), Counted(go_on)
    with ThreadPoolExecutor(9) as callers:
        first = callers.submit(owner.search, index, vector(0), 2)
        assert index.entered.wait(20)
        rest = [callers.submit(owner.search, index, vector(number), 1 + number % 3) for number in range(1, 9)]
        while owner.waiting() < 8:
            threading.Event().wait(0.001)
        go_on.set()
        for number, one in enumerate([first, *rest]):
            similarities, numbers = one.result(20)
            assert similarities.tolist() == [number] * (2 if number == 0 else 1 + number % 3)
            assert numbers.tolist() == list(range(len(similarities)))
    owner.close()
    assert index.batches == [1, 8]
    assert index.threads == {"headgate-gpu"}


def test_the_resource_is_opened_and_used_in_the_owners_thread() -> None:
    owner = SearchOwner(lambda: threading.current_thread().name)
    assert owner.run(lambda resource: (resource, threading.current_thread().name)) == ("headgate-gpu",) * 2
    owner.close()


def test_a_resource_that_cannot_be_opened_is_reported_at_once() -> None:
    def fail() -> None:
        raise RuntimeError("no device for the test")

    with pytest.raises(RuntimeError, match="no device"):
        SearchOwner(fail)


def test_a_failed_search_and_a_failed_job_leave_the_owner_working() -> None:
    class Broken:
        def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            raise RuntimeError("broken for the test")

    owner = SearchOwner(lambda: 1)
    with pytest.raises(RuntimeError, match="broken"):
        owner.search(Broken(), vector(1), 1)
    with pytest.raises(ZeroDivisionError):
        owner.run(lambda one: one / 0)
    assert owner.search(Counted(), vector(3), 1)[0].tolist() == [3.0]
    owner.close()


def test_a_search_that_is_not_answered_ends_with_a_timeout() -> None:
    go_on = threading.Event()
    owner = SearchOwner(lambda: None, patience_s=0.01)
    with pytest.raises(TimeoutError):
        owner.search(Counted(go_on), vector(1), 1)
    go_on.set()
    owner.close()


def test_nothing_that_ran_is_held_afterwards() -> None:
    class Traced:
        freed_in = ""

        def __call__(self, resource: None) -> None:
            return None

        def __del__(self) -> None:
            Traced.freed_in = threading.current_thread().name

    owner = SearchOwner(lambda: None)
    owner.forget(Traced())
    owner.run(lambda resource: None)
    assert Traced.freed_in == "headgate-gpu"
    owner.close()
