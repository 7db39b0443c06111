"""Budgets as the Lua scripts read them: one packed value per request, kept for as long as its windows hold.

A request sends the windows around its replica's present and the server's clock chooses. A replica whose clock is too
wrong for that is told the server's time and asks again; from then on it knows by how much it is off.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from core.clock import Clock
from core.identity import Caller
from core.rules import Budget, TenantPolicy
from policies.budgets import OTHER_USERS, Account, limits_for
from policies.windows import PARTS, Window, part_s, rolling_part, window_at

SEPARATOR = "\x1f"
PREFIX = "headgate:2"
KEPT_PACKED = 20_000
_EPOCH = datetime.fromtimestamp(0, UTC)
_NEVER = datetime.max.replace(tzinfo=UTC)
_INSTANT = timedelta(microseconds=1)
_KEYS = ("lines", "holds", "leases", "reaped", "closed", "ends", "slices", "alerts")


@dataclass(frozen=True, slots=True)
class Draw:
    """One budget of a call; for a calendar, with three windows around the client's present."""

    account: Account
    budget: Budget
    windows: tuple[Window, ...]

    def window(self, chosen: int) -> Window:
        """Return the window that a script chose: one of three, or a part of a rolling one by its number."""
        return rolling_part(self.budget.window, chosen) if self.budget.rolling else self.windows[chosen - 1]

    def written(self, max_users: int) -> list[str | int]:
        """Return the budget as `draws` in common.lua reads it."""
        account = self.account
        others = account._replace(user=OTHER_USERS) if account.user else None
        head: list[str | int] = [
            line_prefix(account),
            -1 if self.budget.soft else self.budget.limit_nano_usd,
            part_s(self.budget.window) * 1000 if self.budget.rolling else 0,
            line_prefix(others) if others else "",
            max_users,
        ]
        for window in self.windows:
            head += [ms(window.starts_at), f"{window.window_id}{SEPARATOR}{ms(window.ends_at)}"]
        return [*head, ms(self.windows[-1].ends_at)] if self.windows else head


@dataclass(frozen=True, slots=True)
class Draws:
    """The budgets of one call, and their packed form, which is current until `good_until`."""

    each: tuple[Draw, ...]
    packed: bytes
    good_until: datetime
    has_alerts: bool

    def __bool__(self) -> bool:
        return bool(self.each)


class Drawing:
    """Makes and keeps packed budgets; `max_users` as in `budgets`."""

    def __init__(self, clock: Clock, max_users: int) -> None:
        self._clock = clock
        self._max_users = max_users
        self._ahead = timedelta(0)
        self._around: dict[tuple[str, str], tuple[Window, Window, Window]] = {}
        self._kept: OrderedDict[tuple[object, ...], Draws] = OrderedDict()

    def now(self) -> datetime:
        """Return the store's time as far as it is known."""
        return self._clock.now() + self._ahead

    def set_server_time(self, server_ms: int) -> None:
        """Learn by how much this clock is off."""
        self._ahead = _EPOCH + timedelta(milliseconds=server_ms) - self._clock.now()
        self._kept.clear()

    def of(self, policy: TenantPolicy, caller: Caller, tiers: frozenset[str] | None = None) -> Draws:
        """Return what a request draws on: budgets of other tiers than `tiers` left out, unless that is None."""
        key = (policy.tenant, policy.version, caller.key_id, caller.user, tiers)
        known = self._kept.get(key)
        if known is not None and self.now() < known.good_until:
            return known
        made = self.of_accounts(
            (account, budget)
            for account, budget in limits_for(policy, caller)
            if tiers is None or not account.tier or account.tier in tiers
        )
        self._kept[key] = made
        self._kept.move_to_end(key)
        if len(self._kept) > KEPT_PACKED:
            self._kept.popitem(last=False)
        return made

    def of_accounts(self, accounts: Iterable[tuple[Account, Budget]]) -> Draws:
        """Return the given accounts with their present windows."""
        each = tuple(
            Draw(account, budget, () if budget.rolling else self._windows(budget)) for account, budget in accounts
        )
        return Draws(
            each,
            msgspec.msgpack.encode([draw.written(self._max_users) for draw in each]),
            min((draw.windows[1].ends_at for draw in each if draw.windows), default=_NEVER),
            any(draw.budget.alerts_percent for draw in each),
        )

    def _windows(self, budget: Budget) -> tuple[Window, Window, Window]:
        """Return the windows before, at and after the present, remembered until the present one ends."""
        now, key = self.now(), (budget.window, budget.zone.key)
        known = self._around.get(key)
        if known is None or not known[1].starts_at <= now < known[1].ends_at:
            window = window_at(budget.window, budget.zone, now)
            known = self._around[key] = (
                window_at(budget.window, budget.zone, window.starts_at - _INSTANT),
                window,
                window_at(budget.window, budget.zone, window.ends_at),
            )
        return known


def keys_of(tenant: str) -> tuple[str, ...]:
    """Return the keys of a tenant, which share a hash tag, as the scripts expect them."""
    return tuple(f"{PREFIX}:{{{tenant}}}:{name}" for name in _KEYS)


def line_prefix(account: Account) -> str:
    """Write an account as the lines of a tenant begin: key, user, tier, window, zone."""
    return SEPARATOR.join(account[1:])


def account_in(tenant: str, field: str) -> Account:
    """Read the account from the name of a line or of one of its fields."""
    key_id, user, tier, window, zone, *_ = field.split(SEPARATOR)
    return Account(tenant, key_id, user, tier, window, zone)


def alert_name(draw: Draw, chosen: int, percent: int, limit: int) -> tuple[str, int]:
    """Return under which name an alert is claimed, and its silence as alert.lua takes it."""
    if draw.budget.rolling:
        name, silence = "", part_s(draw.budget.window) * PARTS * 1000
    else:
        window = draw.window(chosen)
        name, silence = window.window_id, -ms(window.ends_at)
    return SEPARATOR.join((line_prefix(draw.account), name, str(percent), str(limit))), silence


def moment(unix_ms: int) -> datetime:
    """Return the moment of Unix milliseconds, in UTC."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC)


def ms(moment: datetime) -> int:
    """Return Unix milliseconds."""
    return int(moment.timestamp() * 1000)
