"""Keeps one engine running: one owner task starts it, proves it ready, watches it, and starts it again.

stopped -> starting -> warming -> ready -> draining -> stopped; whatever goes wrong on the way leads to failed, a wait
that grows with the failures in a row, and starting again. A ready engine may sleep: it gives its memory back, by its
own sleep mode or by ending, until somebody wants it. Failures stay inside: they are states and lines, never exceptions
for the caller, so that the other tiers go on serving.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

from backends.engines.engine_state import (
    Ended,
    EngineState,
    Fault,
    NoRoom,
    Reload,
    RestartAsked,
    SleepAsked,
    StopAsked,
    Timings,
)
from backends.engines.expectation import Expectation
from backends.engines.launcher import EngineLauncher
from backends.engines.leases import Leases
from backends.engines.life import Life
from backends.engines.log_ring import LogRing
from backends.engines.memory import MemoryBudget
from backends.engines.orphans import sweep_orphans
from backends.engines.succession import Succession
from backends.engines.wishes import Wishes
from core.clock import Clock
from core.errors import ConfigurationError

logger = logging.getLogger("headgate.engine")
SECOND = "~"
"""Ends the name of every other process of an engine: while it reloads, two of them run."""


class Supervisor:
    """Owns one engine; its properties may be read at any time from the event loop's thread."""

    def __init__(
        self,
        launcher: EngineLauncher,
        clock: Clock,
        state_dir: Path,
        *,
        name: str | None = None,
        timings: Timings | None = None,
        memory: MemoryBudget | None = None,
        on_change: Callable[[EngineState], None] | None = None,
        takes_turns: bool = False,
    ) -> None:
        """Prepare; nothing is started.

        Args:
            launcher: how to run the engine.
            clock: for durations.
            state_dir: where the process group is recorded and where engines get their working directory.
            name: unique among the engines of `state_dir`; the recipe's name without it.
            timings: the patience.
            memory: the device's budget, claimed before each start.
            takes_turns: where there is no room beside others, sleep until woken instead of failing.
            on_change: called with every new state, on the event loop; it must not block.
        """
        self._launcher = launcher
        self._spec = launcher.spec
        self._name = name or launcher.spec.name
        self._clock = clock
        self._state_dir = state_dir
        self._folder = state_dir / "engines"
        self._timings = timings or Timings()
        self._memory = memory
        self._on_change = on_change
        self._takes_turns = takes_turns
        self._log = LogRing()
        self._state = EngineState.STOPPED
        self._changed = asyncio.Event()
        self._wishes = Wishes()
        self._succession = Succession(self._timings, self._log, self._wishes.poke)
        self._expectation = Expectation(self._spec, self._timings, clock, self._folder / f"{self._name}.start")
        self._life = self._new_life(self._name)
        self._generation = 0
        self._owner: asyncio.Task[None] | None = None
        self._restarts = 0
        self._last_error: str | None = None
        self._ready_s = 0.0

    @property
    def name(self) -> str:
        """Return the engine's name."""
        return self._name

    @property
    def model(self) -> str:
        """Return the name under which the engine serves its weights."""
        return self._spec.model

    @property
    def state(self) -> EngineState:
        """Return where the engine is in its life."""
        return self._state

    @property
    def isolates_prefixes(self) -> bool:
        """Return whether the engine keeps tenants' prefixes apart by `cache_salt`."""
        return self._launcher.capabilities().isolates_prefixes

    @property
    def leases(self) -> Leases:
        """Return the requests under way on the process to which new ones go."""
        return self._life.leases

    @property
    def requests(self) -> int:
        """Return how many requests are under way, those on processes that were replaced included."""
        return self._life.leases.count + self._succession.requests

    @property
    def base_url(self) -> str | None:
        """Return the OpenAI base URL, `/v1` included, while the engine is ready, else None."""
        return f"{self._life.url}/v1" if self._state is EngineState.READY else None

    @property
    def metrics_url(self) -> str | None:
        """Return where the engine shows its own metrics while it is ready, else None."""
        return f"{self._life.url}/metrics" if self._state is EngineState.READY else None

    @property
    def group(self) -> int | None:
        """Return the id of the engine's process group while it runs, else None."""
        return self._life.group

    @property
    def generation(self) -> int:
        """Return how many processes have become ready since `start`."""
        return self._generation

    @property
    def ready_s(self) -> float:
        """Return for how many seconds the present process has been ready, 0 while none is."""
        return self._clock.monotonic_s() - self._ready_s if self._state is EngineState.READY else 0.0

    @property
    def reloading(self) -> Reload:
        """Return how far the last reload came."""
        return self._succession.reload

    @property
    def comes_back(self) -> bool:
        """Tell whether an engine that drains, or had no first start yet, starts at once or when it is wanted."""
        return self._state in (EngineState.DRAINING, EngineState.STOPPED) and not self._wishes.stop.is_set()

    @property
    def failures(self) -> int:
        """Return the failures in a row; a minute of health forgives them."""
        return self._expectation.failures

    @property
    def restarts(self) -> int:
        """Return how often the engine was started again since `start`."""
        return self._restarts

    @property
    def last_error(self) -> str | None:
        """Return one line on the last failure, with the recipe and the mend, or None."""
        return self._last_error

    @property
    def retry_after_s(self) -> float:
        """Estimate when the engine can answer: 0 when ready, else from the last start and the back-off, at least 1."""
        return self._expectation.retry_after_s(self._state, is_wanted=not self._wishes.stop.is_set())

    def logs(self) -> tuple[str, ...]:
        """Return the last lines that the engine wrote, oldest first."""
        return self._log.lines()

    def log_after(self, number: int) -> tuple[tuple[str, ...], int]:
        """Return what the engine wrote after line `number`, and the last line's number; see `LogRing.after`."""
        return self._log.after(number)

    def start(self) -> None:
        """Start the owner task, once; it goes on until `stop`."""
        if self._owner is None or self._owner.done():
            self._wishes.stop.clear()
            self._owner = asyncio.create_task(self._own(), name=f"engine {self.name}")

    async def stop(self) -> None:
        """Drain, end the whole process group and return when nothing of it is left."""
        self._wishes.stop.set()
        if self._owner is not None:
            await asyncio.shield(self._owner)

    def sleep(self) -> None:
        """Give the memory back once nothing is under way; ignored unless the engine is ready and not reloading."""
        if self._state is EngineState.READY and not self._succession.is_coming:
            self._wishes.awake.clear()
            self._wishes.sleep = True
            self._wishes.poke.set()

    def wake(self) -> None:
        """End a sleep; ignored when there is none."""
        self._wishes.sleep = False
        self._wishes.awake.set()

    def restart(self) -> None:
        """Drain the engine and start it anew; ignored unless it is ready, since every other state does so anyway."""
        if self._state is EngineState.READY:
            self._wishes.restart = True
            self._wishes.poke.set()

    def reload(self) -> None:
        """Replace the process without failing a request: a new one is started and warmed, and then takes over.

        A failed engine is started at once. A sleeping one is loaded anew when it wakes; a starting one is new anyway.
        """
        if self._state in (EngineState.READY, EngineState.SLEEPING):
            self._wishes.reload = True
        self._wishes.poke.set()

    async def wait_ready(self, timeout_s: float) -> bool:
        """Wait until the engine is ready; False when it is not in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._state is not EngineState.READY:
                    await self._changed.wait()
        return self._state is EngineState.READY

    async def _own(self) -> None:
        """Live again and again until somebody wants the engine stopped."""
        try:
            while not self._wishes.stop.is_set():
                try:
                    await self._live()
                except StopAsked:
                    break
                except SleepAsked:
                    self._enter(EngineState.SLEEPING)
                    await self._wishes.rest()
                    continue
                except RestartAsked:
                    continue
                except Ended:
                    pass
                except (Fault, ConfigurationError) as fault:
                    self._fail(str(fault))
                except Exception as bug:
                    logger.exception("engine supervision failed", extra={"engine": self.name})
                    self._fail(f"supervision failed: {type(bug).__name__}: {bug}")
                await self._wishes.back_off(self._expectation.back_off_s)
                self._restarts += not self._wishes.stop.is_set()
        finally:
            await self._succession.wait_retired()
            self._enter(EngineState.STOPPED)

    async def _live(self) -> None:
        """Lead a process, and those that replace it while it serves, from start to end; always raises."""
        await self._begin()
        try:
            await self._life.start(partial(self._enter, EngineState.WARMING))
            self._now_ready()
            self._enter(EngineState.READY)
            await self._watch()
        except (StopAsked, SleepAsked, RestartAsked) as asked:
            await self._succession.give_up()
            if self._life.group is not None:
                self._enter(EngineState.DRAINING)
                patience_s = asked.patience_s if isinstance(asked, RestartAsked) else self._timings.retire_s
                await self._life.drain(patience_s)
            raise
        except Fault as fault:
            if isinstance(fault, NoRoom) and self._waits_for_room():
                self._wishes.awake.clear()
                raise SleepAsked from fault
            self._fail(str(fault))  # before the group is ended, so that nobody is sent to a dead engine meanwhile
            raise Ended from fault
        finally:
            await self._succession.give_up()
            await self._life.end()

    def _waits_for_room(self) -> bool:
        fits = self._memory is not None and self._memory.fits_alone(self._spec.memory_bytes, self._spec.devices)
        return self._takes_turns and fits

    async def _begin(self) -> None:
        """Begin with a new process, and with nothing left of a gateway that was killed while it reloaded."""
        self._expectation.began()
        self._wishes.begin_anew()
        self._life = self._another_life()
        self._enter(EngineState.STARTING)
        if not self._succession.names():
            await sweep_orphans(self._folder / f"{self._name}{SECOND}.json")

    def _another_life(self) -> Life:
        """Return the next process, under the one of two names that no other holds."""
        held = self._succession.names() | ({self._life.name} if self._life.group is not None else frozenset())
        return self._new_life(self._name + SECOND if self._name in held else self._name)

    def _new_life(self, name: str) -> Life:
        where = (self._state_dir, self._timings, self._memory, self._log, self._wishes.stop)
        return Life(self._launcher, name, self._clock, *where)

    def _now_ready(self) -> None:
        self._expectation.took(self._life.took_s)
        self._last_error = None
        self._generation += 1
        self._ready_s = self._clock.monotonic_s()

    async def _watch(self) -> None:
        """Probe until the process ends, stops answering, or is wanted otherwise; replace it when asked to."""
        misses = 0
        while misses < self._timings.probe_misses:
            await self._life.unless_over(self._wishes.pause(self._timings.probe_interval_s))
            if self._wishes.restart:
                raise RestartAsked(self._spec.drain_timeout_s)
            if self._wishes.sleep:
                await self._sleep()
                misses = 0
                continue
            if self._wishes.reload or self._succession.is_coming:
                self._reload_further()
                continue
            misses = 0 if await self._life.is_alive() else misses + 1
            if self._clock.monotonic_s() - self._ready_s >= self._timings.healthy_after_s:
                self._expectation.failures = 0
            if self._spec.sleep_after_s is not None and self._life.leases.idle_s >= self._spec.sleep_after_s:
                self.sleep()
        path = self._launcher.capabilities().health_path
        raise Fault(f"the engine failed {misses} probes of {path} in a row; it is started again")

    def _reload_further(self) -> None:
        """Take the next step of a reload: start the successor, or put it in the place of the process.

        Where memory does not hold two, or a recipe fixes the port, the process itself is drained and started anew.

        Raises:
            RestartAsked: that is so.
        """
        self._wishes.reload = False
        if not self._succession.is_coming:
            if self._spec.port is not None:
                self._restart_in_place("its port is fixed")
            self._succession.start(self._another_life)
            return
        try:
            successor = self._succession.take()
        except NoRoom:
            self._restart_in_place("memory does not hold two")
        if successor is not None:
            old, self._life = self._life, successor
            self._restarts += 1
            self._now_ready()
            self._succession.retire(old)
            logger.info("engine replaced", extra={"engine": self.name, "generation": self._generation})

    def _restart_in_place(self, why: str) -> NoReturn:
        self._succession.in_place(why)
        raise RestartAsked(self._timings.retire_s)

    async def _sleep(self) -> None:
        """Sleep by the engine's own means until it is wanted again; without such means this life ends."""
        if not self._life.can_sleep:
            raise SleepAsked
        self._enter(EngineState.SLEEPING)
        await self._life.fall_asleep()
        await self._life.unless_over(self._wishes.awake.wait())
        self._wishes.sleep = False
        if self._wishes.reload:
            raise RestartAsked(0.0)
        self._expectation.began()
        self._enter(EngineState.WARMING)
        await self._life.wake_up()
        self._enter(EngineState.READY)

    def _fail(self, problem: str) -> None:
        self._expectation.failed()
        subject = f"recipe {self._spec.name}: "
        line = problem if problem.startswith(subject) else subject + problem
        self._last_error = " ".join(line.split())
        self._log.note(self._last_error)
        self._enter(EngineState.FAILED)

    def _enter(self, state: EngineState) -> None:
        if state is self._state:
            return
        self._state = state
        level = logging.WARNING if state is EngineState.FAILED else logging.INFO
        extra = {"engine": self.name, "recipe": self._spec.name, "state": state.value, "failures": self.failures}
        logger.log(level, "engine state", extra=extra | ({"error": self._last_error} if self._last_error else {}))
        if state is EngineState.READY:
            self._succession.is_ready_again()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if self._on_change is not None:
            self._on_change(state)
