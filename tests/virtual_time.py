"""An event loop whose time jumps to the next timer when nothing else is to do: minutes of load in a second, the same
in every run."""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualClock:
    """The time of a virtual loop, as the gateway's code asks for it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic_s(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def unix_s(self) -> float:
        return self.now().timestamp()


class _Selector(selectors.DefaultSelector):
    clock: VirtualClock

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self.clock.seconds += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualClock) -> None:
        selector = _Selector()
        selector.clock = clock
        self._virtual = clock
        super().__init__(selector)

    def time(self) -> float:
        return self._virtual.seconds


def run_in_virtual_time(work: Coroutine[Any, Any, T], clock: VirtualClock) -> T:
    """Run `work` to its end on a loop whose time is `clock`'s."""
    with asyncio.Runner(loop_factory=lambda: _Loop(clock)) as runner:
        return runner.run(work)
