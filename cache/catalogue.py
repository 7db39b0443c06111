"""List what a tenant has in the store, which the seam to the store itself does not: for control commands alone.

The store in one file is its own catalogue.
"""

from typing import Protocol


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
