"""What remote engines tell of their load, over a real socket."""

import asyncio
import math
from collections.abc import Iterator

import httpx
import pytest

from backends.engines.engine_figures import Figures
from backends.engines.engine_watch import tell
from backends.remote_watch import RemoteWatch
from tests.upstream.process import RunningUpstream, run_upstream

Load = tuple[str, float, float]


@pytest.fixture(scope="module")
def upstream() -> Iterator[RunningUpstream]:
    with run_upstream() as running:
        yield running


async def told_by(url: str) -> list[Load]:
    told: list[Load] = []
    async with httpx.AsyncClient(trust_env=False) as client:
        await RemoteWatch({"one": url}).look(client, "one", lambda *load: told.append(load))
    return told


async def test_an_engines_batch_and_queue_are_told(upstream: RunningUpstream) -> None:
    await asyncio.to_thread(upstream.busy, 8, 40)
    assert await told_by(f"{upstream.url}/metrics") == [("one", 8.0, 40.0)]


@pytest.mark.parametrize("path", ["/healthz", "/nowhere"])
async def test_who_shows_no_metrics_tells_nothing(upstream: RunningUpstream, path: str) -> None:
    assert await told_by(upstream.url + path) == []


@pytest.mark.parametrize("count", [math.nan, math.inf, -1.0])
def test_a_count_that_cannot_be_is_not_believed(count: float) -> None:
    told: list[Load] = []
    for figures in (Figures(running=count), Figures(running=1.0, queued=count), Figures(queued=1.0)):
        tell("one", figures, lambda *load: told.append(load))
    assert told == []


async def test_looking_goes_on_until_it_is_cancelled(upstream: RunningUpstream) -> None:
    told = asyncio.Event()
    watching = asyncio.create_task(RemoteWatch({"one": f"{upstream.url}/metrics"}).run(lambda *load: told.set()))
    async with asyncio.timeout(10):
        await told.wait()
    watching.cancel()
    assert isinstance((await asyncio.gather(watching, return_exceptions=True))[0], asyncio.CancelledError)
