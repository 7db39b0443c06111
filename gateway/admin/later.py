"""An application that is built when it is first needed, in a thread, so that the gateway listens before it is."""

import asyncio
from collections.abc import Callable

from litestar import Litestar
from litestar.types import Receive, Scope, Send


class Later:
    """Builds once; whoever comes meanwhile waits."""

    def __init__(self, build: Callable[[], Litestar]) -> None:
        self._build = build
        self._building: asyncio.Task[Litestar] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand one request on."""
        await (await self.built())(scope, receive, send)

    async def built(self) -> Litestar:
        """Return the application itself."""
        if self._building is None:
            self._building = asyncio.create_task(asyncio.to_thread(self._build))
        return await asyncio.shield(self._building)
