"""The arithmetic of a ledger in one process: accounts, open holds and closed ones; no I/O and no waiting.

Every change is atomic because nothing here awaits; the caller runs it on one thread. A `Change` describes what must be
written down to survive, for ledgers that do.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypeVar

from core.errors import BudgetExhausted
from core.money import usd_text
from core.rules import Budget, TenantPolicy
from policies.budgets import Account, account_of, limits_for
from policies.ledger import Balance, Cost, Hold
from policies.windows import Calendar, Window

Closed = TypeVar("Closed")

REMEMBERED_IDS = 100_000
"""How many closed holds are remembered, so that repeats change nothing; the oldest are forgotten first."""
KEEP_ENDED_S = 2 * 86_400.0


class LineKey(NamedTuple):
    """One account in one window."""

    account: Account
    window_id: str


@dataclass(slots=True)
class Line:
    """The sums of one account in one window, in nano-USD; `unconfirmed` is part of `spent`."""

    key: LineKey
    ends_at_s: float
    reserved: int = 0
    spent: int = 0
    unconfirmed: int = 0


class LineState(NamedTuple):
    """What of a line must survive; `reserved` follows from the open holds."""

    key: LineKey
    ends_at_s: float
    spent: int
    unconfirmed: int


@dataclass(frozen=True, slots=True)
class OpenHold:
    """A granted hold that is not settled; it keeps its lines, whatever becomes of their window."""

    reservation_id: str
    amount_nano_usd: int
    lease_until_s: float
    lines: tuple[Line, ...]


class Change(NamedTuple):
    """One atomic step: a hold that was opened or closed, and the lines that it changed."""

    opened: OpenHold | None
    closed_id: str | None
    lines: tuple[LineState, ...]


class Books:
    """All accounts of one process."""

    def __init__(self, calendar: Calendar, journal: Callable[[Change], None] | None = None) -> None:
        self._calendar = calendar
        self._journal = journal
        self._lines: dict[LineKey, Line] = {}
        self._open: dict[str, OpenHold] = {}
        self._settled: OrderedDict[str, None] = OrderedDict()
        self._reaped: OrderedDict[str, OpenHold] = OrderedDict()

    def restore(self, lines: Iterable[Line], holds: Iterable[OpenHold]) -> None:
        """Take over what was written down; the holds must point to these lines."""
        self._lines = {line.key: line for line in lines}
        for hold in holds:
            self._open[hold.reservation_id] = hold
            for line in hold.lines:
                line.reserved += hold.amount_nano_usd

    def grant(self, hold: Hold) -> None:
        """Open the hold in all its lines.

        Raises:
            BudgetExhausted: one of them has less free than the amount; nothing is changed.
        """
        if not hold.policy.budgets or self._is_known(hold.reservation_id):
            return
        now = self._calendar.now()
        lines: dict[LineKey, Line] = {}
        refusing: list[tuple[Budget, Line, Window]] = []
        for account, budget in limits_for(hold.policy, hold.caller):
            if not hold.touches(account):
                continue
            window = self._calendar.window(budget.window, budget.zone, now)
            line = self._line(account, window)
            lines[line.key] = line
            if 0 < hold.amount_nano_usd > budget.limit_nano_usd - line.reserved - line.spent:
                refusing.append((budget, line, window))
        if refusing:
            raise exhausted(
                hold, [(budget, line.reserved + line.spent, window.ends_at) for budget, line, window in refusing]
            )
        self._open_hold(hold, tuple(lines.values()), now.timestamp())

    def settle(self, hold: Hold, cost: Cost) -> None:
        """Charge `cost` once, whether the hold is open, reaped or lost."""
        known = self._open.pop(hold.reservation_id, None)
        if known is not None:
            self._charge(known, cost)
        elif hold.reservation_id in self._reaped:
            known = self._reaped.pop(hold.reservation_id)
            self._correct(known, cost)
        elif hold.reservation_id not in self._settled and hold.policy.budgets:
            known = self._charge_lost(hold, cost)
        if known is not None:
            self._settled[hold.reservation_id] = None
            _keep_newest(self._settled)

    def reap(self) -> int:
        """Charge expired holds in full, and drop the lines of windows that ended long ago."""
        now_s = self._calendar.now().timestamp()
        expired = [hold for hold in self._open.values() if hold.lease_until_s <= now_s]
        for hold in expired:
            del self._open[hold.reservation_id]
            for line in hold.lines:
                line.reserved -= hold.amount_nano_usd
                line.spent += hold.amount_nano_usd
                line.unconfirmed += hold.amount_nano_usd
            self._reaped[hold.reservation_id] = hold
            self._write(None, hold.reservation_id, hold.lines)
        _keep_newest(self._reaped)
        self._drop_old_lines(now_s - KEEP_ENDED_S)
        return len(expired)

    def balances(self, policy: TenantPolicy, key_id: str | None = None) -> list[Balance]:
        """Return the tenant's budgets, per-key ones for `key_id` alone or, without one, for every key with a line."""
        now = self._calendar.now()
        found: list[Balance] = []
        for budget in policy.budgets:
            window = self._calendar.window(budget.window, budget.zone, now)
            for account in self._accounts(budget, policy.tenant, key_id, window):
                line = self._lines.get(LineKey(account, window.window_id)) or Line(LineKey(account, ""), 0.0)
                found.append(
                    Balance(
                        account, budget, window.window_id, window.starts_at, window.ends_at,
                        line.reserved, line.spent, line.unconfirmed,
                    )
                )  # fmt: skip
        return found

    def _accounts(self, budget: Budget, tenant: str, key_id: str | None, window: Window) -> list[Account]:
        account = account_of(budget, tenant, key_id or "")
        if key_id is not None or account_of(budget, tenant, "any") == account:
            return [account]
        return [
            line.key.account
            for line in self._lines.values()
            if line.key.window_id == window.window_id and line.key.account._replace(key_id="") == account
            and line.key.account.key_id
        ]  # fmt: skip

    def _is_known(self, reservation_id: str) -> bool:
        return reservation_id in self._open or reservation_id in self._settled or reservation_id in self._reaped

    def _line(self, account: Account, window: Window) -> Line:
        key = LineKey(account, window.window_id)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(key, window.ends_at.timestamp())
        return line

    def _open_hold(self, hold: Hold, lines: tuple[Line, ...], now_s: float) -> None:
        opened = OpenHold(hold.reservation_id, hold.amount_nano_usd, now_s + hold.lease_s, lines)
        for line in lines:
            line.reserved += hold.amount_nano_usd
        self._open[hold.reservation_id] = opened
        if self._journal is not None:
            self._journal(Change(opened, None, ()))

    def _charge(self, hold: OpenHold, cost: Cost) -> None:
        for line in hold.lines:
            line.reserved -= hold.amount_nano_usd
            line.spent += cost.of(line.key.account)
        self._write(None, hold.reservation_id, hold.lines)

    def _correct(self, hold: OpenHold, cost: Cost) -> None:
        for line in hold.lines:
            line.spent += cost.of(line.key.account) - hold.amount_nano_usd
            line.unconfirmed -= hold.amount_nano_usd
        self._write(None, None, hold.lines)

    def _charge_lost(self, hold: Hold, cost: Cost) -> OpenHold:
        now = self._calendar.now()
        lines = {
            line.key: line
            for account, budget in limits_for(hold.policy, hold.caller)
            if hold.touches(account)
            for line in (self._line(account, self._calendar.window(budget.window, budget.zone, now)),)
        }
        for line in lines.values():
            line.spent += cost.of(line.key.account)
        self._write(None, None, tuple(lines.values()))
        return OpenHold(hold.reservation_id, 0, 0.0, tuple(lines.values()))

    def _write(self, opened: OpenHold | None, closed_id: str | None, lines: tuple[Line, ...]) -> None:
        if self._journal is not None:
            states = tuple(LineState(line.key, line.ends_at_s, line.spent, line.unconfirmed) for line in lines)
            self._journal(Change(opened, closed_id, states))

    def _drop_old_lines(self, ended_before_s: float) -> None:
        ended = [key for key, line in self._lines.items() if line.ends_at_s < ended_before_s and not line.reserved]
        for key in ended:
            del self._lines[key]


def _keep_newest(closed: OrderedDict[str, Closed]) -> None:
    while len(closed) > REMEMBERED_IDS:
        closed.popitem(last=False)


def exhausted(hold: Hold, refusing: list[tuple[Budget, int, datetime]]) -> BudgetExhausted:
    """Explain a refusal by the budget that resets last; each entry is (budget, reserved + spent, end of its window)."""
    budget, used_nano_usd, resets_at = max(refusing, key=lambda entry: entry[2])
    free = usd_text(max(0, budget.limit_nano_usd - used_nano_usd))
    return BudgetExhausted(
        f"The {budget.window} budget of {usd_text(budget.limit_nano_usd)} USD has {free} USD left, "
        f"and this request may cost {usd_text(hold.amount_nano_usd)} USD.",
        resets_at,
    )
