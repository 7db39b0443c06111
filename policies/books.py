"""The arithmetic of a ledger in one process: accounts, open holds and closed ones; no I/O and no waiting.

Every change is atomic because nothing here awaits; the caller runs it on one thread. A `Change` describes what must be
written down to survive, for ledgers that do. A hold in a rolling window and its charge lie in the part in which the
hold was made, and count as long as that part does.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

import msgspec

from core.errors import BudgetExhausted, InvalidRequest
from core.identity import Caller
from core.money import usd_text
from core.plan import Standing
from core.recent import RecentIds
from core.rules import Budget, TenantPolicy
from policies.alerts import Bell
from policies.budgets import MAX_USERS, Account
from policies.ledger import Balance, Cost, Hold, OnAlert, check_account, check_grant, standing_of
from policies.lines import Line, LineKey, Lines, Place
from policies.windows import PARTS, Calendar, Window, part_s

REMEMBERED_IDS = 100_000
"""How many closed holds are remembered, so that repeats change nothing; the oldest are forgotten first."""
KEEP_ENDED_S = 2 * 86_400.0


class LineState(msgspec.Struct, frozen=True, gc=False):
    """What of a line must survive; `reserved` follows from the open holds."""

    key: LineKey
    ends_at_s: float
    spent: int
    unconfirmed: int
    granted: int


class OpenHold(msgspec.Struct, frozen=True, gc=False):
    """A granted hold that is not settled; it keeps its lines, whatever becomes of their window."""

    reservation_id: str
    amount_nano_usd: int
    lease_until_s: float
    lines: tuple[Line, ...]


class Change(msgspec.Struct, frozen=True, gc=False):
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
        self._bell = Bell()
        self._lines = Lines(calendar, max_users)
        self._open: dict[str, OpenHold] = {}
        self._settled = RecentIds(REMEMBERED_IDS)
        self._reaped: OrderedDict[str, OpenHold] = OrderedDict()

    def restore(self, lines: Iterable[Line], holds: Iterable[OpenHold]) -> None:
        """Take over what was written down; the holds must point to these lines."""
        for line in lines:
            line.restored = line.spent
            self._lines.put(line)
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
        now_s, amount = self._calendar.unix_s(), hold.amount_nano_usd
        places = self._touched(hold, now_s)
        refusing: list[tuple[Budget, int, int, datetime]] = []
        for place in places:
            budget = place.budget
            if budget.soft or not amount:
                continue
            sums = self._lines.sums(place)
            limit = budget.limit_nano_usd + sums.granted
            free = limit - sums.reserved - sums.spent
            if amount > free:
                refusing.append((budget, limit, free, place.window.ends_at))
        if refusing:
            raise exhausted(hold, refusing)
        self._open_hold(hold, self._lines_of(places), now_s)

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
        now_s = self._calendar.unix_s()
        expired = [hold for hold in self._open.values() if hold.lease_until_s <= now_s]
        for hold in expired:
            del self._open[hold.reservation_id]
            for line in hold.lines:
                line.reserved -= hold.amount_nano_usd
                line.spent += hold.amount_nano_usd
                line.unconfirmed += hold.amount_nano_usd
            self._reaped[hold.reservation_id] = hold
            self._write(None, hold.reservation_id, hold.lines)
        while len(self._reaped) > REMEMBERED_IDS:
            self._reaped.popitem(last=False)
        self._lines.drop_old(now_s - KEEP_ENDED_S)
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
        places = self._lines.places(policy, caller, self._calendar.unix_s())
        return standing_of([self._balance(place) for place in places])

    def balances(self, policy: TenantPolicy) -> list[Balance]:
        """Return the tenant's budgets, those per key and per user once for every account that was used."""
        now_s = self._calendar.unix_s()
        return [
            self._balance(place)
            for budget in policy.budgets
            for place in self._lines.used(budget, policy.tenant, now_s)
        ]

    def _balance(self, place: Place) -> Balance:
        sums, window = self._lines.sums(place), place.window
        return Balance(
            place.account, place.budget, window.window_id, window.starts_at, window.ends_at,
            sums.reserved, sums.spent, sums.unconfirmed, sums.granted,
        )  # fmt: skip

    def _touched(self, hold: Hold, now_s: float) -> Sequence[Place]:
        """Return where the hold counts: everywhere, but for budgets of tiers that it does not use."""
        places = self._lines.places(hold.policy, hold.caller, now_s)
        for place in places:
            if not hold.touches(place.account):
                return [one for one in places if hold.touches(one.account)]
        return places

    def _is_known(self, reservation_id: str) -> bool:
        return reservation_id in self._open or reservation_id in self._settled or reservation_id in self._reaped

    def _lines_of(self, places: Sequence[Place]) -> tuple[Line, ...]:
        """Return the lines of the places, each once."""
        if len(places) == 1:
            return (self._lines.line(places[0]),)
        return tuple({place.key: self._lines.line(place) for place in places}.values())

    def _line_and_sums(self, policy: TenantPolicy, account: Account) -> tuple[Line, Line]:
        place = self._lines.place(account, check_account(policy, account), self._calendar.unix_s())
        return self._lines.line(place), self._lines.sums(place)

    def _grant(self, line: Line, nano_usd: int, grant_id: str) -> None:
        line.granted += nano_usd
        self._remember(grant_id)
        self._write(None, None, (line,))

    def _remember(self, closed_id: str) -> None:
        self._settled.add(closed_id)

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
            line.spent += cost.in_tier(line.key.account.tier)
        self._write(None, hold.reservation_id, hold.lines)

    def _correct(self, hold: OpenHold, cost: Cost) -> None:
        for line in hold.lines:
            line.spent += cost.in_tier(line.key.account.tier) - hold.amount_nano_usd
            line.unconfirmed -= hold.amount_nano_usd
        self._write(None, None, hold.lines)

    def _charge_lost(self, hold: Hold, cost: Cost) -> OpenHold:
        lines = self._lines_of(self._touched(hold, self._calendar.unix_s()))
        for line in lines:
            line.spent += cost.in_tier(line.key.account.tier)
        self._write(None, None, lines)
        return OpenHold(hold.reservation_id, 0, 0.0, lines)

    def _alert(self, hold: Hold) -> None:
        """Raise the alerts that the present sums call for and that were not raised in this window."""
        if self._on_alert is None:
            return
        for budget in hold.policy.budgets:
            if budget.alerts_percent:
                break
        else:
            return
        now = self._calendar.now()
        for place in self._touched(hold, now.timestamp()):
            budget, sums = place.budget, self._lines.sums(place)
            if not budget.alerts_percent:
                continue
            limit = budget.limit_nano_usd + sums.granted
            window_id, until = alert_window(budget, place.window, now)
            for alert in self._bell.due(place.account, budget, window_id, until, sums.spent, limit, now):
                if sums.restored * 100 < alert.percent * limit or not sums.restored:
                    self._on_alert(alert)

    def _write(self, opened: OpenHold | None, closed_id: str | None, lines: tuple[Line, ...]) -> None:
        if self._journal is not None:
            states = [LineState(line.key, line.ends_at_s, line.spent, line.unconfirmed, line.granted) for line in lines]
            self._journal(Change(opened, closed_id, tuple(states)))


def alert_window(budget: Budget, window: Window, now: datetime) -> tuple[str, datetime]:
    """Return the window that an alert is raised once in: a calendar window, or the length of a rolling one from now."""
    if not budget.rolling:
        return window.window_id, window.ends_at
    return "", now + timedelta(seconds=part_s(budget.window) * PARTS)


def exhausted(hold: Hold, refusing: Iterable[tuple[Budget, int, int, datetime]]) -> BudgetExhausted:
    """Explain a refusal by the budget that resets last; each entry is (budget, limit, free, end of its window)."""
    budget, limit, free, resets_at = max(refusing, key=lambda entry: entry[3])
    kind = f"rolling {budget.window}" if budget.rolling else budget.window
    return BudgetExhausted(
        f"The {kind} budget of {usd_text(limit)} USD has {usd_text(max(0, free))} USD left, "
        f"and this request may cost {usd_text(hold.amount_nano_usd)} USD.",
        resets_at,
    )
