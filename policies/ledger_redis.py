"""The ledger of several replicas on one Redis (or Valkey, also in a cluster): every step is one versioned Lua script.

All keys of a tenant share the hash tag `{tenant}` and carry no time to live, so that no eviction policy touches money.
Windows and leases follow the server's clock: the client sends the windows around its own present, the script chooses.
Scripts may be sent twice by a client library; they are idempotent.

When Redis is away (no answer within `TIMEOUT_S`; then left alone until it answers again) the tenant's policy decides:
- `closed`: `reserve` raises Unavailable.
- `open`: requests go on without a hold.
- `local_share`: this replica grants holds from its share, what was last seen free divided by the replicas, once.
In every mode settlements that could not be delivered are kept and booked when the store is back, so the books balance.
A hold whose answer was lost is released the same way. A killed Redis process with `appendfsync everysec` keeps
everything it acknowledged; a power cut may lose a second, a failover what was not replicated: settlements of holds that
are lost so are booked anew, holds themselves are not.
"""

import asyncio
import contextlib
from typing import Literal, NamedTuple

import msgspec

from core.clock import Clock
from core.errors import BudgetExhausted, InvalidRequest, Unavailable
from core.identity import Caller
from core.plan import Standing
from core.rules import Budget, TenantPolicy
from policies.alerts import Bell
from policies.books import KEEP_ENDED_S, alert_window, exhausted
from policies.budgets import MAX_USERS, Account, limits_for
from policies.ledger import (
    NOTHING,
    Alert,
    Balance,
    Cost,
    Hold,
    OnAlert,
    check_account,
    check_grant,
    standing_of,
)
from policies.outage import Backlog, Shares, seen_as
from policies.redis_draws import Draws, account_in, alert_name, moment
from policies.redis_scripts import PAUSE_S, TIMEOUT_S, Commands, Script
from policies.redis_store import TENANTS, RedisStore
from policies.redis_wire import StoreAway

RESERVE, SETTLE, REAP, SUMS = Script("reserve"), Script("settle"), Script("reap"), Script("sums")
GRANT, ALERT = Script("grant"), Script("alert")
REAPED_AT_ONCE = 200
DELIVERED_AT_ONCE = 100
StoreState = Literal["ok", "away"]


class Refusal(NamedTuple):
    """Why a hold was refused, and whether slices of replicas could make room if they were recalled."""

    error: BudgetExhausted
    is_recallable: bool


class RedisLedger:
    """A `BudgetLedger` and `Treasury` that replicas share."""

    def __init__(
        self,
        client: Commands,
        clock: Clock,
        *,
        replicas: int = 1,
        timeout_s: float = TIMEOUT_S,
        server_time: bool = True,
        on_alert: OnAlert | None = None,
        max_users: int = MAX_USERS,
    ) -> None:
        """Use `client`, best a `Wire`; with `server_time=False` the clock given counts, for simulations."""
        self.store = RedisStore(client, clock, timeout_s=timeout_s, server_time=server_time, max_users=max_users)
        self._on_alert = on_alert
        self._bell = Bell()
        self._backlog = Backlog()
        self._shares = Shares(replicas)
        self._is_delivering = False

    @property
    def state(self) -> StoreState:
        """Return whether the store answers, for metrics and headers."""
        return "away" if self.is_away else "ok"

    @property
    def is_away(self) -> bool:
        """Tell whether the store failed to answer and has not answered since."""
        return self.store.door.is_shut

    @property
    def waiting_settlements(self) -> int:
        """Return how many settlements wait for the store to come back."""
        return len(self._backlog)

    async def standing(self, caller: Caller, policy: TenantPolicy) -> Standing:
        """Return what the caller may still spend; while the store is away, what was last seen."""
        if not policy.budgets:
            return Standing()
        try:
            flat, draws = await self.store.run_drawn(SUMS, policy.tenant, lambda: self.store.drawing.of(policy, caller))
        except StoreAway:
            return self.last_standing(caller)
        return self.standing_from(caller, policy, draws, flat)

    def standing_from(self, caller: Caller, policy: TenantPolicy, draws: Draws, flat: list[int]) -> Standing:
        """Return the standing that sums read along with something else amount to, and remember it for outages."""
        balances = _balances(draws, flat)
        self._shares.saw(seen_as(caller), standing_of(balances, count_leased=False))
        return standing_of(balances)

    def last_standing(self, caller: Caller) -> Standing:
        """Return what was last seen of a caller."""
        return self._shares.last_seen(seen_as(caller))

    async def reserve(self, hold: Hold) -> None:
        """Hold the amount or raise BudgetExhausted; while the store is away, do as the policy says."""
        refusal = await self.try_reserve(hold)
        if refusal is not None:
            raise refusal.error

    async def try_reserve(self, hold: Hold, recall_on: str = "") -> Refusal | None:
        """Hold the amount or say why not; a refusal that slices could lift is called out on the channel `recall_on`.

        Raises:
            BudgetExhausted: the store is away, and this replica's share is used up.
            Unavailable: the store is away, and the policy says `closed`.
        """
        if not self._draws(hold):
            return None
        try:
            reply, draws = await self.store.run_drawn(
                RESERVE, hold.policy.tenant, lambda: self._draws(hold),
                hold.reservation_id, hold.amount_nano_usd, int(hold.lease_s * 1000), after=(recall_on,),
            )  # fmt: skip
        except StoreAway as away:
            self._reserve_without_store(hold, away)
            return None
        if reply[0] == 1:
            return None
        refusing = []
        for at in range(2, len(reply), 4):
            number, free, granted, ends_at_ms = reply[at : at + 4]
            draw = draws.each[number - 1]
            refusing.append((draw.budget, draw.budget.limit_nano_usd + granted, free, moment(ends_at_ms)))
        return Refusal(exhausted(hold, refusing), bool(reply[1]))

    async def settle(self, hold: Hold, cost: Cost) -> None:
        """Charge the cost and release the rest, or keep it until the store is back."""
        if not hold.policy.budgets:
            return
        try:
            await self._settle(hold, cost)
        except StoreAway:
            self._shares.settle(hold, cost)
            self._backlog.keep(hold, cost)
        else:
            await self.deliver()  # the store answers, so what waited goes along

    async def deliver(self) -> None:
        """Book the settlements that wait; those that still cannot be delivered go on waiting."""
        if self._backlog and not self._is_delivering:
            with contextlib.suppress(StoreAway):
                await self._deliver()

    async def reap(self) -> int:
        """Deliver what waited, then charge expired holds of all tenants in full; 0 while the store is away."""
        count = 0
        try:
            await self._deliver()
            for tenant in await self.store.door.ask("SMEMBERS", TENANTS):
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
            accounts = await self._accounts(policy)
            flat, draws = await self.store.run_drawn(
                SUMS, policy.tenant, lambda: self.store.drawing.of_accounts(accounts)
            )
        except StoreAway as away:
            raise _unavailable() from away
        return tuple(_balances(draws, flat))

    async def grant(self, policy: TenantPolicy, account: Account, nano_usd: int, grant_id: str) -> None:
        """Raise the limits of one account in its present window."""
        check_grant(nano_usd)
        await self._grant(policy, account, nano_usd, grant_id)

    async def reset(self, policy: TenantPolicy, account: Account, grant_id: str) -> None:
        """Grant what the account has spent in its present window."""
        await self._grant(policy, account, "reset", grant_id)

    async def alert(self, tenant: str, draws: Draws, spent: list[int]) -> None:
        """Raise the alerts that are due, once for all replicas; `spent` is what `spent_now` in common.lua returns."""
        if self._on_alert is None or not draws.has_alerts:
            return
        now = self.store.drawing.now()
        due: list[tuple[Alert, str, int]] = []
        for at, draw in enumerate(draws.each[: len(spent) // 3]):
            nano_usd, granted, chosen = spent[3 * at : 3 * at + 3]
            limit = draw.budget.limit_nano_usd + granted
            window_id, until = alert_window(draw.budget, draw.window(chosen), now)
            for alert in self._bell.due(draw.account, draw.budget, window_id, until, nano_usd, limit, now):
                due.append((alert, *alert_name(draw, chosen, alert.percent, limit)))
        if not due:
            return
        claims = [part for _, name, silence in due for part in (name, silence)]
        try:
            won = await self.store.run(ALERT, tenant, *claims)
        except StoreAway:
            won = [1] * len(due)  # better twice than never
        for (alert, _, _), is_ours in zip(due, won, strict=True):
            if is_ours:
                self._on_alert(alert)

    async def _deliver(self) -> None:
        """Book what waits, many at once: an outage leaves thousands of settlements, each of which still holds money."""
        self._is_delivering = True
        try:
            count = 1  # the first one finds out whether the store is back
            while waiting := self._backlog.first(count):
                count = DELIVERED_AT_ONCE
                await asyncio.gather(*(self._settle(hold, cost) for hold, cost in waiting))
                for hold, _ in waiting:
                    self._backlog.done(hold)
        finally:
            self._is_delivering = False

    async def _accounts(self, policy: TenantPolicy) -> list[tuple[Account, Budget]]:
        """Return every budget of the policy, those per key and per user once for every account that was used."""
        names = await self.store.door.ask("HKEYS", self.store.keys(policy.tenant)[0])
        used = {account_in(policy.tenant, name.decode()) for name in names if name[-1:] in (b"r", b"s", b"g")}
        found = []
        for account, budget in limits_for(policy, Caller(policy.tenant, "")):
            if budget.per == "tenant":
                found.append((account, budget))
                continue
            found += [
                (one, budget)
                for one in sorted(used)
                if one._replace(key_id="", user=account.user) == account
                and bool(one.key_id) == (budget.per == "key")
                and bool(one.user) == (budget.per == "user")
            ]
        return found

    async def _grant(self, policy: TenantPolicy, account: Account, amount: int | str, grant_id: str) -> None:
        budget = check_account(policy, account)
        try:
            reply, _ = await self.store.run_drawn(
                GRANT, policy.tenant, lambda: self.store.drawing.of_accounts([(account, budget)]), grant_id, amount
            )
        except StoreAway as away:
            raise _unavailable() from away
        if not reply[0]:
            raise InvalidRequest("More would be taken back than was granted in this window.", param="amount")

    async def _settle(self, hold: Hold, cost: Cost) -> None:
        wants_spent = self._on_alert is not None and self._draws(hold).has_alerts
        parts = msgspec.msgpack.encode(dict(cost.by_tier)) if cost.by_tier else b""
        reply, draws = await self.store.run_drawn(
            SETTLE, hold.policy.tenant, lambda: self._draws(hold),
            hold.reservation_id, cost.total_nano_usd, parts, after=("1" if wants_spent else "",),
        )  # fmt: skip
        if len(reply) > 1:
            await self.alert(hold.policy.tenant, draws, reply[1])

    async def _reap(self, tenant: str) -> int:
        count, last = 0, REAPED_AT_ONCE
        while last == REAPED_AT_ONCE:
            last = await self.store.run(REAP, tenant, REAPED_AT_ONCE, int(KEEP_ENDED_S * 1000))
            count += last
        return count

    def _reserve_without_store(self, hold: Hold, away: StoreAway) -> None:
        match hold.policy.on_store_outage:
            case "closed":
                if away.may_have_run:
                    self._backlog.keep(hold, NOTHING)
                raise _unavailable() from away
            case "local_share":
                self._shares.grant(hold)
            case "open":
                return

    def _draws(self, hold: Hold) -> Draws:
        return self.store.drawing.of(hold.policy, hold.caller, hold.tiers)


def _balances(draws: Draws, flat: list[int]) -> list[Balance]:
    """Read what sums.lua returns."""
    found = []
    for at, draw in enumerate(draws.each):
        chosen, reserved, spent, granted, unconfirmed, leased = flat[6 * at : 6 * at + 6]
        window = draw.window(chosen)
        found.append(
            Balance(
                draw.account, draw.budget, window.window_id, window.starts_at, window.ends_at,
                reserved, spent, unconfirmed, granted, leased,
            )
        )  # fmt: skip
    return found


def _unavailable() -> Unavailable:
    return Unavailable("The budget store is away.", retry_after_s=PAUSE_S)
