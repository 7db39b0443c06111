"""Engines that do not fit together take turns: batched by engine, each wait bounded, and no request is cut."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from backends.engines.engine_state import EngineState
from backends.engines.memory import MemoryBudget
from backends.engines.supervisor import Supervisor
from backends.engines.swapping import Swapping
from core.clock import ManualClock
from tests.integration.test_supervisor import PATIENCE_S, QUICK, FakeLauncher, eventually, make_spec

WAIT_S = 20.0


@asynccontextmanager
async def two(folder: Path) -> AsyncIterator[tuple[Swapping, Supervisor, Supervisor, ManualClock]]:
    """Run engines `a` and `b` of which memory holds one; `a` is ready."""
    clock, memory = ManualClock(), MemoryBudget(lambda _: 1500)
    specs = {name: make_spec(name=name) for name in "ab"}
    engines = {
        name: Supervisor(
            FakeLauncher(spec=spec), clock, folder, name=name, timings=QUICK, memory=memory, takes_turns=True
        )
        for name, spec in specs.items()
    }
    swapping = Swapping(engines, specs, dict.fromkeys(specs, WAIT_S), memory, clock)
    async with AsyncExitStack() as stack:
        for engine in engines.values():
            stack.push_async_callback(engine.stop)
        engines["a"].start()
        assert await engines["a"].wait_ready(PATIENCE_S)
        engines["b"].start()
        await eventually(lambda: engines["b"].state is EngineState.SLEEPING)
        yield swapping, engines["a"], engines["b"], clock


async def turns(swapping: Swapping, engine: Supervisor) -> None:
    """Look again and again until it is the engine's turn."""

    def its_turn() -> bool:
        swapping.look()
        return engine.state is EngineState.READY

    await eventually(its_turn)


async def test_who_does_not_fit_waits_asleep_and_nobody_swaps_unasked(tmp_path: Path) -> None:
    async with two(tmp_path) as (swapping, a, b, _):
        swapping.look()
        assert (a.state, b.state, b.failures) == (EngineState.READY, EngineState.SLEEPING, 0)


async def test_an_idle_engine_gives_way_at_once(tmp_path: Path) -> None:
    async with two(tmp_path) as (swapping, a, b, clock):
        clock.advance(1)
        swapping.want("b")
        assert swapping.wait_s("b") == WAIT_S
        await turns(swapping, b)
        assert a.state is EngineState.SLEEPING
        assert a.failures == b.failures == 0


async def test_a_busy_engine_keeps_its_turn_until_others_have_waited_long_enough_and_then_drains(
    tmp_path: Path,
) -> None:
    async with two(tmp_path) as (swapping, a, b, clock):
        with a.leases.taken():
            swapping.want("b")
            clock.advance(WAIT_S - 1)
            swapping.look()
            assert a.base_url is not None
            assert swapping.wait_s("b") == 1
            clock.advance(1)
            swapping.look()
            await eventually(lambda: a.state is EngineState.DRAINING)
            swapping.want("a")
            assert b.state is EngineState.SLEEPING
            assert a.group is not None
        await turns(swapping, b)
        with b.leases.taken():
            swapping.look()
            assert b.base_url is not None
            clock.advance(WAIT_S)
            swapping.look()
        await turns(swapping, a)


async def test_an_engine_too_large_for_the_device_fails_with_its_line(tmp_path: Path) -> None:
    memory = MemoryBudget(lambda _: 500)
    engine = Supervisor(FakeLauncher(), ManualClock(), tmp_path, timings=QUICK, memory=memory, takes_turns=True)
    engine.start()
    await eventually(lambda: engine.state is EngineState.FAILED)
    assert "lower memory_bytes" in (engine.last_error or "")
    await engine.stop()
