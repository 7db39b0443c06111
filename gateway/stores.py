"""Where this gateway keeps its state, as `state:` says: in SQLite for one process, or in Redis for several replicas."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

from cache.catalogue import Catalogue
from cache.entry_store import EntryStore, StoreLimits
from cache.faiss_index import FaissIndex
from cache.sealing import Sealer, TenantKeys
from cache.sqlite_store import SqliteEntryStore
from core.clock import Clock
from gateway.probing import StoreProbe, sqlite_probe
from gateway.settings.operator import Settings
from policies.admission import Admission
from policies.keys import KeyStore
from policies.keys_sqlite import SqliteKeyStore
from policies.ledger import BudgetLedger, OnAlert, Treasury
from policies.ledger_sqlite import SqliteLedger
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


def open_stores(settings: Settings, clock: Clock, index: FaissIndex, encoder: str, on_alert: OnAlert) -> Stores:
    """Open what `settings` names; `index` and `encoder` are what replicas keep in step.

    Raises:
        ConfigurationError: a file is another process's, not ours, or written by a newer version.
    """
    limits = StoreLimits(settings.cache.max_entries_per_tenant, settings.cache.max_bytes_per_tenant)
    sealer = None if settings.cache.keys is None else Sealer(TenantKeys(settings.cache.keys))
    if settings.redis_url is None:
        return _open_sqlite(settings, clock, limits, sealer, on_alert)
    from gateway.redis_stores import open_redis

    return open_redis(settings, settings.redis_url, clock, limits, sealer, index, encoder, on_alert)


def _open_sqlite(
    settings: Settings, clock: Clock, limits: StoreLimits, sealer: Sealer | None, on_alert: OnAlert
) -> Stores:
    keys = SqliteKeyStore(settings.state_file)
    entries = SqliteEntryStore(settings.beside("cache"), clock, limits, sealer)
    ledger = SqliteLedger(settings.state_file, clock, on_alert=on_alert)

    async def close() -> None:
        ledger.close()
        keys.close()

    return Stores(
        ledger=ledger,
        treasury=ledger,
        admission=Admission(ledger, clock),
        keys=keys,
        entries=entries,
        catalogue=entries,
        sealer=sealer,
        fills_index=False,
        probe=lambda store, watcher: sqlite_probe(store, lambda: ledger.is_failing, watcher),
        is_away=lambda: ledger.is_failing,
        running=nullcontext,
        close=close,
    )
