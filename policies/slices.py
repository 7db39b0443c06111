"""Leased slices: each replica holds some budget for requests to come, so that most reservations need no round trip.

A `SlicedLedger` stands in front of a `RedisLedger`. The protocol:

- A *purse* is what one set of budgets is drawn on by: a tenant's policy, the tiers of a plan, and the key and end user
  where some budget is theirs alone. A *slice* is a hold of the purse in Redis, with an id, a lease and lines like any
  other hold. Requests are granted from its unused part in this process; `held` and `spent` are counted here.
- A request that no slice can hold is reserved in Redis by itself, exactly as without slices. When a purse misses twice
  within `BUSY_S` it leases a slice in the background: what the requests of the last half second needed, doubled while
  slices last less than that, never more than an eighth of what is free. So slices shrink as the limit nears, and where
  an eighth is less than four requests, none is leased and every reservation is made in Redis.
- Every second, and at once when a slice is no longer used, the replica tells Redis the slice's totals since its
  beginning: what is held, what was spent, in each tier. Totals with a number make repeats, losses and reordering
  harmless. Each update renews the lease.
- Recall: a request that Redis refuses, although what replicas hold unused might make room, publishes the lines that
  were short. Every replica (the asking one included) stops using slices on them at once and returns what is unused;
  the request asks again until it fits, nothing can be recalled any more, or `PATIENCE_S` is over. For a second no slice
  is leased on these lines. A replica that cannot hear (its subscription is down) uses no slices.
- A slice unused for `IDLE_S`, `SLICE_LIFE_S` old, or whose window ends, is given back; it stays as a hold of its
  requests in flight.
- A replica that dies leaves its slices to their lease (`SLICE_LEASE_S`): the reaper charges what is left of them in
  full, flagged unconfirmed, as it does with any hold: money that may have been spent is never given away. A replica
  that was only cut off corrects that charge with its next update.
- Time: a slice is used until its lease or its window ends, reckoned by this process's monotonic clock from the moment
  before the lease was asked for, and by the server's clock within the script: no wall clock of a replica takes part.

What it promises, beyond `policies.ledger`:

- Overshoot. A slice of amount S is granted by Redis only if S is free, and itself grants only while
  held + spent + amount <= S. So with slices in the place of holds the proof in `policies.ledger` stands: the limit is
  passed by at most what slices and holds in flight at the last grant in Redis end above their amounts. A slice ends
  above S only by the sum of max(0, actual - amount) over its requests. Since it grants for `SLICE_LIFE_S` at most, all
  in all the bound is that sum over the requests that were in flight, or settled at most 10 s before, at the last grant.
- Conservation. A slice moves money between `reserved` and `spent` of its lines by differences of its totals, in one
  script; opened once and closed once, its differences add up to what its requests have cost.
- No false block. A refusal is final only when Redis refuses while no slice on the refusing lines can be recalled, or
  after `PATIENCE_S`. Unused money that a replica holds is marked recallable in Redis until the replica gave it back,
  and given back only by raising `free`; a request therefore sees it in one form or the other.
- Idempotence by reservation id holds within a replica for requests served from slices (the ids are made there); for
  those reserved in Redis it holds everywhere.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

import msgspec

from core.clock import Clock
from core.identity import Caller
from core.plan import Standing
from core.recent import RecentIds
from core.rules import TenantPolicy
from policies.books import REMEMBERED_IDS
from policies.budgets import Account
from policies.ledger import Balance, Cost, Hold
from policies.ledger_redis import RedisLedger, StoreState
from policies.redis_draws import PREFIX, Draws
from policies.redis_scripts import Script
from policies.redis_wire import StoreAway, Wire
from policies.slice import BUSY_S, Purse, Slice

LEASE, SYNC = Script("lease"), Script("sync")
CHANNEL = f"{PREFIX}:recall"
SLICE_LEASE_S = 10.0
SLICE_LIFE_S = 10.0
"""How long a slice may be granted from at most, renewals of its lease or not."""
SYNC_S = 1.0
IDLE_S = 1.0
TEND_S = 0.05
PATIENCE_S = 0.1
"""How long a refused request waits for slices to come back."""
DENIED_S = 0.25
KEEP_REAPED_S = 3600.0
"""How long a request that was charged when its lease ended may still be settled truly."""
SHARE_OF_FREE = 8
LEAST_REQUESTS = 4
KEPT_PURSES = 20_000

_logger = logging.getLogger(__name__)
PurseKey = tuple[str, str, str, str | None, frozenset[str]]


@dataclass(slots=True)
class _Granted:
    """A request granted from a slice."""

    slice: Slice
    amount: int
    lease_until_s: float
    is_reaped: bool = False


class SlicedLedger:
    """A `BudgetLedger` and `Treasury` in front of a `RedisLedger`; use it within `running`."""

    def __init__(
        self,
        inner: RedisLedger,
        url: str,
        clock: Clock,
        *,
        patience_s: float = PATIENCE_S,
        timeout_s: float = 1.0,
        slice_lease_s: float = SLICE_LEASE_S,
    ) -> None:
        """Lease slices from `inner`; `url` is the same server's, for the subscription to recalls."""
        self._inner = inner
        self._store = inner.store
        self._clock = clock
        self._patience_s = patience_s
        self._slice_lease_s = slice_lease_s
        self._replica = secrets.token_hex(6)
        self._made = 0
        self._listener = Wire(url, timeout_s, channel=CHANNEL, on_message=self._recalled, on_change=self._heard_or_not)
        self._hears = False
        self._deaf_at_s = float("-inf")
        self._purses: dict[PurseKey, Purse] = {}
        self._shapes: dict[tuple[str, str], tuple[bool, bool, bool]] = {}
        self._slices: dict[Slice, None] = {}
        self._by_line: dict[str, dict[Slice, None]] = {}
        self._recalled_at_s: dict[str, float] = {}
        self._granted: dict[str, _Granted] = {}
        self._elsewhere: dict[str, None] = {}
        self._closed = RecentIds(REMEMBERED_IDS)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> StoreState:
        """Return whether the store answers, for metrics and headers."""
        return self._inner.state

    @property
    def is_away(self) -> bool:
        """Tell whether the store failed to answer and has not answered since."""
        return self._inner.is_away

    @property
    def waiting_settlements(self) -> int:
        """Return how many settlements, and slices with news, wait for the store to come back."""
        return self._inner.waiting_settlements + sum(one.version > one.told for one in self._slices)

    @property
    def replica(self) -> str:
        """Return the name of this replica, which its slices carry."""
        return self._replica

    @property
    def slices(self) -> int:
        """Return how many slices this replica has."""
        return len(self._slices)

    @property
    def unused_nano_usd(self) -> int:
        """Return what this replica could grant without asking Redis, over all tenants."""
        return sum(one.unused for one in self._slices if one.is_active)

    @property
    def hears(self) -> bool:
        """Tell whether recalls reach this replica; without that it uses no slices."""
        return self._hears

    @asynccontextmanager
    async def running(self) -> AsyncIterator["SlicedLedger"]:
        """Listen for recalls and tend the slices; on the way out give back all that is unused."""
        self._listener.start()
        tending = asyncio.create_task(self._tend_for_ever())
        try:
            yield self
        finally:
            tending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await tending
            await self.give_back()
            await self._listener.aclose()

    async def standing(self, caller: Caller, policy: TenantPolicy) -> Standing:
        """Return what the caller may still spend, unused slices included."""
        return await self._inner.standing(caller, policy)

    async def reserve(self, hold: Hold) -> None:
        """Hold the amount in a slice or, where none fits, in Redis; recall slices before refusing."""
        id_, policy = hold.reservation_id, hold.policy
        if not policy.budgets or id_ in self._granted or id_ in self._closed:
            return
        if id_ not in self._elsewhere:
            purse, now_s = self._purse(hold), self._clock.monotonic_s()
            for one in purse.slices:
                if one.take(hold.amount_nano_usd, now_s):
                    self._granted[id_] = _Granted(one, hold.amount_nano_usd, now_s + hold.lease_s)
                    purse.used_at_s = now_s
                    if one.unused < one.total >> 2 and purse.runs_low:
                        self._lease_more(purse, hold.amount_nano_usd, now_s)
                    return
            self._elsewhere[id_] = None
            if purse.misses_often(now_s):
                self._lease_more(purse, hold.amount_nano_usd, now_s)
        try:
            await self._reserve_in_store(hold)
        except Exception:
            self._elsewhere.pop(id_, None)
            raise

    async def settle(self, hold: Hold, cost: Cost) -> None:
        """Charge the cost and release the rest; without a round trip for requests granted from a slice."""
        id_ = hold.reservation_id
        granted = self._granted.pop(id_, None)
        if granted is None:
            if id_ not in self._closed and hold.policy.budgets:
                self._elsewhere.pop(id_, None)
                self._remember(id_)
                await self._inner.settle(hold, cost)
            return
        one = granted.slice
        if granted.is_reaped:
            one.unconfirmed -= granted.amount
            one.spent -= granted.amount
            for tier in one.by_tier:
                one.by_tier[tier] -= granted.amount
            one.charge(0, cost)
        else:
            one.charge(granted.amount, cost)
        one.open -= 1
        self._remember(id_)
        if not one.is_active:
            self._spawn(self._tell(one))

    async def reap(self) -> int:
        """Charge this process's expired requests in full, then do as the store does."""
        now_s, count = self._clock.monotonic_s(), 0
        for id_, granted in list(self._granted.items()):
            if granted.is_reaped and granted.lease_until_s <= now_s - KEEP_REAPED_S:
                del self._granted[id_]
                granted.slice.open -= 1
                granted.slice.version += 1
            elif granted.lease_until_s <= now_s and not granted.is_reaped:
                granted.is_reaped = True
                granted.slice.charge(granted.amount, Cost(granted.amount))
                granted.slice.unconfirmed += granted.amount
                count += 1
        await self._tell_all()
        return count + await self._inner.reap()

    async def balances(self, policy: TenantPolicy) -> tuple[Balance, ...]:
        """Return the tenant's budgets; what other replicas have spent from slices is at most a second old."""
        await self._tell_all()
        return await self._inner.balances(policy)

    async def grant(self, policy: TenantPolicy, account: Account, nano_usd: int, grant_id: str) -> None:
        """Raise the limits of one account in its present window."""
        await self._inner.grant(policy, account, nano_usd, grant_id)

    async def reset(self, policy: TenantPolicy, account: Account, grant_id: str) -> None:
        """Grant what the account has spent in its present window."""
        await self._tell_all()
        await self._inner.reset(policy, account, grant_id)

    async def give_back(self) -> None:
        """Return all that is unused."""
        for one in list(self._slices):
            one.retire()
        await self._settled_down()
        await self._tell_all()

    async def tend(self) -> None:
        """Retire what is idle or over, tell Redis what changed, and forget what is done; called every `TEND_S`."""
        now_s = self._clock.monotonic_s()
        due = []
        for one in self._slices:
            if one.is_active and (
                now_s - one.purse.used_at_s >= IDLE_S or now_s >= min(one.window_until_s, one.lease_until_s)
            ):
                one.retire()
            waited_s = now_s - one.told_at_s
            if one.version > one.told and (not one.is_active or waited_s >= SYNC_S):
                due.append(one)
            elif waited_s >= self._slice_lease_s / 4 and (one.is_active or one.held):
                due.append(one)  # its lease is to be renewed
        await asyncio.gather(*(self._tell(one) for one in due))
        await self._inner.deliver()
        for line, at_s in list(self._recalled_at_s.items()):
            if now_s - at_s > 2 * BUSY_S:
                del self._recalled_at_s[line]
        if len(self._purses) > KEPT_PURSES:
            self._purses = {key: purse for key, purse in self._purses.items() if purse.slices}

    async def _tend_for_ever(self) -> None:
        while True:
            try:
                await self.tend()
            except Exception:
                _logger.exception("tending slices failed")
            await asyncio.sleep(TEND_S)

    def _purse(self, hold: Hold) -> Purse:
        policy, caller = hold.policy, hold.caller
        shape = self._shapes.get((policy.tenant, policy.version))
        if shape is None:
            if len(self._shapes) > KEPT_PURSES:
                self._shapes.clear()
            shape = self._shapes[policy.tenant, policy.version] = (
                any(budget.per == "key" for budget in policy.budgets),
                any(budget.per == "user" for budget in policy.budgets),
                any(budget.tier is not None for budget in policy.budgets),
            )
        per_key, per_user, has_tiers = shape
        key = (
            policy.tenant, policy.version, caller.key_id if per_key else "", caller.user if per_user else None,
            hold.tiers,
        )  # fmt: skip
        purse = self._purses.get(key)
        if purse is None:
            purse = self._purses[key] = Purse(policy, caller, hold.tiers, has_tiers)
        return purse

    async def _reserve_in_store(self, hold: Hold) -> None:
        """Reserve in Redis; while slices may make room, recall them once and ask again."""
        until_s, pause_s, channel = monotonic() + self._patience_s, 0.001, CHANNEL
        while (refusal := await self._inner.try_reserve(hold, channel)) is not None:
            if not refusal.is_recallable or monotonic() >= until_s:
                raise refusal.error
            channel = ""
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.016)

    def _lease_more(self, purse: Purse, amount: int, now_s: float) -> None:
        if purse.is_leasing or not self._hears or now_s < purse.denied_until_s or not amount:
            return
        purse.is_leasing = True
        self._spawn(self._lease(purse, amount))

    async def _lease(self, purse: Purse, amount: int) -> None:
        asked_s = self._clock.monotonic_s()
        self._made += 1
        slice_id = f"slice:{self._replica}:{self._made}"
        try:
            reply, _ = await self._store.run_drawn(
                LEASE, purse.policy.tenant, lambda: self._draws(purse), slice_id,
                amount * purse.next_requests(asked_s), amount * LEAST_REQUESTS, SHARE_OF_FREE,
                int(self._slice_lease_s * 1000),
            )  # fmt: skip
        except StoreAway as away:
            if away.may_have_run:
                self._keep(Slice(slice_id, purse, (), 0, asked_s, asked_s, is_active=False, version=1))
            return
        finally:
            purse.is_leasing = False
        if not reply[0]:
            purse.denied_until_s = asked_s + DENIED_S
            return
        total, server_ms, until_ms, named = reply
        lines = tuple(line.decode() for line in named)
        made = Slice(
            slice_id, purse, lines, total,
            window_until_s=asked_s + min(SLICE_LIFE_S, (until_ms - server_ms) / 1000),
            lease_until_s=asked_s + self._slice_lease_s,
            told_at_s=asked_s,
        )  # fmt: skip
        purse.used_at_s = max(purse.used_at_s, asked_s)
        self._keep(made)
        if (
            not self._hears
            or self._deaf_at_s >= asked_s
            or any(self._recalled_at_s.get(line, float("-inf")) >= asked_s for line in lines)
        ):
            made.retire()
            self._spawn(self._tell(made))

    def _keep(self, one: Slice) -> None:
        for worn in [old for old in one.purse.slices if old.is_active and old.unused < old.total >> 4]:
            worn.retire()
        one.purse.slices = [old for old in one.purse.slices if old.is_active] + [one]
        self._slices[one] = None
        for line in one.lines:
            self._by_line.setdefault(line, {})[one] = None

    def _drop(self, one: Slice) -> None:
        self._slices.pop(one, None)
        if one in one.purse.slices:
            one.purse.slices.remove(one)
        for line in one.lines:
            there = self._by_line.get(line)
            if there is not None:
                there.pop(one, None)
                if not there:
                    del self._by_line[line]

    async def _tell(self, one: Slice) -> None:
        """Bring Redis up to date with a slice; what fails is told again by `tend`."""
        version, asked_s, is_last = one.version, self._clock.monotonic_s(), one.is_over
        one.updates += 1
        amount = max(one.held, one.total - one.spent) if one.is_active else one.held
        draws = self._draws(one.purse)
        wants_spent = "1" if draws.has_alerts else ""
        try:
            reply = await self._store.run(
                SYNC, one.purse.policy.tenant, one.slice_id, one.updates, amount, amount if one.is_active else 0,
                int(self._slice_lease_s * 1000), int(is_last),
                msgspec.msgpack.encode((one.spent, one.unconfirmed, one.by_tier)), msgspec.msgpack.encode(one.lines),
                draws.packed if wants_spent else b"", wants_spent,
            )  # fmt: skip
        except StoreAway:
            return
        one.told = max(one.told, version)
        one.told_at_s = max(one.told_at_s, asked_s)
        one.lease_until_s = max(one.lease_until_s, asked_s + self._slice_lease_s)
        if is_last:
            self._drop(one)
        if len(reply) > 1:
            await self._inner.alert(one.purse.policy.tenant, draws, reply[1])

    async def _tell_all(self) -> None:
        await asyncio.gather(*(self._tell(one) for one in list(self._slices) if one.version > one.told or one.is_over))

    async def _settled_down(self) -> None:
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _recalled(self, message: bytes) -> None:
        """Stop using slices on the lines of a recall and give back what is unused."""
        now_s = self._clock.monotonic_s()
        for line in message.decode().split("\n"):
            self._recalled_at_s[line] = now_s
            for one in self._by_line.get(line, ()):
                if one.is_active:
                    one.retire()
                    self._spawn(self._tell(one))

    def _heard_or_not(self, hears: bool) -> None:
        self._hears = hears
        if not hears:
            self._deaf_at_s = self._clock.monotonic_s()
            for one in self._slices:
                one.retire()

    def _draws(self, purse: Purse) -> Draws:
        return self._store.drawing.of(purse.policy, purse.caller, purse.tiers)

    def _remember(self, closed_id: str) -> None:
        self._closed.add(closed_id)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
