"""The stores of one process: SQLite files beside each other."""

from contextlib import nullcontext

from cache.sqlite_store import SqliteEntryStore
from core.clock import Clock
from gateway.parts.probing import sqlite_probe
from gateway.parts.stores import Stores, limits_of, sealer_of
from gateway.settings.operator import Settings
from policies.admission import Admission
from policies.keys_sqlite import SqliteKeyStore
from policies.ledger import OnAlert
from policies.ledger_sqlite import SqliteLedger


def open_sqlite(settings: Settings, clock: Clock, on_alert: OnAlert) -> Stores:
    """Open the files beside the state.

    Raises:
        ConfigurationError: a file is another process's, not ours, or written by a newer version.
    """
    sealer = sealer_of(settings.cache)
    keys = SqliteKeyStore(settings.state_file)
    entries = SqliteEntryStore(settings.beside("cache"), clock, limits_of(settings.cache), sealer)
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
