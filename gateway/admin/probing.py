"""What `/admin/store` tells, asked of the stores that this replica uses."""

import asyncio
from collections.abc import Callable

from core.errors import Unavailable
from gateway.admin.state_routes import StoreProbe, StoreState
from policies.keys import KeyStore
from policies.watching import PolicyWatcher

STALE_KEYS_S = 2.0


def sqlite_probe(keys: KeyStore, is_failing: Callable[[], bool], watcher: PolicyWatcher) -> StoreProbe:
    """Ask a key store that threads may use, and the ledger's writer."""

    async def probe() -> StoreState:
        try:
            await asyncio.to_thread(keys.revision)
            reachable = True
        except Unavailable:
            reachable = False
        return StoreState("sqlite", reachable, not is_failing(), 0.0, 0, _problem(watcher))

    return probe


def redis_probe(
    keys_age_s: Callable[[], float],
    is_away: Callable[[], bool],
    waiting_settlements: Callable[[], int],
    watcher: PolicyWatcher,
) -> StoreProbe:
    """Tell how old the copy of the keys is, and what the ledger's door and backlog say."""

    async def probe() -> StoreState:
        age_s = keys_age_s()
        return StoreState(
            "redis", age_s < STALE_KEYS_S, not is_away(), round(age_s, 3), waiting_settlements(), _problem(watcher)
        )

    return probe


def _problem(watcher: PolicyWatcher) -> str | None:
    return None if watcher.problem is None else watcher.problem.message
