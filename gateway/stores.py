"""Where this gateway keeps its state, as `state:` says: in SQLite for one process, or in Redis for several replicas."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass

from cache.catalogue import Catalogue
from cache.entry_store import EntryStore, StoreLimits
from cache.faiss_index import FaissIndex
from cache.sealing import Sealer, TenantKeys
from cache.sqlite_store import SqliteEntryStore
from core.clock import Clock
from gateway.probing import StoreProbe, redis_probe, sqlite_probe
from gateway.settings.operator import Settings
from policies.admission import Admission
from policies.keys import KeyStore
from policies.keys_sqlite import SqliteKeyStore
from policies.ledger import BudgetLedger, OnAlert, Treasury
from policies.ledger_sqlite import SqliteLedger
from policies.watching import PolicyWatcher

FOLLOWER_TIMEOUT_S = 10.0
"""The follower's own connection waits for changes, so it must be patient."""


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
    if settings.redis_url is None:
        return _open_sqlite(settings, clock, on_alert)
    return _open_redis(settings, settings.redis_url, clock, index, encoder, on_alert)


def _limits(settings: Settings) -> StoreLimits:
    return StoreLimits(settings.cache.max_entries_per_tenant, settings.cache.max_bytes_per_tenant)


def _sealer(settings: Settings) -> Sealer | None:
    """Return what encrypts the cache's entries, where the operator wants that."""
    return None if settings.cache.keys is None else Sealer(TenantKeys(settings.cache.keys))


def _open_sqlite(settings: Settings, clock: Clock, on_alert: OnAlert) -> Stores:
    keys = SqliteKeyStore(settings.state_file)
    sealer = _sealer(settings)
    entries = SqliteEntryStore(settings.beside("cache"), clock, _limits(settings), sealer)
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


def _open_redis(
    settings: Settings, url: str, clock: Clock, index: FaissIndex, encoder: str, on_alert: OnAlert
) -> Stores:
    """Open Redis for everything that replicas share; the request log and the audit log stay per replica."""
    from cache import redis_store
    from cache.local_copies import LocalCopies
    from cache.mirrored_store import MirroredStore
    from cache.redis_catalogue import RedisCatalogue
    from cache.replication import Follower
    from cache.snapshot import SnapshotFile
    from policies import keys_redis
    from policies.keys_redis import RedisKeyStore
    from policies.ledger_redis import RedisLedger
    from policies.rates_redis import RedisRates
    from policies.redis_scripts import TIMEOUT_S
    from policies.redis_wire import Wire
    from policies.slices import SlicedLedger

    wire = Wire(url, TIMEOUT_S)
    inner = RedisLedger(wire, clock, replicas=settings.replicas, on_alert=on_alert)
    ledger = SlicedLedger(inner, url, clock)
    rates = RedisRates(inner, clock, replicas=settings.replicas)
    keys = RedisKeyStore(keys_redis.connect(url), clock)
    entries_wire = Wire(url, TIMEOUT_S)
    sealer = _sealer(settings)
    shared, copies = redis_store.RedisEntryStore(entries_wire, clock, _limits(settings), sealer), LocalCopies(clock)
    changes = redis_store.connect(url, FOLLOWER_TIMEOUT_S)
    snapshot = None if sealer else SnapshotFile(settings.own("index").with_suffix(".snapshot"), encoder)
    follower = Follower(changes, shared, index, encoder, clock, snapshot, copies)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            keys.follow()
            await stack.enter_async_context(ledger.running())
            await stack.enter_async_context(rates.running())
            await stack.enter_async_context(follower.running())
            yield

    async def close() -> None:
        keys.close()
        await changes.aclose()
        await entries_wire.aclose()
        await wire.aclose()

    return Stores(
        ledger=ledger,
        treasury=inner,
        admission=Admission(ledger, clock, rates),
        keys=keys,
        entries=MirroredStore(shared, copies),
        catalogue=RedisCatalogue(changes),
        sealer=sealer,
        fills_index=True,
        probe=lambda _, watcher: redis_probe(
            keys.age_s, lambda: ledger.is_away, lambda: ledger.waiting_settlements, watcher
        ),
        is_away=lambda: ledger.is_away,
        running=running,
        close=close,
    )
