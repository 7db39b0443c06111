"""List what a tenant has in the store, which the seam to the store itself does not: for control commands alone."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
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


class SqliteCatalogue:
    """The catalogue of the store in one file; it reads beside the store's own connections, in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def ids(self, tenant: str) -> list[str]:
        """Return ids; see `Catalogue.ids`. What was stored in the last instant may be missing."""
        return await asyncio.to_thread(
            self._column, "SELECT entry_id FROM cache_entries WHERE tenant = ? ORDER BY entry_id", (tenant,)
        )

    async def tenants(self) -> list[str]:
        """Return tenants; see `Catalogue.tenants`."""
        return await asyncio.to_thread(self._column, "SELECT DISTINCT tenant FROM cache_entries ORDER BY tenant", ())

    def _column(self, query: str, values: tuple[str, ...]) -> list[str]:
        try:
            with closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)) as database:
                return [str(row[0]) for row in database.execute(query, values)]
        except sqlite3.Error as problem:
            raise OSError(f"the cache's file cannot be read: {problem}") from problem


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
