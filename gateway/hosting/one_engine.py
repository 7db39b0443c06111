"""Runs one engine by itself, for commands that measure or try it: ready or a one-line failure, and stopped after."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from backends.engines.engine_state import EngineState
from backends.engines.launcher import EngineLauncher
from backends.engines.supervisor import Supervisor
from core.clock import Clock
from core.errors import ConfigurationError


@asynccontextmanager
async def one_engine(launcher: EngineLauncher, state_dir: Path, clock: Clock) -> AsyncIterator[Supervisor]:
    """Yield the engine when it is ready; what its weights lack is said before anything starts.

    Args:
        launcher: how to run it.
        state_dir: an empty folder of its own, so that a gateway which runs the same recipe is left alone.
        clock: for durations.

    Raises:
        ConfigurationError: it cannot start; one failure is enough.
    """
    launcher.command(port=1)
    failed = asyncio.Event()
    supervisor = Supervisor(
        launcher,
        clock,
        state_dir,
        on_change=lambda state: failed.set() if state is EngineState.FAILED else None,
    )
    supervisor.start()
    try:
        ready = asyncio.create_task(supervisor.wait_ready(2 * launcher.spec.start_timeout_s))
        failing = asyncio.create_task(failed.wait())
        await asyncio.wait((ready, failing), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        failing.cancel()
        await asyncio.gather(ready, failing, return_exceptions=True)
        if supervisor.state is not EngineState.READY:
            problem = supervisor.last_error or "the engine did not become ready"
            raise engine_failure(launcher.spec.name, problem.removeprefix(f"recipe {launcher.spec.name}: "))
        yield supervisor
    finally:
        await supervisor.stop()


def engine_failure(recipe: str, problem: str) -> ConfigurationError:
    """Return one line on why an engine does not do what is asked."""
    line = " ".join(problem.split())[:400]
    return ConfigurationError(f"recipe {recipe}", "", line, f"see `headgate models check {recipe}`, then try again")
