"""Asks remote engines for their own metrics from time to time, off the path of requests: others load them, too.

An engine that does not answer in time, or talks too much, has told nothing; what it said before is forgotten soon.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from backends.engines.engine_figures import read_figures
from backends.engines.engine_watch import LOOK_EVERY_S, TIMEOUT_S, Told, fetched, tell


@dataclass(frozen=True, slots=True)
class RemoteWatch:
    """Where remote deployments show their metrics, by name."""

    urls: Mapping[str, str]

    async def run(self, told: Told) -> None:
        """Look for ever."""
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            while self.urls:
                await asyncio.gather(*(self.look(client, name, told) for name in self.urls))
                await asyncio.sleep(LOOK_EVERY_S)

    async def look(self, client: httpx.AsyncClient, name: str, told: Told) -> None:
        """Ask one engine."""
        text = await fetched(client, self.urls[name])
        if text is not None:
            tell(name, read_figures(None, text), told)
