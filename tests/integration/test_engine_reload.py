"""Reloads against real processes: the new one takes over when it is ready, and no request under way is cut."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import httpx
import msgspec

from backends.engines.engine_state import EngineState, Timings
from backends.engines.memory import MemoryBudget
from backends.engines.orphans import GroupRecord
from backends.engines.supervisor import Supervisor
from tests.integration.test_supervisor import (
    PATIENCE_S,
    FakeLauncher,
    eventually,
    group_members,
    make_spec,
    orphan,
    running,
)

__all__ = ["orphan"]


async def reloaded(supervisor: Supervisor, stage: str = "done") -> None:
    number = supervisor.reloading.number
    supervisor.reload()
    await eventually(lambda: supervisor.reloading.number > number and supervisor.reloading.stage == stage)


async def answers(url: str | None) -> int:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.post(f"{url}/chat/completions", json={"model": "fake-1"})).status_code


async def test_a_reload_puts_a_warm_process_in_the_place_of_the_old_one(tmp_path: Path) -> None:
    async with running(FakeLauncher(), tmp_path) as watched:
        await watched.until(EngineState.READY)
        engine = watched.supervisor
        old, url = engine.group, engine.base_url
        await reloaded(engine)
        assert engine.group != old
        assert engine.base_url != url
        assert await answers(engine.base_url) == 200
        assert old is not None
        assert group_members(old) == []
        assert (engine.generation, engine.failures, engine.restarts) == (2, 0, 1)
        assert watched.states == [EngineState.STARTING, EngineState.WARMING, EngineState.READY]


async def test_the_old_process_stays_until_its_last_request_is_over(tmp_path: Path) -> None:
    async with running(FakeLauncher(), tmp_path) as watched:
        await watched.until(EngineState.READY)
        engine = watched.supervisor
        old, url = engine.group, engine.base_url
        assert old is not None
        with engine.leases.taken():
            await reloaded(engine, "draining")
            assert engine.leases.count == 0
            assert engine.requests == 1
            assert await answers(url) == await answers(engine.base_url) == 200
        await eventually(lambda: engine.reloading.stage == "done")
        assert group_members(old) == []


async def test_a_second_reload_waits_for_the_processes_of_the_first(tmp_path: Path) -> None:
    async with running(FakeLauncher(), tmp_path) as watched:
        await watched.until(EngineState.READY)
        engine = watched.supervisor
        with engine.leases.taken():
            await reloaded(engine, "draining")
            await reloaded(engine, "starting")
            assert engine.generation == 2
        await eventually(lambda: engine.generation == 3 and engine.reloading.stage == "done")
        assert engine.failures == 0


async def test_a_reload_that_fails_leaves_the_old_process_serving(tmp_path: Path) -> None:
    async with running(FakeLauncher("healthy", "exit"), tmp_path) as watched:
        await watched.until(EngineState.READY)
        engine = watched.supervisor
        before = engine.group
        await reloaded(engine, "failed")
        assert "the weights are made of cheese" in (engine.reloading.problem or "")
        assert engine.group == before
        assert engine.state is EngineState.READY
        assert engine.failures == 0
        assert await answers(engine.base_url) == 200


async def test_without_memory_for_two_the_engine_drains_and_counts_as_coming_back(tmp_path: Path) -> None:
    memory = MemoryBudget(lambda _: 1500)
    async with running(FakeLauncher(), tmp_path, memory=memory) as watched:
        await watched.until(EngineState.READY)
        engine = watched.supervisor
        with engine.leases.taken():
            await reloaded(engine, "in place")
            await watched.until(EngineState.DRAINING)
            assert engine.comes_back
            assert engine.group is not None
        await watched.until(EngineState.READY, times=2)
        assert engine.reloading.stage == "done"
        assert EngineState.FAILED not in watched.states
        assert memory.claims("cpu") == {"fake": 1000}


async def test_with_memory_for_two_both_are_claimed_and_the_first_given_back(tmp_path: Path) -> None:
    memory = MemoryBudget(lambda _: 2500)
    async with running(FakeLauncher(), tmp_path, memory=memory) as watched:
        await watched.until(EngineState.READY)
        with watched.supervisor.leases.taken():
            await reloaded(watched.supervisor, "draining")
            assert sum(memory.claims("cpu").values()) == 2000
        await eventually(lambda: sum(memory.claims("cpu").values()) == 1000)


async def test_an_engine_that_dies_while_its_successor_starts_is_started_again(tmp_path: Path) -> None:
    async with running(FakeLauncher("healthy", "hang", "healthy"), tmp_path) as watched:
        await watched.until(EngineState.READY)
        engine = watched.supervisor
        await reloaded(engine, "starting")
        await eventually(lambda: (tmp_path / "engines" / "fake~.json").exists())
        assert engine.group is not None
        os.killpg(engine.group, signal.SIGKILL)
        await watched.until(EngineState.READY, times=2)
        assert not (tmp_path / "engines" / "fake~.json").exists()


async def test_a_failed_engine_is_started_at_once(tmp_path: Path) -> None:
    slow = Timings(restart_base_s=600, restart_limit_s=600, poll_s=0.02)
    async with running(FakeLauncher("exit", "exit", "healthy"), tmp_path, timings=slow) as watched:
        await watched.until(EngineState.FAILED, times=2)
        watched.supervisor.reload()
        await watched.until(EngineState.READY)


async def test_stopping_ends_both_processes(tmp_path: Path) -> None:
    async with running(FakeLauncher(spec=make_spec(drain_timeout_s=0.1)), tmp_path) as watched:
        await watched.until(EngineState.READY)
        engine = watched.supervisor
        old = engine.group
        with engine.leases.taken():
            await reloaded(engine, "draining")
            young = engine.group
            await engine.stop()
    assert old is not None
    assert young is not None
    assert group_members(old) == group_members(young) == []
    assert not list((tmp_path / "engines").glob("*.json"))


async def test_what_a_gateway_left_that_was_killed_while_it_reloaded_is_swept(
    tmp_path: Path, orphan: subprocess.Popen[bytes]
) -> None:
    record = tmp_path / "engines" / "fake~.json"
    record.parent.mkdir()
    record.write_bytes(msgspec.json.encode(GroupRecord(orphan.pid, "m1", os.getpid(), owner_started=1)))
    async with running(FakeLauncher(), tmp_path) as watched:
        await watched.until(EngineState.READY)
        assert orphan.wait(PATIENCE_S) == -signal.SIGKILL


async def test_how_long_a_start_takes_is_known_to_the_next_gateway(tmp_path: Path) -> None:
    async with running(FakeLauncher(), tmp_path) as watched:
        await watched.until(EngineState.READY)
        assert watched.supervisor.ready_s >= 0
    launcher = FakeLauncher(spec=make_spec(expected_start_s=500.0))
    async with running(launcher, tmp_path) as watched:
        await watched.until(EngineState.STARTING)
        assert watched.supervisor.retry_after_s < 100


async def test_requests_reach_a_process_that_serves_through_many_reloads(tmp_path: Path) -> None:
    async with running(FakeLauncher(), tmp_path) as watched:
        await watched.until(EngineState.READY)
        engine = watched.supervisor
        statuses: list[int] = []
        is_over = False

        async def ask() -> None:
            while not is_over:
                with engine.leases.taken():
                    statuses.append(await answers(engine.base_url))

        asking = [asyncio.create_task(ask()) for _ in range(3)]
        for _ in range(3):
            await reloaded(engine)
        is_over = True
        await asyncio.gather(*asking)
        assert engine.generation == 4
        assert set(statuses) == {200}
