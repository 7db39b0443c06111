"""Keeps one engine running: one owner task starts it, proves it ready, watches it, and starts it again.

stopped -> starting -> warming -> ready -> draining -> stopped; whatever goes wrong on the way leads to failed, a wait
that grows with the failures in a row, and starting again. A ready engine may sleep: it gives its memory back, by its
own sleep mode or by ending, until somebody wants it. Failures stay inside: they are states and lines, never exceptions
for the caller, so that the other tiers go on serving.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

from backends.engines.backoff import restart_delay_s
from backends.engines.engine_state import Ended, EngineState, Fault, RestartAsked, SleepAsked, StopAsked, Timings
from backends.engines.launcher import EngineLauncher
from backends.engines.leases import Leases
from backends.engines.log_ring import LogRing
from backends.engines.memory import MemoryBudget
from backends.engines.orphans import MARKER, forget_group, record_group, sweep_orphans
from backends.engines.probe import EngineProbe, WrongAnswer
from backends.engines.process import EngineProcess, free_port, port_is_free, start_process
from core.clock import Clock
from core.errors import ConfigurationError

logger = logging.getLogger("headgate.engine")
T = TypeVar("T")
LEAST_GRACE_S = 1.0
"""What an engine gets to end after SIGTERM when its requests took all the time to drain."""


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
    ) -> None:
        """Prepare; nothing is started.

        Args:
            launcher: how to run the engine.
            clock: for durations.
            state_dir: where the process group is recorded and where engines get their working directory.
            name: unique among the engines of `state_dir`; the recipe's name without it.
            timings: the patience.
            memory: the device's budget, claimed before each start.
            on_change: called with every new state, on the event loop; it must not block.
        """
        self._launcher = launcher
        self._spec = launcher.spec
        self._name = name or launcher.spec.name
        self._clock = clock
        self._state_dir = state_dir
        self._timings = timings or Timings()
        self._memory = memory
        self._on_change = on_change
        self._log = LogRing()
        self._state = EngineState.STOPPED
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._nap = asyncio.Event()
        self._awake = asyncio.Event()
        self._again = False
        self.leases = Leases(clock)
        self._owner: asyncio.Task[None] | None = None
        self._url: str | None = None
        self._group: int | None = None
        self._failures = 0
        self._restarts = 0
        self._last_error: str | None = None
        self._began_s = 0.0
        self._expected_start_s = self._spec.expected_start_s
        self._next_start_s = 0.0

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
    def base_url(self) -> str | None:
        """Return the OpenAI base URL, `/v1` included, while the engine is ready, else None."""
        return f"{self._url}/v1" if self._url and self._state is EngineState.READY else None

    @property
    def metrics_url(self) -> str | None:
        """Return where the engine shows its own metrics while it is ready, else None."""
        return f"{self._url}/metrics" if self._url and self._state is EngineState.READY else None

    @property
    def group(self) -> int | None:
        """Return the id of the engine's process group while it runs, else None."""
        return self._group

    @property
    def failures(self) -> int:
        """Return the failures in a row; a minute of health forgives them."""
        return self._failures

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
        now = self._clock.monotonic_s()
        match self._state:
            case EngineState.READY:
                return 0.0
            case EngineState.STARTING | EngineState.WARMING:
                elapsed = now - self._began_s
                late = elapsed / 2
                left = self._expected_start_s - elapsed
                return max(1.0, left if left > 0 else min(late, self._spec.start_timeout_s - elapsed))
            case EngineState.FAILED:
                return max(1.0, self._next_start_s - now + self._expected_start_s)
            case EngineState.SLEEPING:
                return max(1.0, self._expected_start_s)
            case EngineState.DRAINING | EngineState.STOPPED:
                return self._timings.restart_limit_s if self._stop.is_set() else max(1.0, self._expected_start_s)

    def logs(self) -> tuple[str, ...]:
        """Return the last lines that the engine wrote, oldest first."""
        return self._log.lines()

    def log_after(self, number: int) -> tuple[tuple[str, ...], int]:
        """Return what the engine wrote after line `number`, and the last line's number; see `LogRing.after`."""
        return self._log.after(number)

    def start(self) -> None:
        """Start the owner task, once; it goes on until `stop`."""
        if self._owner is None or self._owner.done():
            self._stop.clear()
            self._owner = asyncio.create_task(self._own(), name=f"engine {self.name}")

    async def stop(self) -> None:
        """Drain, end the whole process group and return when nothing of it is left."""
        self._stop.set()
        if self._owner is not None:
            await asyncio.shield(self._owner)

    def sleep(self) -> None:
        """Give the memory back once nothing is under way; ignored unless the engine is ready."""
        if self._state is EngineState.READY:
            self._awake.clear()
            self._nap.set()

    def wake(self) -> None:
        """End a sleep; ignored when there is none."""
        self._nap.clear()
        self._awake.set()

    def restart(self) -> None:
        """Drain the engine and start it anew; ignored unless it is ready, since every other state does so anyway."""
        if self._state is EngineState.READY:
            self._again = True
            self._nap.set()

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
            while not self._stop.is_set():
                try:
                    await self._live()
                except StopAsked:
                    break
                except SleepAsked:
                    await self._rest()
                    continue
                except RestartAsked:
                    self.wake()
                    continue
                except Ended:
                    pass
                except (Fault, ConfigurationError) as fault:
                    self._fail(str(fault))
                except Exception as bug:
                    logger.exception("engine supervision failed", extra={"engine": self.name})
                    self._fail(f"supervision failed: {type(bug).__name__}: {bug}")
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), self._next_start_s - self._clock.monotonic_s())
                self._restarts += not self._stop.is_set()
        finally:
            self._enter(EngineState.STOPPED)

    async def _live(self) -> None:
        """Lead one process from its start to its end; always raises."""
        self._began_s = self._clock.monotonic_s()
        self._again = False
        self._enter(EngineState.STARTING)
        self._log.begin()
        async with AsyncExitStack() as claimed, AsyncExitStack() as turn:
            await self._await_turn(turn)
            self._claim_memory()
            claimed.callback(self._release_memory)
            scratch = self._scratch()
            await sweep_orphans(self._record)
            port = self._port()
            marker = token_hex(16)
            command = self._launcher.command(port)
            environment = self._launcher.environment() | {MARKER: marker}
            try:
                process = await start_process(command, environment, scratch, self._log)
            except OSError as problem:
                mend = "correct the recipe's command"
                raise Fault(f"{command[0]} cannot be run: {problem.strerror}; {mend}") from problem
            record_group(self._record, process.group, marker)
            await self._accompany(process, port, turn)

    async def _accompany(self, process: EngineProcess, port: int, turn: AsyncExitStack) -> None:
        """See a process through; always raises, and leaves nothing of it."""
        try:
            self._url = f"http://127.0.0.1:{port}"
            self._group = process.group
            async with EngineProbe(self._url, self._timings.probe_timeout_s) as probe:
                await self._become_ready(process, probe)
                await turn.aclose()
                await self._watch(process, probe)
        except (StopAsked, SleepAsked, RestartAsked):
            await self._drain(process)
            raise
        except Fault as fault:
            self._fail(str(fault))  # before the group is ended, so that nobody is sent to a dead engine meanwhile
            raise Ended from fault
        finally:
            self._url = self._group = None
            await process.end()
            forget_group(self._record)

    async def _await_turn(self, turn: AsyncExitStack) -> None:
        """Wait until no other engine is starting on the same GPU: each measures what is free there while it starts."""
        if self._memory is None:
            return
        waiting = asyncio.create_task(turn.enter_async_context(self._memory.turn(self._spec.devices)))
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not waiting.done():
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            raise StopAsked

    async def _become_ready(self, process: EngineProcess, probe: EngineProbe) -> None:
        """Wait until the endpoint answers, lists the model, and has generated a token."""
        try:
            async with asyncio.timeout(self._spec.start_timeout_s):
                while not await self._unless_over(process, probe.lists(self.model)):
                    await self._unless_over(process, asyncio.sleep(self._timings.poll_s))
                self._enter(EngineState.WARMING)
                body = self._launcher.warm_up_body()
                await self._unless_over(process, probe.generates(body, self._spec.start_timeout_s))
        except TimeoutError as late:
            doing = "answer" if self._state is EngineState.STARTING else "generate a token"
            raise Fault(
                f"the engine did not {doing} within {self._spec.start_timeout_s:g} s{self._last_words()}; "
                "raise start_timeout_s in the recipe, or see the engine's log"
            ) from late
        except WrongAnswer as wrong:
            raise Fault(f"the engine {wrong}; correct the recipe's model or weights") from wrong
        self._expected_start_s = self._clock.monotonic_s() - self._began_s
        self._last_error = None
        self._enter(EngineState.READY)

    async def _watch(self, process: EngineProcess, probe: EngineProbe) -> None:
        """Probe until the process ends, stops answering, or somebody wants it stopped; sleep in between when asked."""
        ready_s = self._clock.monotonic_s()
        self.leases.touch()
        health_path = self._launcher.capabilities().health_path
        misses = 0
        while misses < self._timings.probe_misses:
            await self._unless_over(process, self._pause())
            if self._again:
                raise RestartAsked
            if self._nap.is_set():
                await self._sleep(process, probe)
                misses = 0
                continue
            misses = 0 if await self._unless_over(process, probe.is_alive(health_path)) else misses + 1
            if self._clock.monotonic_s() - ready_s >= self._timings.healthy_after_s:
                self._failures = 0
            if self._spec.sleep_after_s is not None and self.leases.idle_s >= self._spec.sleep_after_s:
                self.sleep()
        raise Fault(f"the engine failed {misses} probes of {health_path} in a row; it is started again")

    async def _pause(self) -> None:
        """Wait for the next probe, or until the engine is to sleep."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._nap.wait(), self._timings.probe_interval_s)

    async def _sleep(self, process: EngineProcess, probe: EngineProbe) -> None:
        """Sleep by the engine's own means until it is wanted again; without such means this life ends."""
        can = self._launcher.capabilities()
        if can.sleep_path is None or can.wake_path is None:
            raise SleepAsked
        self._enter(EngineState.SLEEPING)
        await self.leases.wait_idle(self._spec.drain_timeout_s)
        await self._tell(process, probe, can.sleep_path)
        self._release_memory()
        await self._unless_over(process, self._awake.wait())
        self._began_s = self._clock.monotonic_s()
        self._enter(EngineState.WARMING)
        self._claim_memory()
        await self._tell(process, probe, can.wake_path)
        try:
            body = self._launcher.warm_up_body()
            await self._unless_over(process, probe.generates(body, self._spec.start_timeout_s))
        except WrongAnswer as wrong:
            raise Fault(f"after its sleep the engine {wrong}; it is started again") from wrong
        self.leases.touch()
        self._enter(EngineState.READY)

    async def _tell(self, process: EngineProcess, probe: EngineProbe, path: str) -> None:
        if not await self._unless_over(process, probe.tell(path, self._spec.start_timeout_s)):
            raise Fault(f"the engine refuses {path}; leave sleep_mode out of the recipe, or see the engine's log")

    async def _rest(self) -> None:
        """Stay ended until the engine is wanted again or a stop is asked for."""
        self._enter(EngineState.SLEEPING)
        waits = [asyncio.create_task(event.wait()) for event in (self._awake, self._stop)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _unless_over(self, process: EngineProcess, work: Coroutine[Any, Any, T]) -> T:
        """Do `work`, unless the process ends or a stop is asked for before it is done."""
        working = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((working, stopping, process.exited), return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                raise StopAsked
            if working.done():
                return working.result()
            raise Fault(self._epitaph(process.exited.result()))
        finally:
            working.cancel()
            stopping.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)

    async def _drain(self, process: EngineProcess) -> None:
        """Let running requests finish within the recipe's drain time, those first that the gateway knows of."""
        self._enter(EngineState.DRAINING)
        began_s = self._clock.monotonic_s()
        await self.leases.wait_idle(self._spec.drain_timeout_s)
        process.terminate(alone=self._launcher.capabilities().drains_on_sigterm)
        left_s = self._spec.drain_timeout_s - (self._clock.monotonic_s() - began_s)
        await asyncio.wait((process.exited,), timeout=max(LEAST_GRACE_S, left_s))

    def _fail(self, problem: str) -> None:
        self._failures += 1
        timings = self._timings
        delay_s = restart_delay_s(self._failures, timings.restart_base_s, timings.restart_limit_s)
        delay_s *= 1 + timings.jitter_ratio * random.random()  # noqa: S311 - spreads restarts, guards nothing
        self._next_start_s = self._clock.monotonic_s() + delay_s
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
        extra = {"engine": self.name, "recipe": self._spec.name, "state": state.value, "failures": self._failures}
        logger.log(level, "engine state", extra=extra | ({"error": self._last_error} if self._last_error else {}))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if self._on_change is not None:
            self._on_change(state)

    def _claim_memory(self) -> None:
        if self._memory is None:
            return
        shortfall = self._memory.shortfall(self.name, self._spec.memory_bytes, self._spec.devices)
        if shortfall is not None:
            raise Fault(f"{shortfall}; lower memory_bytes, or host fewer engines on this device")

    def _release_memory(self) -> None:
        if self._memory is not None:
            self._memory.release(self.name)

    def _port(self) -> int:
        if self._spec.port is None:
            return free_port()
        if not port_is_free(self._spec.port):
            raise Fault(f"port {self._spec.port} is in use; stop its user, or leave `port` out of the recipe")
        return self._spec.port

    def _scratch(self) -> Path:
        """Return the engine's working directory, which is never the source tree."""
        scratch = self._state_dir / "engines" / self.name
        scratch.mkdir(parents=True, exist_ok=True)
        return scratch

    @property
    def _record(self) -> Path:
        return self._state_dir / "engines" / f"{self.name}.json"

    def _epitaph(self, status: int) -> str:
        how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
        when = "before it was ready" if self._state is not EngineState.READY else "while serving"
        return f"the engine {how} {when}{self._last_words()}; see the engine's log"

    def _last_words(self) -> str:
        last = self._log.last()
        return f" ({last})" if last else ""
