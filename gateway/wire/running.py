"""The requests under way, each of which may be ended from outside: by its client going away, or by a shutdown.

Whoever ends a request gives the reason as the message of the cancellation, so that `core.errors.reason_of` finds it
wherever the cancellation arrives; once that has passed every `finally`, the reason is the request's error.
"""

import asyncio
from contextlib import suppress
from types import TracebackType

from litestar.types import HTTPScope, Receive

from core.errors import ClientGone, HeadgateError, Unavailable
from gateway.wire.line import line_of

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

    def forget(self) -> None:
        """Let go of the cause, whose traceback leads back here once it was raised."""
        self._cause = None

    def interruptible(self) -> "_Interruptible":
        """Raise the cause of `end` in place of the cancellation.

        Raises:
            HeadgateError: somebody ended the request.
        """
        return _Interruptible(self)

    def raised(self) -> None:
        """Raise the cause in place of a cancellation that has arrived, if there is one."""
        if self._cause is not None:
            self._task.uncancel()
            raise self._cause from None

    def watching(self, scope: HTTPScope, receive: Receive) -> "_Watch":
        """End the request when its client closes the connection while the context lasts."""
        return _Watch(self, scope, receive)


class _Interruptible:
    def __init__(self, request: RunningRequest) -> None:
        self._request = request

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._request.raised()


class _Watch:
    """Our own listeners call when the connection is lost; under any other server a task waits for its message."""

    def __init__(self, request: RunningRequest, scope: HTTPScope, receive: Receive) -> None:
        self._request = request
        self._line = line_of(scope)
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        if self._line is not None:
            self._line.on_lost(self._gone)
        else:
            self._watcher = asyncio.create_task(self._watch())

    def __exit__(self, *_: object) -> None:
        if self._line is not None:
            self._line.on_lost(None)
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone()

    def _gone(self) -> None:
        self._request.end(ClientGone("The client closed the connection."))


class RunningRequests:
    """Every request under way; a shutdown lets them finish for a while and then ends them, each with its error."""

    def __init__(self) -> None:
        self._requests: set[RunningRequest] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.is_draining = False

    def is_idle(self) -> bool:
        """Tell whether no request is under way."""
        return not self._requests

    def entered(self) -> "_Entered":
        """Count the current task among the running while the context lasts."""
        return _Entered(self)

    def add(self) -> RunningRequest:
        """Count the current task until `discard`."""
        request = RunningRequest()
        self._requests.add(request)
        self._idle.clear()
        return request

    def discard(self, request: RunningRequest) -> None:
        """Count it no more."""
        request.forget()
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


class _Entered:
    def __init__(self, requests: RunningRequests) -> None:
        self._requests = requests

    def __enter__(self) -> RunningRequest:
        self._request = self._requests.add()
        return self._request

    def __exit__(self, *_: object) -> None:
        self._requests.discard(self._request)


def shutting_down() -> Unavailable:
    """Return what a request is told that a shutdown ends or refuses."""
    return Unavailable("The gateway is shutting down.", RETRY_S)
