"""The supervisor against real processes: start, failure, restart, stop, and what must not be left behind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx
import msgspec
import pytest

from backends.engines.engine_state import EngineState, Timings
from backends.engines.launcher import Capabilities, EngineSpec
from backends.engines.memory import MemoryBudget
from backends.engines.orphans import MARKER, GroupRecord, record_group, sweep_orphans
from backends.engines.supervisor import Supervisor
from core.clock import Clock, ManualClock, SystemClock
from core.errors import ConfigurationError

FAKE = Path(__file__).parent / "fake_engine.py"
QUICK = Timings(
    restart_base_s=0.02,
    restart_limit_s=0.05,
    jitter_ratio=0,
    healthy_after_s=0.1,
    poll_s=0.02,
    probe_interval_s=0.02,
    probe_timeout_s=5,
    probe_misses=2,
)
PATIENCE_S = 30


class FakeLauncher:
    """Launches the fake engine; `modes` are used one after the other, the last one for ever."""

    def __init__(
        self, *modes: str, spec: EngineSpec | None = None, unhealthy_file: Path | None = None, can_sleep: bool = False
    ) -> None:
        self._can_sleep = can_sleep
        self._spec = spec or make_spec()
        self._modes = list(modes) or ["healthy"]
        self._unhealthy_file = unhealthy_file
        self.commands: list[tuple[str, ...]] = []

    @property
    def spec(self) -> EngineSpec:
        return self._spec

    def command(self, port: int) -> tuple[str, ...]:
        mode = self._modes.pop(0) if len(self._modes) > 1 else self._modes[0]
        if mode == "refuse":
            raise ConfigurationError(f"recipe {self._spec.name}", "weights", "the folder is gone", "bring it back")
        if mode == "no-program":
            return ("/nowhere/engine",)
        extra = () if self._unhealthy_file is None else (f"--unhealthy-file={self._unhealthy_file}",)
        model = f"--model={self._spec.model}"
        self.commands.append((sys.executable, str(FAKE), f"--port={port}", model, f"--mode={mode}", *extra))
        return self.commands[-1]

    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "PYTHONSAFEPATH": "1"}

    def capabilities(self) -> Capabilities:
        paths = ("/sleep?level=1", "/wake_up") if self._can_sleep else (None, None)
        return Capabilities("/health", False, False, True, *paths)


def make_spec(**changes: object) -> EngineSpec:
    fields: dict[str, object] = {
        "name": "fake",
        "model": "fake-1",
        "model_dir": Path("/nowhere"),
        "precision": "int4",
        "memory_bytes": 1000,
        "context_tokens": 100,
        "max_output_tokens": 10,
        "start_timeout_s": float(PATIENCE_S),
        "drain_timeout_s": 5.0,
    }
    return EngineSpec(**(fields | changes))  # type: ignore[arg-type]


class Watched:
    """A supervisor together with the states that it went through."""

    def __init__(
        self,
        launcher: FakeLauncher,
        state_dir: Path,
        clock: Clock | None = None,
        timings: Timings = QUICK,
        memory: MemoryBudget | None = None,
        name: str | None = None,
    ) -> None:
        self.states: list[EngineState] = []
        self.addresses: list[str | None] = []
        self._changed = asyncio.Event()
        self.supervisor = Supervisor(
            launcher,
            clock or SystemClock(),
            state_dir,
            name=name,
            timings=timings,
            memory=memory,
            on_change=self._note,
        )

    def _note(self, state: EngineState) -> None:
        self.states.append(state)
        self.addresses.append(self.supervisor.base_url)
        self._changed.set()

    async def until(self, state: EngineState, times: int = 1) -> None:
        await self.until_true(lambda: self.states.count(state) >= times)

    async def until_true(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not fact():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def running(launcher: FakeLauncher, state_dir: Path, **more: object) -> AsyncIterator[Watched]:
    watched = Watched(launcher, state_dir, **more)  # type: ignore[arg-type]
    watched.supervisor.start()
    try:
        yield watched
    finally:
        await watched.supervisor.stop()


def processes_of(*wanted: str) -> list[int]:
    """Return the processes whose command line holds every one of `wanted`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if all(part in line for part in wanted):
            found.append(int(entry.name))
    return found


def stat_fields(pid: int) -> list[str]:
    """Return `/proc/PID/stat` from the state on; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def group_members(group: int) -> list[int]:
    alive = {int(entry.name): stat_fields(int(entry.name)) for entry in Path("/proc").glob("[0-9]*")}
    return [pid for pid, fields in alive.items() if fields and int(fields[2]) == group and fields[0] != "Z"]


def engine_pid(launcher: FakeLauncher) -> int:
    (pid,) = processes_of(str(FAKE), launcher.commands[-1][2])
    return pid


async def eventually(fact: Callable[[], bool]) -> None:
    """Wait for what no change of state announces."""
    async with asyncio.timeout(PATIENCE_S):
        while not fact():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)


async def test_a_healthy_engine_becomes_ready_and_stops_without_a_trace(tmp_path: Path) -> None:
    launcher = FakeLauncher()
    async with running(launcher, tmp_path) as watched:
        assert await watched.supervisor.wait_ready(PATIENCE_S)
        base_url = watched.supervisor.base_url
        async with httpx.AsyncClient(trust_env=False) as client:
            listed = await client.get(f"{base_url}/models")
        assert listed.json()["data"][0]["id"] == watched.supervisor.model == "fake-1"
        assert watched.supervisor.retry_after_s == 0
        group = engine_pid(launcher)
    assert watched.states == [
        EngineState.STARTING,
        EngineState.WARMING,
        EngineState.READY,
        EngineState.DRAINING,
        EngineState.STOPPED,
    ]
    assert watched.supervisor.base_url is None
    assert group_members(group) == []
    assert not (tmp_path / "engines" / "fake.json").exists()


async def test_the_engine_runs_outside_the_source_tree_in_a_group_of_its_own(tmp_path: Path) -> None:
    launcher = FakeLauncher()
    async with running(launcher, tmp_path) as watched:
        await watched.until(EngineState.READY)
        pid = engine_pid(launcher)
        assert os.readlink(f"/proc/{pid}/cwd") == os.fspath(tmp_path / "engines" / "fake")
        assert os.getpgid(pid) == pid


async def test_an_engine_killed_with_signal_9_is_started_again(tmp_path: Path) -> None:
    launcher = FakeLauncher()
    async with running(launcher, tmp_path) as watched:
        await watched.until(EngineState.READY)
        os.kill(engine_pid(launcher), signal.SIGKILL)
        await watched.until(EngineState.READY, times=2)
        assert watched.states.count(EngineState.FAILED) == 1
        assert watched.supervisor.restarts == 1
        known = dict(zip(watched.states, watched.addresses, strict=True))
        assert known[EngineState.READY] == watched.supervisor.base_url
        assert {known[state] for state in watched.states if state is not EngineState.READY} == {None}
        assert any("recipe fake: the engine was killed by signal 9" in line for line in watched.supervisor.logs())


async def test_a_child_of_a_killed_engine_does_not_survive_it(tmp_path: Path) -> None:
    launcher = FakeLauncher("family")
    async with running(launcher, tmp_path) as watched:
        await watched.until(EngineState.READY)
        group = engine_pid(launcher)
        assert len(group_members(group)) == 2
        os.kill(group, signal.SIGKILL)
        await watched.until(EngineState.READY, times=2)
        assert group_members(group) == []
        second = engine_pid(launcher)
    assert group_members(second) == []


async def test_an_engine_that_ignores_sigterm_is_killed_after_the_drain_time(tmp_path: Path) -> None:
    launcher = FakeLauncher("stubborn", spec=make_spec(drain_timeout_s=0.1))
    async with running(launcher, tmp_path) as watched:
        await watched.until(EngineState.READY)
        group = engine_pid(launcher)
    assert group_members(group) == []


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("hang", "did not answer within 0.5 s (fake engine speaking); raise start_timeout_s"),
        ("hang-in-warm-up", "did not generate a token within 0.5 s"),
        ("garbage", "answers /v1/models with something other than a list of models; correct the recipe's model"),
        ("wrong-model", "serves another-model instead of fake-1; correct the recipe's model"),
        ("garbage-in-warm-up", "answers its first chat request with something other than a completion"),
        ("error-in-warm-up", "answers its first chat request with status 500"),
        ("exit", "exited with status 3 before it was ready (error: the weights are made of cheese)"),
        ("refuse", "weights: the folder is gone; bring it back"),
        ("no-program", "/nowhere/engine cannot be run: No such file or directory"),
    ],
)
async def test_an_engine_that_cannot_become_ready_says_why_in_one_line(tmp_path: Path, mode: str, words: str) -> None:
    launcher = FakeLauncher(mode, spec=make_spec(start_timeout_s=0.5 if mode.startswith("hang") else 20.0))
    async with running(launcher, tmp_path) as watched:
        await watched.until(EngineState.FAILED)
        error = watched.supervisor.last_error
        assert error is not None
        assert words in error
        assert error.startswith("recipe fake: ")
        assert "\n" not in error
        assert watched.supervisor.base_url is None
    assert all(group_members(pid) == [] for pid in processes_of(str(FAKE), f"--mode={mode}"))


async def test_an_engine_recovers_when_the_cause_of_its_failures_is_gone(tmp_path: Path) -> None:
    async with running(FakeLauncher("refuse", "exit", "garbage", "healthy"), tmp_path) as watched:
        await watched.until(EngineState.READY)
        assert watched.supervisor.failures == 3
        assert watched.supervisor.last_error is None


async def test_health_forgives_earlier_failures(tmp_path: Path) -> None:
    async with running(FakeLauncher("exit", "healthy"), tmp_path) as watched:
        await watched.until(EngineState.READY)
        async with asyncio.timeout(PATIENCE_S):
            while watched.supervisor.failures:  # noqa: ASYNC110 - forgiving is no state, so nothing announces it
                await asyncio.sleep(QUICK.probe_interval_s)


async def test_an_engine_that_stops_making_progress_is_replaced(tmp_path: Path) -> None:
    unhealthy = tmp_path / "unhealthy"
    launcher = FakeLauncher(unhealthy_file=unhealthy)
    async with running(launcher, tmp_path) as watched:
        await watched.until(EngineState.READY)
        stalled = engine_pid(launcher)
        unhealthy.touch()
        await watched.until(EngineState.FAILED)
        assert "the engine failed 2 probes of /health in a row" in (watched.supervisor.last_error or "")
        unhealthy.unlink()
        await watched.until(EngineState.READY, times=2)
        assert group_members(stalled) == []


@pytest.mark.parametrize("can_sleep", [True, False], ids=["by its sleep mode", "by ending"])
async def test_a_sleeping_engine_gives_its_memory_back_and_wakes_when_it_is_wanted(
    tmp_path: Path, can_sleep: bool
) -> None:
    memory = MemoryBudget(lambda _: 2000)
    async with running(FakeLauncher(can_sleep=can_sleep), tmp_path, memory=memory) as watched:
        await watched.until(EngineState.READY)
        awake = watched.supervisor.group
        watched.supervisor.sleep()
        await watched.until(EngineState.SLEEPING)
        await eventually(lambda: memory.claims("cpu") == {})
        assert watched.supervisor.base_url is None
        assert watched.supervisor.retry_after_s >= 1
        watched.supervisor.wake()
        await watched.until(EngineState.READY, times=2)
        assert memory.claims("cpu") == {"fake": 1000}
        assert (watched.supervisor.group == awake) is can_sleep
        assert watched.supervisor.failures == 0


async def test_an_engine_sleeps_when_nobody_used_it_for_long_enough(tmp_path: Path) -> None:
    async with running(FakeLauncher(spec=make_spec(sleep_after_s=0.05)), tmp_path) as watched:
        await watched.until(EngineState.READY)
        with watched.supervisor.leases.taken():
            assert watched.supervisor.leases.idle_s == 0
        await watched.until(EngineState.SLEEPING)


async def test_an_engine_does_not_sleep_under_a_request(tmp_path: Path) -> None:
    async with running(FakeLauncher(), tmp_path) as watched:
        await watched.until(EngineState.READY)
        with watched.supervisor.leases.taken():
            watched.supervisor.sleep()
            await watched.until(EngineState.DRAINING)
            assert watched.supervisor.group is not None
        await watched.until(EngineState.SLEEPING)
        assert watched.supervisor.group is None


async def test_an_engine_that_cannot_fall_asleep_says_so_and_is_started_again(tmp_path: Path) -> None:
    async with running(FakeLauncher("insomniac", "healthy", can_sleep=True), tmp_path) as watched:
        await watched.until(EngineState.READY)
        watched.supervisor.sleep()
        await watched.until(EngineState.FAILED)
        assert "the engine refuses /sleep?level=1; leave sleep_mode out" in (watched.supervisor.last_error or "")
        watched.supervisor.wake()
        await watched.until(EngineState.READY, times=2)


async def test_a_restart_drains_and_counts_as_no_failure(tmp_path: Path) -> None:
    async with running(FakeLauncher(), tmp_path) as watched:
        await watched.until(EngineState.READY)
        before = watched.supervisor.group
        watched.supervisor.restart()
        await watched.until(EngineState.READY, times=2)
        assert EngineState.DRAINING in watched.states
        assert EngineState.FAILED not in watched.states
        assert watched.supervisor.group != before


async def test_engines_of_one_gpu_start_one_after_the_other(tmp_path: Path) -> None:
    memory = MemoryBudget(lambda _: 100_000)
    on_gpu = {"devices": ("cuda:0",)}
    async with running(FakeLauncher("hang", spec=make_spec(name="first", **on_gpu)), tmp_path, memory=memory) as first:
        await eventually(lambda: first.supervisor.group is not None)
        async with running(FakeLauncher(spec=make_spec(name="second", **on_gpu)), tmp_path, memory=memory) as second:
            await second.until(EngineState.STARTING)
            assert not await second.supervisor.wait_ready(0.3)
            assert memory.claims("cuda:0") == {"first": 1000}
            await first.supervisor.stop()
            await second.until(EngineState.READY)


async def test_noise_on_the_output_is_bounded_and_printable(tmp_path: Path) -> None:
    async with running(FakeLauncher("noise"), tmp_path) as watched:
        await watched.until(EngineState.READY)
        lines = watched.supervisor.logs()
        assert any("red" in line for line in lines)
        assert all(line.isprintable() and len(line) <= 500 for line in lines)


async def test_a_fixed_port_in_use_is_named(tmp_path: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with running(FakeLauncher(spec=make_spec(port=port)), tmp_path) as watched:
            await watched.until(EngineState.FAILED)
            assert f"recipe fake: port {port} is in use" in (watched.supervisor.last_error or "")


async def test_an_engine_that_does_not_fit_beside_the_others_is_not_started(tmp_path: Path) -> None:
    memory = MemoryBudget(lambda _: 2000)
    assert memory.shortfall("large", 1500) is None
    launcher = FakeLauncher()
    async with running(launcher, tmp_path, memory=memory) as watched:
        await watched.until(EngineState.FAILED)
        assert "recipe fake: declares" in (watched.supervisor.last_error or "")
        assert launcher.commands == []
        memory.release("large")
        await watched.until(EngineState.READY)


async def test_the_wait_is_estimated_from_the_expected_start_and_then_from_the_measured_one(tmp_path: Path) -> None:
    clock = ManualClock()
    launcher = FakeLauncher("hang", spec=make_spec(expected_start_s=8.0, start_timeout_s=300.0))
    async with running(launcher, tmp_path, clock=clock) as watched:
        await watched.until(EngineState.STARTING)
        assert watched.supervisor.retry_after_s == 8.0
        clock.advance(6)
        assert watched.supervisor.retry_after_s == 2.0
        clock.advance(34)
        assert watched.supervisor.retry_after_s == 20.0


async def test_the_wait_of_a_failed_engine_includes_its_back_off(tmp_path: Path) -> None:
    timings = Timings(restart_base_s=10, jitter_ratio=0)
    launcher = FakeLauncher("refuse", spec=make_spec(expected_start_s=8.0))
    async with running(launcher, tmp_path, clock=ManualClock(), timings=timings) as watched:
        await watched.until(EngineState.FAILED, times=2)
        assert watched.supervisor.failures == 2
        assert watched.supervisor.retry_after_s == 18.0


async def test_waiting_for_an_engine_that_hangs_ends_in_time(tmp_path: Path) -> None:
    async with running(FakeLauncher("hang"), tmp_path) as watched:
        assert not await watched.supervisor.wait_ready(0.1)


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ignores SIGTERM and carries a marker, as a killed gateway leaves behind."""
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    with subprocess.Popen(
        [sys.executable, "-c", script], start_new_session=True, env={MARKER: "m1"}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


async def test_an_orphan_of_an_earlier_run_is_ended_before_the_start(
    tmp_path: Path, orphan: subprocess.Popen[bytes]
) -> None:
    record = tmp_path / "engines" / "fake.json"
    record.parent.mkdir()
    record.write_bytes(msgspec.json.encode(GroupRecord(orphan.pid, "m1", os.getpid(), owner_started=1)))
    async with running(FakeLauncher(), tmp_path) as watched:
        await watched.until(EngineState.READY)
        assert orphan.wait(PATIENCE_S) == -signal.SIGKILL


async def test_two_engines_of_one_name_are_not_run_at_once(tmp_path: Path) -> None:
    async with running(FakeLauncher(), tmp_path) as first:
        await first.until(EngineState.READY)
        async with running(FakeLauncher(), tmp_path) as second:
            await second.until(EngineState.FAILED)
            assert "runs this engine already" in (second.supervisor.last_error or "")
        async with running(FakeLauncher(), tmp_path, name="fake-2") as third:
            await third.until(EngineState.READY)
        assert first.states[-1] is EngineState.READY


async def test_a_process_that_merely_reuses_the_recorded_id_is_left_alone(
    tmp_path: Path, orphan: subprocess.Popen[bytes]
) -> None:
    record = tmp_path / "fake.json"
    record_group(record, orphan.pid, "another marker")
    assert await sweep_orphans(record) == 0
    assert orphan.poll() is None


async def test_the_engine_of_a_gateway_that_still_runs_is_left_alone(
    tmp_path: Path, orphan: subprocess.Popen[bytes]
) -> None:
    record = tmp_path / "fake.json"
    owner = os.getppid()
    record.write_bytes(msgspec.json.encode(GroupRecord(orphan.pid, "m1", owner, int(stat_fields(owner)[19]))))
    with pytest.raises(ConfigurationError, match=f"the process {owner} runs this engine already; stop that gateway"):
        await sweep_orphans(record)
    assert orphan.poll() is None
