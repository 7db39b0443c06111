"""Whether the stores of this replica answer, as `/admin/store` tells."""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct

from core.errors import Unavailable
from policies.keys import KeyStore
from policies.watching import PolicyWatcher

STALE_KEYS_S = 2.0


class StoreState(Struct, frozen=True):
    """Whether the stores of this replica answer.

    `keys_age_s` is how old the replica's knowledge of keys is; `waiting_settlements` are costs that could not be booked
    yet.
    """

    kind: str
    keys_reachable: bool
    ledger_reachable: bool
    keys_age_s: float
    waiting_settlements: int
    policies_problem: str | None = None


StoreProbe = Callable[[], Awaitable[StoreState]]


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
