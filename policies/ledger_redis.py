"""The ledger of several replicas on one Redis (or Valkey, also in a cluster): every step is one versioned Lua script.

All keys of a tenant share the hash tag `{tenant}` and carry no time to live, so that no eviction policy touches money.
Windows and leases follow the server's clock: the client sends the windows around its own present, the script chooses.
Scripts may be sent twice by the client library; they are idempotent.

When Redis is away (`TIMEOUT_S`, then left alone for `PAUSE_S`) the tenant's policy decides:
- `closed`: `reserve` raises Unavailable.
- `open`: requests go on without a hold.
- `local_share`: this replica grants holds from its share, what was last seen free divided by the replicas, once.
In every mode settlements that could not be delivered are kept and booked when the store is back, so the books balance.
A hold whose answer was lost is released the same way. A killed Redis process with `appendfsync everysec` keeps
everything it acknowledged; a power cut may lose a second, a failover what was not replicated: settlements of holds that
are lost so are booked anew, holds themselves are not.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from redis.asyncio import Redis

from core.clock import Clock
from core.errors import Unavailable
from core.identity import Caller
from core.plan import Standing
from core.rules import Budget, TenantPolicy
from policies.books import KEEP_ENDED_S, exhausted
from policies.budgets import Account, is_per_key, limits_for
from policies.ledger import NOTHING, Balance, Cost, Hold, standing_of
from policies.outage import Backlog, Shares
from policies.redis_scripts import PAUSE_S, TIMEOUT_S, Door, Script, StoreAway
from policies.windows import Window, window_at

RESERVE, SETTLE, REAP, SUMS = Script("reserve"), Script("settle"), Script("reap"), Script("sums")
PREFIX = "headgate:1"
TENANTS = f"{PREFIX}:tenants"
REAPED_AT_ONCE = 200
_SEPARATOR = "\x1f"
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class _Limit:
    """One budget of a call, with three windows around the client's present."""

    account: Account
    budget: Budget
    windows: tuple[Window, Window, Window]

    def arguments(self) -> list[str]:
        """Write the limit as the scripts read it."""
        _, *scope = self.account
        written = [_SEPARATOR.join(scope), str(self.budget.limit_nano_usd)]
        for window in self.windows:
            written += [str(_ms(window.starts_at)), f"{window.window_id}{_SEPARATOR}{_ms(window.ends_at)}"]
        return written


class RedisLedger:
    """A `BudgetLedger` that replicas share."""

    def __init__(
        self,
        client: Redis,
        clock: Clock,
        *,
        replicas: int = 1,
        timeout_s: float = TIMEOUT_S,
        server_time: bool = True,
    ) -> None:
        """Use `client`, best one of `connect`; with `server_time=False` the clock given counts, for simulations."""
        self._door = Door(client, clock, timeout_s)
        self._clock = clock
        self._server_time = server_time
        self._around: dict[tuple[str, str], tuple[Window, Window, Window]] = {}
        self._backlog = Backlog()
        self._shares = Shares(replicas)
        self._announced: set[str] = set()

    @property
    def is_away(self) -> bool:
        """Tell whether the store failed to answer a moment ago."""
        return self._door.is_shut

    @property
    def waiting_settlements(self) -> int:
        """Return how many settlements wait for the store to come back."""
        return len(self._backlog)

    async def standing(self, caller: Caller, policy: TenantPolicy) -> Standing:
        """Return what the caller may still spend; while the store is away, what was last seen."""
        limits = [limit for limit in self._limits(policy, caller) if not limit.account.tier]
        if not limits:
            return Standing()
        seen_as = (policy.tenant, caller.key_id)
        try:
            standing = standing_of(await self._balances(policy.tenant, limits))
        except StoreAway:
            return self._shares.last_seen(seen_as)
        self._shares.saw(seen_as, standing)
        return standing

    async def reserve(self, hold: Hold) -> None:
        """Hold the amount or raise BudgetExhausted; while the store is away, do as the policy says."""
        limits = [limit for limit in self._limits(hold.policy, hold.caller) if hold.touches(limit.account)]
        if not limits:
            return
        head = [self._now(), hold.reservation_id, str(hold.amount_nano_usd), str(int(hold.lease_s * 1000))]
        try:
            await self._announce(hold.policy.tenant)
            granted, *refused = await self._door.run(RESERVE, _keys(hold.policy.tenant), head + _flat(limits))
        except StoreAway as away:
            self._reserve_without_store(hold, away)
            return
        if not granted:
            raise exhausted(
                hold,
                [
                    (limits[at - 1].budget, used, limits[at - 1].windows[window - 1].ends_at)
                    for at, window, used in _triples(refused)
                ],
            )

    async def settle(self, hold: Hold, cost: Cost) -> None:
        """Charge the cost and release the rest, or keep it until the store is back."""
        if not hold.policy.budgets:
            return
        try:
            await self._settle(hold, cost)
        except StoreAway:
            self._shares.settle(hold, cost)
            self._backlog.keep(hold, cost)

    async def reap(self) -> int:
        """Deliver what waited, then charge expired holds of all tenants in full; 0 while the store is away."""
        count = 0
        try:
            while (waiting := self._backlog.first()) is not None:
                await self._settle(*waiting)
                self._backlog.done(waiting[0])
            for tenant in await self._door.ask(lambda client: client.smembers(TENANTS)):
                count += await self._reap(tenant.decode())
        except StoreAway:
            return count
        return count

    async def balances(self, policy: TenantPolicy) -> tuple[Balance, ...]:
        """Return the tenant's budgets.

        Raises:
            Unavailable: the store is away.
        """
        try:
            names = await self._door.ask(lambda client: client.hkeys(_keys(policy.tenant)[0]))
            limits = dict.fromkeys(
                limit
                for key_id in sorted({name.decode().partition(_SEPARATOR)[0] for name in names} | {""})
                for limit in self._limits(policy, Caller(policy.tenant, key_id))
                if bool(limit.account.key_id) == is_per_key(limit.budget)
            )
            return tuple(await self._balances(policy.tenant, list(limits)))
        except StoreAway as away:
            raise Unavailable("The budget store is away.", retry_after_s=1.0) from away

    async def _balances(self, tenant: str, limits: list[_Limit]) -> list[Balance]:
        if not limits:
            return []
        flat = await self._door.run(SUMS, _keys(tenant), [self._now(), *_flat(limits)])
        found = []
        for at, limit in enumerate(limits):
            chosen, reserved, spent, unconfirmed = flat[4 * at : 4 * at + 4]
            window = limit.windows[chosen - 1]
            found.append(
                Balance(
                    limit.account, limit.budget, window.window_id, window.starts_at, window.ends_at,
                    reserved, spent, unconfirmed,
                )
            )  # fmt: skip
        return found

    async def _settle(self, hold: Hold, cost: Cost) -> None:
        parts = [text for tier, part in cost.by_tier.items() for text in (tier, str(part))]
        head = [self._now(), hold.reservation_id, str(cost.total_nano_usd), str(len(cost.by_tier)), *parts]
        limits = [limit for limit in self._limits(hold.policy, hold.caller) if hold.touches(limit.account)]
        await self._door.run(SETTLE, _keys(hold.policy.tenant), head + _flat(limits))

    async def _reap(self, tenant: str) -> int:
        count, last = 0, REAPED_AT_ONCE
        while last == REAPED_AT_ONCE:
            arguments = [self._now(), str(REAPED_AT_ONCE), str(int(KEEP_ENDED_S * 1000))]
            last = await self._door.run(REAP, _keys(tenant), arguments)
            count += last
        return count

    async def _announce(self, tenant: str) -> None:
        """Make the tenant known to the reapers of all replicas, once per process."""
        if tenant not in self._announced:
            await self._door.ask(lambda client: client.sadd(TENANTS, tenant))
            self._announced.add(tenant)

    def _reserve_without_store(self, hold: Hold, away: StoreAway) -> None:
        match hold.policy.on_store_outage:
            case "closed":
                if away.may_have_run:
                    self._backlog.keep(hold, NOTHING)
                raise Unavailable("The budget store is away.", retry_after_s=PAUSE_S) from away
            case "local_share":
                self._shares.grant(hold)
            case "open":
                return

    def _limits(self, policy: TenantPolicy, caller: Caller) -> list[_Limit]:
        return [_Limit(account, budget, self._windows(budget)) for account, budget in limits_for(policy, caller)]

    def _windows(self, budget: Budget) -> tuple[Window, Window, Window]:
        """Return the windows before, at and after the client's present, remembered until the present one ends."""
        now, key = self._clock.now(), (budget.window, budget.zone.key)
        known = self._around.get(key)
        if known is None or not known[1].starts_at <= now < known[1].ends_at:
            window = window_at(budget.window, budget.zone, now)
            known = self._around[key] = (
                window_at(budget.window, budget.zone, window.starts_at - _INSTANT),
                window,
                window_at(budget.window, budget.zone, window.ends_at),
            )
        return known

    def _now(self) -> str:
        return "0" if self._server_time else str(_ms(self._clock.now()))


def _keys(tenant: str) -> tuple[str, ...]:
    names = ("lines", "holds", "leases", "reaped", "closed", "ends")
    return tuple(f"{PREFIX}:{{{tenant}}}:{name}" for name in names)


def _flat(limits: list[_Limit]) -> list[str]:
    return [text for limit in limits for text in limit.arguments()]


def _triples(numbers: list[int]) -> list[tuple[int, int, int]]:
    return [(numbers[at], numbers[at + 1], numbers[at + 2]) for at in range(0, len(numbers), 3)]


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
