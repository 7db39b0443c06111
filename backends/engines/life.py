"""One process of an engine, from its claim of memory to its end; a supervisor leads one, or two while it reloads."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

from backends.engines.engine_state import Fault, NoRoom, StopAsked, Timings
from backends.engines.launcher import EngineLauncher
from backends.engines.leases import Leases
from backends.engines.log_ring import LogRing
from backends.engines.memory import MemoryBudget
from backends.engines.orphans import MARKER, forget_group, record_group, sweep_orphans
from backends.engines.probe import EngineProbe, WrongAnswer
from backends.engines.process import EngineProcess, free_port, port_is_free, start_process
from core.clock import Clock

T = TypeVar("T")
UNREADABLE = "\ufffd"
LAST_WORDS_CHARS = 200
LEAST_GRACE_S = 1.0
"""What an engine gets to end after SIGTERM when its requests took all the time to drain."""


class Life:
    """One process; `start` once, and `end` whatever came of it.

    Attributes:
        name: under which its memory is claimed and its process group recorded.
        leases: the requests that are under way on this very process.
        url: where it listens, once it was started.
        is_warming: its endpoint answers, and it is about to generate its first token.
    """

    def __init__(
        self,
        launcher: EngineLauncher,
        name: str,
        clock: Clock,
        state_dir: Path,
        timings: Timings,
        memory: MemoryBudget | None,
        log: LogRing,
        stop: asyncio.Event,
    ) -> None:
        """Prepare; nothing is started.

        Args:
            launcher: how to run the engine.
            name: under which memory is claimed and the process group is recorded.
            clock: for durations.
            state_dir: where that record and the working directory are.
            timings: the patience.
            memory: the device's budget.
            log: gets what the process writes.
            stop: set when nobody wants the engine any more.
        """
        self.leases = Leases(clock)
        self.url: str | None = None
        self.is_warming = False
        self.took_s = 0.0
        self._launcher = launcher
        self._spec = launcher.spec
        self.name = name
        self._clock = clock
        self._folder = state_dir / "engines"
        self._timings = timings
        self._memory = memory
        self._log = log
        self._stop = stop
        self._process: EngineProcess | None = None
        self._probe: EngineProbe | None = None
        self._is_ready = False

    @property
    def group(self) -> int | None:
        """Return the id of the process group, None before the start and after the end."""
        return None if self._process is None else self._process.group

    @property
    def can_sleep(self) -> bool:
        """Tell whether the process can give its memory back and stay."""
        can = self._launcher.capabilities()
        return can.sleep_path is not None and can.wake_path is not None

    async def start(self, on_warming: Callable[[], None] = lambda: None) -> None:
        """Start the process, and wait until it lists its model and has generated a token.

        Raises:
            NoRoom: its memory does not fit beside what others claimed.
            Fault: it did not become ready; the message says why.
            StopAsked: nobody wants it any more.
            ConfigurationError: its weights or its options cannot be used.
        """
        began_s = self._clock.monotonic_s()
        self._log.begin()
        async with AsyncExitStack() as turn:
            await self._await_turn(turn)
            self.claim_memory()
            self._process, self._probe = await self._spawn()
            await self._become_ready(self._process, self._probe, on_warming)
        self._is_ready = True
        self.took_s = self._clock.monotonic_s() - began_s
        self.leases.touch()

    async def is_alive(self) -> bool:
        """Ask the process whether it makes progress.

        Raises:
            Fault: it ended meanwhile.
            StopAsked: nobody wants it any more.
        """
        return await self.unless_over(self._asked.is_alive(self._launcher.capabilities().health_path))

    async def fall_asleep(self) -> None:
        """Let the process give its memory back once nothing is under way; only where it `can_sleep`."""
        await self.leases.wait_idle(self._spec.drain_timeout_s)
        await self._tell(self._launcher.capabilities().sleep_path)
        self._release_memory()

    async def wake_up(self) -> None:
        """End the sleep; ready again when it has generated a token.

        Raises:
            Fault: it does not.
        """
        self.claim_memory()
        await self._tell(self._launcher.capabilities().wake_path)
        try:
            await self.unless_over(self._asked.generates(self._spec.model, self._spec.start_timeout_s))
        except WrongAnswer as wrong:
            raise Fault(f"after its sleep the engine {wrong}; it is started again") from wrong
        self.leases.touch()

    async def drain(self, patience_s: float) -> None:
        """Wait until nothing is under way, then ask the process to end, and give it the rest of the recipe's time.

        Args:
            patience_s: how long to wait; once a stop is asked for, the recipe's drain time bounds it.
        """
        process = self._process
        if process is None:
            return
        await self._wait_idle(patience_s)
        began_s = self._clock.monotonic_s()
        if self._stop.is_set():
            await self.leases.wait_idle(self._spec.drain_timeout_s)
        process.terminate(alone=self._launcher.capabilities().drains_on_sigterm)
        left_s = self._spec.drain_timeout_s - (self._clock.monotonic_s() - began_s)
        await asyncio.wait((process.exited,), timeout=max(LEAST_GRACE_S, left_s))

    async def end(self) -> None:
        """Leave nothing of it: no process, no record, no claim."""
        if self._probe is not None:
            await self._probe.close()
        if self._process is not None:
            await self._process.end()
            forget_group(self._record)
            self._process = None
        self._release_memory()

    async def unless_over(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work`, unless the process ends or a stop is asked for before it is done.

        Raises:
            Fault: the process ended.
            StopAsked: a stop was asked for.
        """
        assert self._process is not None, "only a life that was started can be over"
        working = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((working, stopping, self._process.exited), return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                raise StopAsked
            if working.done():
                return working.result()
            raise Fault(self._epitaph(self._process.exited.result()))
        finally:
            working.cancel()
            stopping.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)

    def claim_memory(self) -> None:
        """Claim what the recipe declares.

        Raises:
            NoRoom: it does not fit beside what others claimed.
        """
        if self._memory is None:
            return
        shortfall = self._memory.shortfall(self.name, self._spec.memory_bytes, self._spec.devices)
        if shortfall is not None:
            raise NoRoom(f"{shortfall}; lower memory_bytes, or host fewer engines on this device")

    @property
    def _asked(self) -> EngineProbe:
        assert self._probe is not None, "only a life that was started can be asked"
        return self._probe

    async def _await_turn(self, turn: AsyncExitStack) -> None:
        """Wait until no other engine is starting on the same GPU: each measures what is free there while it starts."""
        if self._memory is None:
            return
        waiting = asyncio.create_task(turn.enter_async_context(self._memory.turn(self._spec.devices)))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise StopAsked
        finally:
            stopping.cancel()
            if not waiting.done():
                waiting.cancel()
            await asyncio.gather(waiting, stopping, return_exceptions=True)

    async def _spawn(self) -> tuple[EngineProcess, EngineProbe]:
        scratch = self._folder / self.name
        scratch.mkdir(parents=True, exist_ok=True)
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
        self.url = f"http://127.0.0.1:{port}"
        return process, EngineProbe(self.url, self._timings.probe_timeout_s)

    async def _become_ready(self, process: EngineProcess, probe: EngineProbe, on_warming: Callable[[], None]) -> None:
        """Wait until the endpoint answers, lists the model, and has generated a token."""
        try:
            async with asyncio.timeout(self._spec.start_timeout_s):
                while not await self.unless_over(probe.lists(self._spec.model)):
                    await self.unless_over(asyncio.sleep(self._timings.poll_s))
                self.is_warming = True
                on_warming()
                await self.unless_over(probe.generates(self._spec.model, self._spec.start_timeout_s))
        except TimeoutError as late:
            doing = "generate a token" if self.is_warming else "answer"
            raise Fault(
                f"the engine did not {doing} within {self._spec.start_timeout_s:g} s{self._last_words()}; "
                "raise start_timeout_s in the recipe, or see the engine's log"
            ) from late
        except WrongAnswer as wrong:
            raise Fault(f"the engine {wrong}; correct the recipe's model or weights") from wrong

    async def _wait_idle(self, patience_s: float) -> None:
        """Wait until nothing is under way, a stop is asked for, or the patience is over."""
        idle = asyncio.create_task(self.leases.wait_idle(patience_s))
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait((idle, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (idle, stopping):
            task.cancel()
        await asyncio.gather(idle, stopping, return_exceptions=True)

    async def _tell(self, path: str | None) -> None:
        assert path is not None, "only engines that can sleep are told to"
        if not await self.unless_over(self._asked.tell(path, self._spec.start_timeout_s)):
            raise Fault(f"the engine refuses {path}; leave sleep_mode out of the recipe, or see the engine's log")

    def _release_memory(self) -> None:
        if self._memory is not None:
            self._memory.release(self.name)

    def _port(self) -> int:
        if self._spec.port is None:
            return free_port()
        if not port_is_free(self._spec.port):
            raise Fault(f"port {self._spec.port} is in use; stop its user, or leave `port` out of the recipe")
        return self._spec.port

    @property
    def _record(self) -> Path:
        return self._folder / f"{self.name}.json"

    def _epitaph(self, status: int) -> str:
        how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
        when = "while serving" if self._is_ready else "before it was ready"
        return f"the engine {how} {when}{self._last_words()}; see the engine's log"

    def _last_words(self) -> str:
        last = self._log.last().replace(UNREADABLE, "")[:LAST_WORDS_CHARS]
        return f" ({last})" if last else ""
