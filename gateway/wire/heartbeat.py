"""Signs of life in a stream that has begun and is silent, so that no proxy on the way takes it for dead.

Only a stream that has begun gets them: before its first content the status is not sent, so that it can still tell the
truth. Frames leave whole, so a sign of life never falls into one.
"""

import asyncio
from collections.abc import Callable
from typing import Self

from litestar.types import Send

from gateway.wire.dialects.dialect import Voice


class Heartbeat:
    """Sends the voice's heartbeat whenever `every_s` seconds pass without a frame; 0 sends none.

    One timer serves a whole stream, and asks `last_sent_s` when a frame left, by the loop's clock.
    """

    def __init__(self, every_s: float, send: Send, voice: Voice, last_sent_s: Callable[[], float]) -> None:
        self._every_s = every_s
        self._last_sent_s = last_sent_s
        self._send = send
        self._voice = voice
        self._loop = asyncio.get_running_loop()
        self._last_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._beating: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        if self._every_s > 0:
            self._timer = self._loop.call_later(self._every_s, self._check)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._beating is not None:
            self._beating.cancel()

    def _check(self) -> None:
        now_s = self._loop.time()
        self._last_s = max(self._last_s, self._last_sent_s())
        if now_s - self._last_s >= self._every_s:
            self._last_s = now_s
            if self._beating is None or self._beating.done():
                self._beating = self._loop.create_task(self._beat())
        self._timer = self._loop.call_at(self._last_s + self._every_s, self._check)

    async def _beat(self) -> None:
        await self._send({"type": "http.response.body", "body": self._voice.heartbeat, "more_body": True})
