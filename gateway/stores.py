"""Where this gateway keeps its state, as `state:` says: in SQLite for one process, or in Redis for several replicas."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

from cache.entry_store import EntryStore
from cache.sqlite_store import SqliteEntryStore
from core.clock import Clock
from gateway.admin.probing import sqlite_probe
from gateway.admin.state_routes import StoreProbe
from gateway.settings import Settings
from policies.admission import Admission
from policies.keys import KeyStore
from policies.keys_sqlite import SqliteKeyStore
from policies.ledger import BudgetLedger, Treasury
from policies.ledger_sqlite import SqliteLedger
from policies.watching import PolicyWatcher


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of one gateway; `close` writes what is left and gives them up."""

    ledger: BudgetLedger
    treasury: Treasury
    admission: Admission
    keys: KeyStore
    entries: EntryStore
    probe: Callable[[KeyStore, PolicyWatcher], StoreProbe]
    running: Callable[[], AbstractAsyncContextManager[None]]
    close: Callable[[], Awaitable[None]]


def open_stores(settings: Settings, clock: Clock) -> Stores:
    """Open what `settings` names.

    Raises:
        ConfigurationError: a file is another process's, not ours, or written by a newer version.
    """
    settings.state_file.parent.mkdir(parents=True, exist_ok=True)
    keys = SqliteKeyStore(settings.state_file)
    ledger = SqliteLedger(settings.state_file, clock)

    async def close() -> None:
        ledger.close()
        keys.close()

    return Stores(
        ledger=ledger,
        treasury=ledger,
        admission=Admission(ledger, clock),
        keys=keys,
        entries=SqliteEntryStore(settings.beside("cache"), clock),
        probe=lambda store, watcher: sqlite_probe(store, lambda: ledger.is_failing, watcher),
        running=nullcontext,
        close=close,
    )
