"""What an engine's owner task is asked for by others: to stop, start anew, sleep, wake or reload."""

import asyncio
from contextlib import suppress


class Wishes:
    """Set by anybody on the event loop; the owner looks at them between two steps.

    Attributes:
        stop: set when nobody wants the engine any more.
        awake: set when a sleeping engine is wanted.
        poke: set when there is something to look at.
        restart, sleep, reload: what the process that is ready shall do next.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.awake = asyncio.Event()
        self.poke = asyncio.Event()
        self.restart = self.sleep = self.reload = False

    def begin_anew(self) -> None:
        """Forget what was asked of the process before."""
        self.restart = self.sleep = self.reload = False
        self.poke.clear()

    async def pause(self, seconds: float) -> None:
        """Wait, or until somebody wants something."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.poke.wait(), seconds)
        self.poke.clear()

    async def back_off(self, seconds: float) -> None:
        """Wait, unless somebody stops the engine or wants it at once."""
        self.poke.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await first_of(self.poke, self.stop)

    async def rest(self) -> None:
        """Wait until the engine is wanted again or a stop is asked for."""
        await first_of(self.awake, self.stop)


async def first_of(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
