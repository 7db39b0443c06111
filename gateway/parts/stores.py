"""What a gateway keeps its state in: the same stores, in SQLite for one process or in Redis for several replicas."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from cache.catalogue import Catalogue
from cache.entry_store import EntryStore, StoreLimits
from cache.sealing import Sealer, TenantKeys
from gateway.parts.probing import StoreProbe
from gateway.settings.cache_settings import CacheSettings
from policies.admission import Admission
from policies.keys import KeyStore
from policies.ledger import BudgetLedger, Treasury
from policies.watching import PolicyWatcher


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of one gateway.

    Attributes:
        sealer: what encrypts cache entries per tenant; an index snapshot, which is in clear, is not written then.
        fills_index: whether `running` fills the vector index, so that nobody else has to.
        probe: makes what `/admin/store` asks.
        is_away: whether the budget store failed to answer.
        running: the background work of the stores.
        close: writes what is left and gives the stores up.
    """

    ledger: BudgetLedger
    treasury: Treasury
    admission: Admission
    keys: KeyStore
    entries: EntryStore
    catalogue: Catalogue
    sealer: Sealer | None
    fills_index: bool
    probe: Callable[[KeyStore, PolicyWatcher], StoreProbe]
    is_away: Callable[[], bool]
    running: Callable[[], AbstractAsyncContextManager[None]]
    close: Callable[[], Awaitable[None]]


def limits_of(settings: CacheSettings) -> StoreLimits:
    """Return how much every tenant may keep."""
    return StoreLimits(settings.max_entries_per_tenant, settings.max_bytes_per_tenant)


def sealer_of(settings: CacheSettings) -> Sealer | None:
    """Return what encrypts the cache's entries, where the operator wants that."""
    return None if settings.keys is None else Sealer(TenantKeys(settings.keys))
