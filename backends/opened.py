"""One try on a deployment as a context: its backend opened, read until the answer begins, and closed at the end."""

import asyncio
from types import TracebackType

from backends.attempt import LiveAnswer
from backends.deployment import Deployment
from backends.protocol import AttemptError, UpstreamCall
from backends.shielded import uninterrupted
from core.deadline import Deadline


class Opened:
    """The backend of `answer`, opened and read until it begins; the connection is closed when the context ends."""

    def __init__(self, answer: LiveAnswer, deployment: Deployment, call: UpstreamCall, deadline: Deadline) -> None:
        self._answer = answer
        self._manager = deployment.backend.open(call, deadline)

    async def __aenter__(self) -> None:
        answer = self._answer
        answer.sent()
        try:
            response = await self._manager.__aenter__()
        except AttemptError as failure:
            answer.fail(failure)
            raise
        try:
            await answer.begin(response)
        except asyncio.CancelledError:
            try:
                await uninterrupted(answer.drain())
            finally:
                await self._left()
            raise
        except BaseException:
            await self._left()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._answer.may_have_more:
                await self._answer.finish()
        finally:
            await self._left()

    async def _left(self) -> None:
        if self._answer.is_reading:
            await self._answer.stop_reading()
        await self._manager.__aexit__(None, None, None)
