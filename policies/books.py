"""The arithmetic of a ledger in one process: accounts, open holds and closed ones; no I/O and no waiting.

Every change is atomic because nothing here awaits; the caller runs it on one thread. A `Change` describes what must be
written down to survive, for ledgers that do. A rolling window is the sum of its parts, each a line of its own: a hold
and its charge lie in the part in which the hold was made, and count as long as that part does.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

from core.errors import BudgetExhausted, InvalidRequest
from core.identity import Caller
from core.money import usd_text
from core.plan import Standing
from core.rules import Budget, TenantPolicy
from policies.alerts import Bell
from policies.budgets import MAX_USERS, OTHER_USERS, Account, account_of, limits_for
from policies.ledger import Balance, Cost, Hold, OnAlert, check_account, check_grant, standing_of
from policies.windows import PARTS, Calendar, Window, part_s

Closed = TypeVar("Closed")

REMEMBERED_IDS = 100_000
"""How many closed holds are remembered, so that repeats change nothing; the oldest are forgotten first."""
KEEP_ENDED_S = 2 * 86_400.0


class LineKey(NamedTuple):
    """One account in one window, or in one part of a rolling one."""

    account: Account
    window_id: str


@dataclass(slots=True)
class Line:
    """The sums of one account in one window, in nano-USD; `unconfirmed` is part of `spent`.

    `restored` is what was spent when the line was read from a file: alerts up to there were raised before.
    """

    key: LineKey
    ends_at_s: float
    reserved: int = 0
    spent: int = 0
    unconfirmed: int = 0
    granted: int = 0
    restored: int = 0


class LineState(NamedTuple):
    """What of a line must survive; `reserved` follows from the open holds."""

    key: LineKey
    ends_at_s: float
    spent: int
    unconfirmed: int
    granted: int


class Sums(NamedTuple):
    """What counts in one account at present: one line, or the parts of a rolling window."""

    reserved: int = 0
    spent: int = 0
    unconfirmed: int = 0
    granted: int = 0
    restored: int = 0


class Draw(NamedTuple):
    """One budget that a hold draws on, with the account and window it counts in now."""

    account: Account
    budget: Budget
    window: Window


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

    def __init__(
        self,
        calendar: Calendar,
        journal: Callable[[Change], None] | None = None,
        on_alert: OnAlert | None = None,
        max_users: int = MAX_USERS,
    ) -> None:
        self._calendar = calendar
        self._journal = journal
        self._on_alert = on_alert
        self._max_users = max_users
        self._bell = Bell()
        self._lines: dict[LineKey, Line] = {}
        self._parts: dict[Account, dict[int, Line]] = {}
        self._users: Counter[LineKey] = Counter()
        self._open: dict[str, OpenHold] = {}
        self._settled: OrderedDict[str, None] = OrderedDict()
        self._reaped: OrderedDict[str, OpenHold] = OrderedDict()

    def restore(self, lines: Iterable[Line], holds: Iterable[OpenHold]) -> None:
        """Take over what was written down; the holds must point to these lines."""
        for line in lines:
            line.restored = line.spent
            self._put(line)
        for hold in holds:
            self._open[hold.reservation_id] = hold
            for line in hold.lines:
                line.reserved += hold.amount_nano_usd

    def reserve(self, hold: Hold) -> None:
        """Open the hold in all its lines.

        Raises:
            BudgetExhausted: one of them has less free than the amount; nothing is changed.
        """
        if not hold.policy.budgets or self._is_known(hold.reservation_id):
            return
        now = self._calendar.now()
        draws = list(self._draws_of(hold, now))
        refusing: list[tuple[Budget, int, int, datetime]] = []
        for account, budget, window in draws:
            if budget.soft or not hold.amount_nano_usd:
                continue
            sums = self._sums(account, window)
            limit = budget.limit_nano_usd + sums.granted
            free = limit - sums.reserved - sums.spent
            if hold.amount_nano_usd > free:
                refusing.append((budget, limit, free, window.ends_at))
        if refusing:
            raise exhausted(hold, refusing)
        self._open_hold(hold, self._lines_of(draws), now.timestamp())

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
            self._remember(hold.reservation_id)
            self._alert(hold)

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

    def grant(self, policy: TenantPolicy, account: Account, nano_usd: int, grant_id: str) -> None:
        """Raise the account's limits in its present window."""
        check_grant(nano_usd)
        line, sums = self._line_and_sums(policy, account)
        if grant_id in self._settled:
            return
        if sums.granted + nano_usd < 0:
            raise InvalidRequest("More would be taken back than was granted in this window.", param="amount")
        self._grant(line, nano_usd, grant_id)

    def reset(self, policy: TenantPolicy, account: Account, grant_id: str) -> None:
        """Grant what was spent, so that the limit is whole again but for open holds."""
        line, sums = self._line_and_sums(policy, account)
        if grant_id not in self._settled:
            self._grant(line, max(0, sums.spent - sums.granted), grant_id)

    def standing(self, policy: TenantPolicy, caller: Caller) -> Standing:
        """Return what the caller may still spend."""
        now = self._calendar.now()
        return standing_of(
            self._balance(self._placed(account, window), budget, window)
            for account, budget in limits_for(policy, caller)
            for window in (self._window(budget, now),)
        )

    def balances(self, policy: TenantPolicy) -> list[Balance]:
        """Return the tenant's budgets, those per key and per user once for every account that was used."""
        now = self._calendar.now()
        return [
            self._balance(account, budget, window)
            for budget in policy.budgets
            for window in (self._window(budget, now),)
            for account in self._accounts(budget, policy.tenant, window)
        ]

    def _balance(self, account: Account, budget: Budget, window: Window) -> Balance:
        sums = self._sums(account, window)
        return Balance(
            account, budget, window.window_id, window.starts_at, window.ends_at,
            sums.reserved, sums.spent, sums.unconfirmed, sums.granted,
        )  # fmt: skip

    def _accounts(self, budget: Budget, tenant: str, window: Window) -> list[Account]:
        account = account_of(budget, tenant, "")
        if budget.per == "tenant":
            return [account]
        candidates = self._parts if budget.rolling else (
            key.account for key in self._lines if key.window_id == window.window_id
        )  # fmt: skip
        return sorted(
            found for found in candidates
            if found._replace(key_id="", user=account.user) == account
            and bool(found.key_id) == (budget.per == "key") and bool(found.user) == (budget.per == "user")
        )  # fmt: skip

    def _draws_of(self, hold: Hold, now: datetime) -> Iterator[Draw]:
        for account, budget in limits_for(hold.policy, hold.caller):
            if hold.touches(account):
                window = self._window(budget, now)
                yield Draw(self._placed(account, window), budget, window)

    def _window(self, budget: Budget, now: datetime) -> Window:
        if budget.rolling:
            return self._calendar.part(budget.window, now)
        return self._calendar.window(budget.window, budget.zone, now)

    def _placed(self, account: Account, window: Window) -> Account:
        """Return the account itself, or the one of all further users where the user is new and there are too many."""
        if not account.user or LineKey(account, window.window_id) in self._lines:
            return account
        others = account._replace(user=OTHER_USERS)
        return others if self._users[LineKey(others, window.window_id)] >= self._max_users else account

    def _sums(self, account: Account, window: Window) -> Sums:
        if account.rolling_kind is None:
            line = self._lines.get(LineKey(account, window.window_id))
            if line is None:
                return Sums()
            return Sums(line.reserved, line.spent, line.unconfirmed, line.granted, line.restored)
        parts = self._parts.get(account)
        if parts is None:
            return Sums()
        first = int(window.window_id) - PARTS
        counted = [line for part, line in parts.items() if part >= first]
        return Sums(
            sum(line.reserved for line in counted),
            sum(line.spent for line in counted),
            sum(line.unconfirmed for line in counted),
            sum(line.granted for line in counted),
            sum(line.restored for line in counted),
        )

    def _is_known(self, reservation_id: str) -> bool:
        return reservation_id in self._open or reservation_id in self._settled or reservation_id in self._reaped

    def _lines_of(self, draws: Iterable[Draw]) -> tuple[Line, ...]:
        lines = (self._line(account, window) for account, _, window in draws)
        return tuple({line.key: line for line in lines}.values())

    def _line(self, account: Account, window: Window) -> Line:
        key = LineKey(account, window.window_id)
        line = self._lines.get(key)
        return self._put(Line(key, window.ends_at.timestamp())) if line is None else line

    def _put(self, line: Line) -> Line:
        account, window_id = line.key
        self._lines[line.key] = line
        if account.rolling_kind is not None:
            self._parts.setdefault(account, {})[int(window_id)] = line
        if account.user:
            self._users[LineKey(account._replace(user=OTHER_USERS), window_id)] += 1
        return line

    def _line_and_sums(self, policy: TenantPolicy, account: Account) -> tuple[Line, Sums]:
        budget = check_account(policy, account)
        window = self._window(budget, self._calendar.now())
        return self._line(account, window), self._sums(account, window)

    def _grant(self, line: Line, nano_usd: int, grant_id: str) -> None:
        line.granted += nano_usd
        self._remember(grant_id)
        self._write(None, None, (line,))

    def _remember(self, closed_id: str) -> None:
        self._settled[closed_id] = None
        _keep_newest(self._settled)

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
        lines = self._lines_of(self._draws_of(hold, self._calendar.now()))
        for line in lines:
            line.spent += cost.of(line.key.account)
        self._write(None, None, lines)
        return OpenHold(hold.reservation_id, 0, 0.0, lines)

    def _alert(self, hold: Hold) -> None:
        """Raise the alerts that the present sums call for and that were not raised in this window."""
        if self._on_alert is None or not any(budget.alerts_percent for budget in hold.policy.budgets):
            return
        now = self._calendar.now()
        for account, budget, window in self._draws_of(hold, now):
            if not budget.alerts_percent:
                continue
            sums = self._sums(account, window)
            limit = budget.limit_nano_usd + sums.granted
            window_id, until = alert_window(budget, window, now)
            for alert in self._bell.due(account, budget, window_id, until, sums.spent, limit, now):
                if sums.restored * 100 < alert.percent * limit or not sums.restored:
                    self._on_alert(alert)

    def _write(self, opened: OpenHold | None, closed_id: str | None, lines: tuple[Line, ...]) -> None:
        if self._journal is not None:
            states = tuple(
                LineState(line.key, line.ends_at_s, line.spent, line.unconfirmed, line.granted) for line in lines
            )
            self._journal(Change(opened, closed_id, states))

    def _drop_old_lines(self, ended_before_s: float) -> None:
        ended = [key for key, line in self._lines.items() if line.ends_at_s < ended_before_s and not line.reserved]
        for key in ended:
            del self._lines[key]
            self._users.pop(LineKey(key.account._replace(user=OTHER_USERS), key.window_id), None)
            parts = self._parts.get(key.account)
            if parts is not None:
                parts.pop(int(key.window_id), None)
                if not parts:
                    del self._parts[key.account]


def alert_window(budget: Budget, window: Window, now: datetime) -> tuple[str, datetime]:
    """Return the window that an alert is raised once in: a calendar window, or the length of a rolling one from now."""
    if not budget.rolling:
        return window.window_id, window.ends_at
    return "", now + timedelta(seconds=part_s(budget.window) * PARTS)


def _keep_newest(closed: OrderedDict[str, Closed]) -> None:
    while len(closed) > REMEMBERED_IDS:
        closed.popitem(last=False)


def exhausted(hold: Hold, refusing: Iterable[tuple[Budget, int, int, datetime]]) -> BudgetExhausted:
    """Explain a refusal by the budget that resets last; each entry is (budget, limit, free, end of its window)."""
    budget, limit, free, resets_at = max(refusing, key=lambda entry: entry[3])
    kind = f"rolling {budget.window}" if budget.rolling else budget.window
    return BudgetExhausted(
        f"The {kind} budget of {usd_text(limit)} USD has {usd_text(max(0, free))} USD left, "
        f"and this request may cost {usd_text(hold.amount_nano_usd)} USD.",
        resets_at,
    )
