"""Where budgets count in one process: a line for each account and window, and the way from a request to its lines.

That way is found once for each key and policy, and again when a window ends. Only budgets of end users, of whom there
may be any number, are found anew for each request. A rolling window is the sum of its parts, each a line of its own.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from core.identity import Caller
from core.rules import Budget, TenantPolicy
from policies.budgets import OTHER_USERS, Account, account_of, limits_for
from policies.windows import PARTS, Calendar, Window, part_s

KEPT_PLACES = 50_000
"""For how many keys the way to their lines is remembered."""


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


NO_LINE = Line(LineKey(Account("", "", "", "", "", ""), ""), 0.0)
"""What counts where nothing was ever held; never changed."""


class Place:
    """Where one budget counts for a caller: the account, the window that is present from `from_s` until `until_s`, and
    the line there once something was held in it."""

    __slots__ = ("account", "budget", "from_s", "key", "line", "until_s", "window")

    def __init__(self, account: Account, budget: Budget) -> None:
        self.account = account
        self.budget = budget
        self.from_s = self.until_s = 0.0
        self.window: Window
        self.key: LineKey
        self.line: Line | None = None


class Lines:
    """All lines of one process; of more than `max_users` end users in a window, the further ones share a line."""

    def __init__(self, calendar: Calendar, max_users: int) -> None:
        self._calendar = calendar
        self._max_users = max_users
        self._lines: dict[LineKey, Line] = {}
        self._parts: dict[Account, dict[int, Line]] = {}
        self._users: Counter[LineKey] = Counter()
        self._known: OrderedDict[tuple[str, str], tuple[Sequence[Budget], Sequence[Place]]] = OrderedDict()

    def places(self, policy: TenantPolicy, caller: Caller, now_s: float) -> Sequence[Place]:
        """Return where each budget of the policy counts for this caller, in the policy's order."""
        known = self._known.get((policy.tenant, caller.key_id))
        if known is None or known[0] is not policy.budgets:
            return self._found(policy, caller, now_s)
        for place in known[1]:
            if not place.from_s <= now_s < place.until_s:
                self._move(place, now_s)
        return known[1]

    def place(self, account: Account, budget: Budget, now_s: float) -> Place:
        """Return where a budget counts in this very account."""
        place = Place(account, budget)
        self._move(place, now_s)
        return place

    def sums(self, place: Place) -> Line:
        """Return what counts in a place: its line, or a sum over the parts of a rolling window; for reading alone."""
        if place.budget.rolling:
            return self._rolling_sums(place)
        line = place.line
        if line is None:
            line = place.line = self._lines.get(place.key)
        return NO_LINE if line is None else line

    def line(self, place: Place) -> Line:
        """Return the line of a place, made where there is none."""
        line = place.line
        if line is None:
            line = self._lines.get(place.key)
            if line is None:
                line = self.put(Line(place.key, place.window.ends_at.timestamp()))
            place.line = line
        return line

    def put(self, line: Line) -> Line:
        """Add a line."""
        account, window_id = line.key
        self._lines[line.key] = line
        if account.rolling_kind is not None:
            self._parts.setdefault(account, {})[int(window_id)] = line
        if account.user:
            self._users[LineKey(account._replace(user=OTHER_USERS), window_id)] += 1
        return line

    def used(self, budget: Budget, tenant: str, now_s: float) -> list[Place]:
        """Return where a budget counts at present for anyone: one place, or one for each key or user that used it."""
        account = account_of(budget, tenant, "")
        place = self.place(account, budget, now_s)
        if budget.per == "tenant":
            return [place]
        candidates = self._parts if budget.rolling else (
            key.account for key in self._lines if key.window_id == place.window.window_id
        )  # fmt: skip
        found = sorted(
            one for one in candidates
            if one._replace(key_id="", user=account.user) == account
            and bool(one.key_id) == (budget.per == "key") and bool(one.user) == (budget.per == "user")
        )  # fmt: skip
        return [self.place(one, budget, now_s) for one in found]

    def drop_old(self, ended_before_s: float) -> None:
        """Drop the lines of windows that ended before, but for those in which something is held."""
        ended = [key for key, line in self._lines.items() if line.ends_at_s < ended_before_s and not line.reserved]
        for key in ended:
            del self._lines[key]
            self._users.pop(LineKey(key.account._replace(user=OTHER_USERS), key.window_id), None)
            parts = self._parts.get(key.account)
            if parts is not None:
                parts.pop(int(key.window_id), None)
                if not parts:
                    del self._parts[key.account]
        if ended:
            self._known.clear()  # a clock that is set back must not find a line that is no longer kept

    def _found(self, policy: TenantPolicy, caller: Caller, now_s: float) -> Sequence[Place]:
        places = []
        has_users = False
        for account, budget in limits_for(policy, caller):
            place = self.place(account, budget, now_s)
            if account.user:
                has_users = True
                place = self._shared(place, now_s)
            places.append(place)
        if not has_users:
            self._known[policy.tenant, caller.key_id] = policy.budgets, places
            if len(self._known) > KEPT_PLACES:
                self._known.popitem(last=False)
        return places

    def _shared(self, place: Place, now_s: float) -> Place:
        """Return the place of all further users where this user is new and there are too many, else the place."""
        if place.key in self._lines:
            return place
        others = place.account._replace(user=OTHER_USERS)
        if self._users[LineKey(others, place.window.window_id)] < self._max_users:
            return place
        return self.place(others, place.budget, now_s)

    def _move(self, place: Place, now_s: float) -> None:
        """Move a place to the window that is present now."""
        budget, moment = place.budget, datetime.fromtimestamp(now_s, UTC)
        if budget.rolling:
            window = self._calendar.part(budget.window, moment)
            place.from_s = float(int(window.window_id) * part_s(budget.window))
            place.until_s = place.from_s + part_s(budget.window)
        else:
            window = self._calendar.window(budget.window, budget.zone, moment)
            place.from_s, place.until_s = window.starts_at.timestamp(), window.ends_at.timestamp()
        place.window = window
        place.key = LineKey(place.account, window.window_id)
        place.line = None

    def _rolling_sums(self, place: Place) -> Line:
        parts = self._parts.get(place.account)
        if parts is None:
            return NO_LINE
        total = Line(place.key, 0.0)
        first = int(place.window.window_id) - PARTS
        for part, line in parts.items():
            if part >= first:
                total.reserved += line.reserved
                total.spent += line.spent
                total.unconfirmed += line.unconfirmed
                total.granted += line.granted
                total.restored += line.restored
        return total
