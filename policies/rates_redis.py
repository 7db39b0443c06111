"""Limits that replicas share, read and taken with the caller's standing in one round trip.

Rates are two moments per scope on the server's clock, in a key that expires when the allowance is whole. Slots are a
count per replica with a lease, which a heartbeat renews: those of a replica that died are free after `SLOT_LEASE_S`.
Counts are changed by one script per request and set anew by the heartbeat, so that a lost message does not last.

While the store is away each replica counts in this process, against its share of the limits (limit / replicas), or
against none where the tenant's policy says `open`; standing is what was last seen.
"""

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

import msgspec

from core.clock import Clock
from core.errors import RateLimited
from core.rules import Limits
from policies.ledger_redis import RedisLedger
from policies.rates import KINDS, Entered, Entry, Level, Scope, refused_by_concurrency, refused_by_rate
from policies.rates_memory import MemoryRates
from policies.redis_draws import PREFIX
from policies.redis_scripts import Script
from policies.redis_wire import StoreAway

ADMIT, LEAVE = Script("admit"), Script("leave")
SLOT_LEASE_S = 15.0
HEARTBEAT_S = 5.0
MICRO = 1_000_000
_CONCURRENCY = 3
_ONE_LESS = -1


class RedisRates:
    """A `LimitStore` on the ledger's Redis; use it within `running`, which renews the leases of slots."""

    def __init__(self, ledger: RedisLedger, clock: Clock, *, replicas: int = 1) -> None:
        self._ledger = ledger
        self._store = ledger.store
        self._replicas = replicas
        self._replica = secrets.token_hex(6)
        self._locally = MemoryRates(ledger, clock)
        self._outside: dict[Entry, Entry] = {}
        self._in_flight: Counter[tuple[str, str]] = Counter()
        self._entering: Counter[tuple[str, str]] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["RedisRates"]:
        """Renew the leases of slots; on the way out finish what is under way."""
        beating = asyncio.create_task(self._beat_for_ever())
        try:
            yield self
        finally:
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beating
            await self.drain()

    async def drain(self) -> None:
        """Wait until what was given back has been told."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def enter(self, entry: Entry) -> Entered:
        """Take what the request needs, or refuse."""
        slots = [(entry.policy.tenant, scope.key_id) for scope in entry.scopes if scope.limits.concurrency is not None]
        self._entering.update(slots)
        try:
            reply = await self._enter(entry)
        except StoreAway:
            return self._enter_locally(entry)
        except asyncio.CancelledError:
            self._spawn(self.beat(slots))  # the slots may have been taken although nobody is there to use them
            raise
        finally:
            self._entering.subtract(slots)
        if isinstance(reply, RateLimited):
            raise reply
        self._in_flight.update(slots)
        return reply

    def leave(self, entry: Entry, used_tokens: int | None) -> None:
        """Give the slots back and correct the tokens, in the background."""
        local = self._outside.pop(entry, None)
        if local is not None:
            self._locally.leave(local, used_tokens)
            return
        more = 0 if used_tokens is None else used_tokens - entry.tokens
        scopes = []
        for scope in entry.scopes:
            has_slots = scope.limits.concurrency is not None
            if has_slots:
                self._in_flight[entry.policy.tenant, scope.key_id] -= 1
            if has_slots or (more and scope.limits.tokens_per_minute):
                scopes.append((scope, more))
        if scopes:
            self._spawn(self._tell(entry.policy.tenant, scopes))

    async def beat(self, slots: list[tuple[str, str]] | None = None) -> None:
        """Renew the leases of slots and set their counts, except where a request is just coming in."""
        for tenant, key_id in list(self._in_flight) if slots is None else slots:
            where = (tenant, key_id)
            if self._entering[where] > 0:
                continue
            count = self._in_flight[where]
            with contextlib.suppress(StoreAway):
                await self._leave(tenant, _keys(tenant, key_id), [(0, 0, 1, count)])
                if not count and not self._in_flight[where]:
                    del self._in_flight[where]

    async def _enter(self, entry: Entry) -> Entered | RateLimited:
        tenant, caller, policy = entry.policy.tenant, entry.caller, entry.policy
        if not entry.scopes:
            return Entered(await self._ledger.standing(caller, policy))
        keys = tuple(key for scope in entry.scopes for key in _keys(tenant, scope.key_id))
        limits = [
            (scope.limits.requests_per_minute or 0, scope.limits.tokens_per_minute or 0, scope.limits.concurrency or 0)
            for scope in entry.scopes
        ]
        reply, draws = await self._store.run_drawn(
            ADMIT, tenant, lambda: self._store.drawing.of(policy, caller),
            entry.tokens, self._replica, int(SLOT_LEASE_S * 1000), msgspec.msgpack.encode(limits), more_keys=keys,
        )  # fmt: skip
        levels = tuple(
            Level(kind, limit, reply[4][2 * at + place] / MICRO)
            for at, scope in enumerate(entry.scopes)
            for place, kind in enumerate(KINDS)
            for limit in (scope.limit(kind),)
            if limit is not None
        )
        if reply[0]:
            return Entered(self._ledger.standing_from(caller, policy, draws, reply[5]), levels)
        scope = entry.scopes[reply[1] - 1]
        if reply[2] == _CONCURRENCY:
            return refused_by_concurrency(scope, levels)
        return refused_by_rate(scope, KINDS[reply[2] - 1], reply[3] / MICRO, levels)

    def _enter_locally(self, entry: Entry) -> Entered:
        """Count in this process against this replica's share, or against nothing."""
        is_open = entry.policy.on_store_outage == "open"
        scopes = () if is_open else tuple(Scope(one.key_id, self._share(one.limits)) for one in entry.scopes)
        local = Entry(entry.caller, entry.policy, entry.tokens, scopes)
        levels = self._locally.take(local)
        self._outside[entry] = local
        return Entered(self._ledger.last_standing(entry.caller), levels)

    def _share(self, limits: Limits) -> Limits:
        whole = (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrency)
        return Limits(*(None if limit is None else max(1, limit // self._replicas) for limit in whole))

    async def _tell(self, tenant: str, scopes: list[tuple[Scope, int]]) -> None:
        keys, changes = list[str](), list[tuple[int, int, int, int]]()
        for scope, more in scopes:
            where = (tenant, scope.key_id)
            count = _ONE_LESS if self._entering[where] > 0 else self._in_flight[where]
            has_slots = int(scope.limits.concurrency is not None)
            changes.append((scope.limits.tokens_per_minute or 0, more, has_slots, count))
            keys += _keys(*where)
        with contextlib.suppress(StoreAway):  # the heartbeat sets the counts anew
            await self._leave(tenant, keys, changes)

    async def _leave(self, tenant: str, keys: list[str], scopes: list[tuple[int, int, int, int]]) -> None:
        await self._store.run(
            LEAVE, tenant, self._replica, int(SLOT_LEASE_S * 1000), msgspec.msgpack.encode(scopes),
            more_keys=tuple(keys),
        )  # fmt: skip

    async def _beat_for_ever(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await self.beat()

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _keys(tenant: str, key_id: str) -> list[str]:
    return [f"{PREFIX}:{{{tenant}}}:rate:{key_id}", f"{PREFIX}:{{{tenant}}}:slots:{key_id}"]
