"""A worker's view of the engines that another worker hosts, over a real Unix socket."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from backends.engines.engine_state import EngineState
from backends.engines.leases import Leases
from core.clock import SystemClock
from core.plan import Readiness
from gateway.hosting.deployments import Hosting
from gateway.hosting.elsewhere import EnginesElsewhere
from gateway.serving import listener
from gateway.settings.listening import Address, bound_socket
from gateway.workers.engine_desk import EngineDesk
from gateway.workers.private import private_app

CLOCK = SystemClock()
URL = "http://127.0.0.1:1/v1"
LIMIT_S = 10.0


class CountingLeases(Leases):
    """Counts how often it was taken."""

    def __init__(self) -> None:
        super().__init__(CLOCK)
        self.taken_times = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        self.taken_times += 1
        with super().taken():
            yield


@dataclass
class Engine:
    """What of a supervisor is asked."""

    state: EngineState = EngineState.READY
    base_url: str | None = URL
    comes_back: bool = False
    leases: CountingLeases = field(default_factory=CountingLeases)


@dataclass
class Hosted:
    """What of a gateway's hosting is asked."""

    supervisors: dict[str, Engine]
    wanted: list[str] = field(default_factory=list)

    def want(self, name: str) -> None:
        self.wanted.append(name)

    def retry_after_s(self, name: str) -> float:
        return 7.0


@asynccontextmanager
async def watching(socket: Path, hosted: Hosted) -> AsyncIterator[EnginesElsewhere]:
    """Let one side answer and the other ask."""
    with bound_socket(Address("", 0, socket)) as bound:
        app = private_app(lambda: (b"", ""), EngineDesk(cast(Hosting, hosted)))
        server = listener(app)
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        elsewhere = EnginesElsewhere(socket, 1, hosted.supervisors, CLOCK)
        asking = asyncio.create_task(elsewhere.run())
        try:
            yield elsewhere
        finally:
            asking.cancel()
            server.should_exit = True
            await asyncio.gather(asking, serving, return_exceptions=True)


async def become(fact: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(LIMIT_S):
        while not fact():  # noqa: ASYNC110 - facts of two loops and a socket have no common event
            await asyncio.sleep(0.01)


async def test_a_worker_learns_where_an_engine_is_and_when_it_moves(tmp_path: Path) -> None:
    engine = Engine()
    async with watching(tmp_path / "s", Hosted({"one": engine})) as elsewhere:
        face = elsewhere.face("one")
        assert face.readiness() is Readiness.LOADING
        await become(lambda: face.readiness() is Readiness.READY)
        assert (face.base_url(), face.retry_after_s()) == (URL, 7.0)
        engine.base_url = "http://127.0.0.1:2/v1"
        await become(lambda: face.base_url() == "http://127.0.0.1:2/v1")


async def test_an_engine_is_held_while_a_request_is_under_way_at_another_worker(tmp_path: Path) -> None:
    engine = Engine()
    async with watching(tmp_path / "s", Hosted({"one": engine})) as elsewhere:
        face = elsewhere.face("one")
        await become(lambda: face.readiness() is Readiness.READY)
        with face.leases().taken():
            await become(lambda: engine.leases.count == 1)
            engine.base_url = "http://127.0.0.1:2/v1"  # it was replaced: what is held stays held
            await become(lambda: face.base_url() != URL)
            assert engine.leases.count == 1
        await become(lambda: engine.leases.count == 0)


async def test_a_request_between_two_reports_counts_as_use(tmp_path: Path) -> None:
    engine = Engine()
    async with watching(tmp_path / "s", Hosted({"one": engine})) as elsewhere:
        face = elsewhere.face("one")
        await become(lambda: face.readiness() is Readiness.READY)
        with face.leases().taken():
            pass
        await become(lambda: engine.leases.taken_times == 1 and engine.leases.count == 0)


async def test_what_a_request_wants_is_told_to_the_host(tmp_path: Path) -> None:
    hosted = Hosted({"one": Engine(EngineState.SLEEPING, None)})
    async with watching(tmp_path / "s", hosted) as elsewhere:
        elsewhere.face("one").wanted()
        await become(lambda: hosted.wanted == ["one"])


async def test_when_the_host_goes_away_its_engines_are_loading(tmp_path: Path) -> None:
    hosted = Hosted({"one": Engine()})
    async with watching(tmp_path / "s", hosted) as elsewhere:
        face = elsewhere.face("one")
        await become(lambda: face.readiness() is Readiness.READY)
    again = asyncio.create_task(elsewhere.run())
    await become(lambda: face.readiness() is Readiness.LOADING and face.base_url() is None)
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)
