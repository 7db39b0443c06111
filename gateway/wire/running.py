"""The requests under way, each of which may be ended from outside: by its client going away, or by a shutdown.

Whoever ends a request gives the reason as the message of the cancellation, so that `core.errors.reason_of` finds it
wherever the cancellation arrives; once that has passed every `finally`, the reason is the request's error.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from litestar.types import Receive

from core.errors import ClientGone, HeadgateError, Unavailable

RETRY_S = 1.0
LAST_WORDS_S = 3.0


class RunningRequest:
    """The task of one request, until its answer is complete."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cause: HeadgateError | None = None
        self._is_complete = False

    def completed(self) -> None:
        """Say that the last byte is about to leave: what follows must not be cancelled any more."""
        self._is_complete = True

    def end(self, cause: HeadgateError) -> None:
        """Cancel the request, once; `cause` is what its client is told, if there still is one."""
        if self._cause is None and not self._is_complete:
            self._cause = cause
            self._task.cancel(cause)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raise the cause of `end` in place of the cancellation.

        Raises:
            HeadgateError: somebody ended the request.
        """
        try:
            yield
        except asyncio.CancelledError:
            if self._cause is None:
                raise
            self._task.uncancel()
            raise self._cause from None

    @asynccontextmanager
    async def watching(self, receive: Receive) -> AsyncIterator[None]:
        """End the request when its client closes the connection while the context lasts."""

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self.end(ClientGone("The client closed the connection."))

        watcher = asyncio.create_task(watch())
        try:
            yield
        finally:
            watcher.cancel()


class RunningRequests:
    """Every request under way; a shutdown lets them finish for a while and then ends them, each with its error."""

    def __init__(self) -> None:
        self._requests: set[RunningRequest] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.is_draining = False

    @contextmanager
    def entered(self) -> Iterator[RunningRequest]:
        """Count the current task among the running while the context lasts."""
        request = RunningRequest()
        self._requests.add(request)
        self._idle.clear()
        try:
            yield request
        finally:
            self._requests.discard(request)
            if not self._requests:
                self._idle.set()

    def refuse_when_draining(self) -> None:
        """Refuse what arrives too late.

        Raises:
            Unavailable: the gateway is shutting down.
        """
        if self.is_draining:
            raise shutting_down()

    async def drain(self, timeout_s: float, hurry: asyncio.Event) -> None:
        """Wait until no request runs; after `timeout_s`, or on `hurry`, end those that still do."""
        self.is_draining = True
        waits = [asyncio.create_task(event.wait()) for event in (self._idle, hurry)]
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        for request in self._requests:
            request.end(shutting_down())
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._idle.wait()


def shutting_down() -> Unavailable:
    """Return what a request is told that a shutdown ends or refuses."""
    return Unavailable("The gateway is shutting down.", RETRY_S)
