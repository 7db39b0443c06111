"""The stores of several replicas: Redis for all that they share; the request log and the audit log stay per replica."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from cache import redis_store
from cache.faiss_index import FaissIndex
from cache.local_copies import LocalCopies
from cache.mirrored_store import MirroredStore
from cache.redis_catalogue import RedisCatalogue
from cache.redis_store import RedisEntryStore
from cache.replication import Follower
from cache.snapshot import SnapshotFile
from core.clock import Clock
from gateway.parts.probing import redis_probe
from gateway.parts.stores import Stores, limits_of, sealer_of
from gateway.settings.operator import Settings
from policies import keys_redis
from policies.admission import Admission
from policies.keys_redis import RedisKeyStore
from policies.ledger import OnAlert
from policies.ledger_redis import RedisLedger
from policies.rates_redis import RedisRates
from policies.redis_scripts import TIMEOUT_S
from policies.redis_wire import Wire
from policies.slices import SlicedLedger

FOLLOWER_TIMEOUT_S = 10.0
"""The follower's own connection waits for changes, so it must be patient."""


def open_redis(
    settings: Settings, url: str, clock: Clock, index: FaissIndex, encoder: str, on_alert: OnAlert
) -> Stores:
    """Open the stores at `url`; `index` and `encoder` are what replicas keep in step."""
    sealer = sealer_of(settings.cache)
    wire = Wire(url, TIMEOUT_S)
    inner = RedisLedger(wire, clock, replicas=settings.replicas, on_alert=on_alert)
    ledger = SlicedLedger(inner, url, clock)
    rates = RedisRates(inner, clock, replicas=settings.replicas)
    keys = RedisKeyStore(keys_redis.connect(url), clock)
    entries_wire = Wire(url, TIMEOUT_S)
    shared, copies = RedisEntryStore(entries_wire, clock, limits_of(settings.cache), sealer), LocalCopies(clock)
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
