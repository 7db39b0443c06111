"""The list of what a tenant has in Redis; see `cache.catalogue`."""

import asyncio
from typing import Any

from cache.redis_door import ROOT, Commands


class RedisCatalogue:
    """The catalogue of the store that replicas share."""

    def __init__(self, client: Commands, timeout_s: float = 5.0) -> None:
        self._client = client
        self._timeout_s = timeout_s

    async def ids(self, tenant: str) -> list[str]:
        """Return ids; see `Catalogue.ids`."""
        return await self._names("HKEYS", f"{ROOT}t:{tenant}:labels")

    async def tenants(self) -> list[str]:
        """Return tenants; see `Catalogue.tenants`."""
        return await self._names("SMEMBERS", f"{ROOT}tenants")

    async def _names(self, *command: str) -> list[str]:
        try:
            async with asyncio.timeout(self._timeout_s):
                found: Any = await self._client.execute_command(*command)
        except Exception as problem:  # the client is the composition root's choice, and so are its errors
            raise OSError(f"the cache's store does not answer: {type(problem).__name__}") from problem
        return sorted(one.decode() for one in found)
