"""The processes before and after the one that serves: its successor while a reload starts it, and those it replaced."""

import asyncio
from collections.abc import Callable

from backends.engines.engine_state import Fault, NoRoom, Reload, Timings
from backends.engines.life import Life
from backends.engines.log_ring import LogRing
from backends.shielded import uninterrupted
from core.errors import ConfigurationError

Unready = Fault | ConfigurationError


class Succession:
    """At most one successor starts, and at most one predecessor drains, at a time."""

    def __init__(self, timings: Timings, log: LogRing, poke: asyncio.Event) -> None:
        """Replace nothing yet; `poke` is set when a successor is ready, or has failed."""
        self.reload = Reload("none", 0)
        self._timings = timings
        self._log = log
        self._poke = poke
        self._coming: asyncio.Task[tuple[Life, Unready | None]] | None = None
        self._retiring: dict[asyncio.Task[None], Life] = {}

    @property
    def is_coming(self) -> bool:
        """Tell whether a successor is starting or waits to be taken."""
        return self._coming is not None

    @property
    def requests(self) -> int:
        """Return how many requests are under way on processes that were replaced."""
        return sum(life.leases.count for life in self._retiring.values())

    def names(self) -> frozenset[str]:
        """Return the names under which replaced processes still hold memory and records."""
        return frozenset(life.name for life in self._retiring.values())

    def start(self, conceive: Callable[[], Life]) -> None:
        """Start a successor, made when nothing is left of an earlier predecessor."""
        self.reload = Reload("starting", self.reload.number + 1)
        self._coming = asyncio.create_task(self._bear(conceive))
        self._coming.add_done_callback(lambda _: self._poke.set())

    def take(self) -> Life | None:
        """Return the successor when it is ready; None while it is not, or when it failed, which `reload` then says.

        Raises:
            NoRoom: memory does not hold two.
            StopAsked: nobody wants the engine any more.
        """
        if self._coming is None or not self._coming.done():
            return None
        coming, self._coming = self._coming, None
        successor, problem = coming.result()
        if problem is None:
            return successor
        if isinstance(problem, NoRoom):
            raise problem
        line = " ".join(str(problem).split())
        self.reload = Reload("failed", self.reload.number, line)
        self._log.note(f"the reload failed, the old process goes on serving: {line}")
        return None

    def retire(self, old: Life) -> None:
        """End a process that was replaced when its last request is over."""
        self.reload = Reload("draining", self.reload.number)
        retiring = asyncio.create_task(self._retire(old, self.reload))
        self._retiring[retiring] = old
        retiring.add_done_callback(lambda task: self._retiring.pop(task))

    def in_place(self, why: str) -> None:
        """Note that the process itself is drained and started anew."""
        number = self.reload.number + (self.reload.stage != "starting")
        self.reload = Reload("in place", number)
        self._log.note(f"reloading in place, since {why}")

    def is_ready_again(self) -> None:
        """Note that the engine became ready, which ends a reload in place."""
        if self.reload.stage == "in place":
            self.reload = Reload("done", self.reload.number)

    async def give_up(self) -> None:
        """End a successor that is not ready yet, or was not taken."""
        if self._coming is None:
            return
        coming, self._coming = self._coming, None
        coming.cancel()
        (outcome,) = await asyncio.gather(coming, return_exceptions=True)
        if not isinstance(outcome, BaseException):
            await outcome[0].end()
        self.reload = Reload("failed", self.reload.number, "the engine ended or was stopped meanwhile")

    async def wait_retired(self) -> None:
        """Wait until nothing is left of the processes that were replaced."""
        await asyncio.gather(*self._retiring, return_exceptions=True)

    async def _bear(self, conceive: Callable[[], Life]) -> tuple[Life, Unready | None]:
        await asyncio.gather(*(asyncio.shield(task) for task in self._retiring))
        successor, is_ready = conceive(), False
        try:
            await successor.start()
            is_ready = True
        except (Fault, ConfigurationError) as problem:
            return successor, problem
        finally:
            if not is_ready:
                await uninterrupted(successor.end())
        return successor, None

    async def _retire(self, old: Life, reload: Reload) -> None:
        try:
            await old.drain(self._timings.retire_s)
        finally:
            await uninterrupted(old.end())
            if self.reload is reload:
                self.reload = Reload("done", reload.number)
