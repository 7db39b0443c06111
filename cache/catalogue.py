"""List what a tenant has in the store, which the seam to the store itself does not: for control commands alone.

The store in one file is its own catalogue.
"""

import asyncio
from typing import Any, Protocol

from cache.redis_door import ROOT, Commands


class Catalogue(Protocol):
    """Knows which entries a tenant has; an entry may be gone, or expired, when it is read."""

    async def ids(self, tenant: str) -> list[str]:
        """Return the ids of all of the tenant's entries in ascending order.

        Raises:
            OSError: the store cannot be read.
        """
        ...

    async def tenants(self) -> list[str]:
        """Return the tenants that have entries, in ascending order; raises OSError as `ids` does."""
        ...


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
