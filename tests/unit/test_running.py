"""Requests that are ended from outside, by their client or by a shutdown."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from litestar.types import HTTPScope

from core.errors import ClientGone, HeadgateError, Unavailable, reason_of
from gateway.wire.line import CONNECTION
from gateway.wire.running import RunningRequests

SCOPE = cast(HTTPScope, {"extensions": {}})


class Handled:
    """One request that waits for ever inside a `finally`-guarded body, and what became of it."""

    def __init__(self, running: RunningRequests, *, complete: bool = False) -> None:
        self.begun = asyncio.Event()
        self.release = asyncio.Event()
        self.arrived_as: HeadgateError | None = None
        self.ended_by: HeadgateError | None = None
        self.task = asyncio.create_task(self._run(running, complete=complete))

    async def _run(self, running: RunningRequests, *, complete: bool) -> None:
        with running.entered() as request:
            try:
                with request.interruptible():
                    if complete:
                        request.completed()
                    self.begun.set()
                    try:
                        await self.release.wait()
                    except asyncio.CancelledError as cancelled:
                        self.arrived_as = reason_of(cancelled)
                        raise
            except HeadgateError as error:
                self.ended_by = error
                await asyncio.sleep(0)  # what is sent to the client now is not cancelled again


async def test_a_drain_without_requests_ends_at_once() -> None:
    async with asyncio.timeout(10):
        await RunningRequests().drain(3600.0, asyncio.Event())


async def test_a_drain_waits_for_a_request_that_finishes() -> None:
    running = RunningRequests()
    handled = Handled(running)
    await handled.begun.wait()
    draining = asyncio.create_task(running.drain(3600.0, asyncio.Event()))
    await asyncio.sleep(0)
    handled.release.set()
    await draining
    assert (handled.task.done(), handled.ended_by) == (True, None)


async def test_what_runs_when_the_time_is_over_is_ended_with_an_error_and_waited_for() -> None:
    running = RunningRequests()
    handled = [Handled(running) for _ in range(3)]
    await asyncio.gather(*(one.begun.wait() for one in handled))
    await running.drain(0.0, asyncio.Event())
    for one in handled:
        assert isinstance(one.ended_by, Unavailable)
        assert one.arrived_as is one.ended_by
        assert one.task.done()
        assert not one.task.cancelled()


async def test_haste_ends_them_before_the_time_is_over() -> None:
    running = RunningRequests()
    handled = Handled(running)
    await handled.begun.wait()
    hurry = asyncio.Event()
    hurry.set()
    await running.drain(3600.0, hurry)
    assert isinstance(handled.ended_by, Unavailable)


async def test_an_answer_that_is_complete_is_not_taken_back() -> None:
    running = RunningRequests()
    handled = Handled(running, complete=True)
    await handled.begun.wait()
    draining = asyncio.create_task(running.drain(0.0, asyncio.Event()))
    for _ in range(10):
        await asyncio.sleep(0)
    assert running.is_draining
    handled.release.set()
    await draining
    assert handled.ended_by is None


async def test_nothing_new_is_taken_while_draining() -> None:
    running = RunningRequests()
    running.refuse_when_draining()
    await running.drain(0.0, asyncio.Event())
    with pytest.raises(Unavailable):
        running.refuse_when_draining()


async def test_a_client_that_leaves_ends_its_request_and_no_other() -> None:
    running = RunningRequests()
    other = Handled(running)
    await other.begun.wait()

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def serve() -> None:
        with running.entered() as request, request.interruptible(), request.watching(SCOPE, receive):
            await asyncio.Event().wait()

    with pytest.raises(ClientGone):
        await asyncio.create_task(serve())
    assert not other.task.done()
    other.release.set()
    await other.task


async def test_a_listener_that_knows_its_connection_ends_the_request_without_its_messages() -> None:
    calls: list[Callable[[], None] | None] = []
    scope = cast(HTTPScope, {"extensions": {CONNECTION: SimpleNamespace(on_lost=calls.append)}})

    async def receive() -> Any:
        raise AssertionError("nobody reads messages here")

    async def serve() -> None:
        with RunningRequests().entered() as request, request.interruptible(), request.watching(scope, receive):
            await asyncio.Event().wait()

    serving = asyncio.create_task(serve())
    await asyncio.sleep(0)
    (lost,) = calls
    assert lost is not None
    lost()
    with pytest.raises(ClientGone):
        await serving
    assert calls[-1] is None


async def test_a_cancellation_that_nobody_explained_stays_one() -> None:
    handled = Handled(RunningRequests())
    await handled.begun.wait()
    handled.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handled.task
    assert isinstance(handled.arrived_as, ClientGone)
