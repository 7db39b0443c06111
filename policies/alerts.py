"""Which alerts of budgets are due, each once per window, percentage and limit."""

from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime

from core.rules import Budget
from policies.budgets import Account
from policies.ledger import Alert

REMEMBERED = 100_000
"""How many raised alerts a process remembers; the oldest are forgotten first, long after their window."""


class Bell:
    """Remembers what was raised until the window is over."""

    def __init__(self) -> None:
        self._silent_until: OrderedDict[tuple[Account, str, int, int], datetime] = OrderedDict()

    def due(
        self, account: Account, budget: Budget, window_id: str, until: datetime, spent: int, limit: int, now: datetime
    ) -> Iterator[Alert]:
        """Yield the alerts that `spent` raises for the first time; `window_id` is empty for rolling windows."""
        for percent in budget.alerts_percent:
            if spent <= 0 or spent * 100 < percent * limit:
                continue
            key = (account, window_id, limit, percent)
            silent_until = self._silent_until.get(key)
            if silent_until is not None and now < silent_until:
                continue
            self._silent_until[key] = until
            self._silent_until.move_to_end(key)
            if len(self._silent_until) > REMEMBERED:
                self._silent_until.popitem(last=False)
            yield Alert(account, budget, percent, spent, limit, window_id, until)
