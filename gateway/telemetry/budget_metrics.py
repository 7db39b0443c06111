"""The tenants' budgets in `/metrics`: read from the ledger from time to time, never by a scrape and never by a request.

Budgets for each key or each end user are left out: their labels would not come from configuration. Of more than
`MAX_TENANTS` tenants, the first by name are shown. While the store is away, the figures stay as they were.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from core.clock import Clock
from core.errors import HeadgateError
from core.money import NANO_PER_USD
from gateway.telemetry.families import Family
from policies.ledger import Balance, Treasury
from policies.loading import PolicySet

logger = logging.getLogger("headgate.budget_metrics")
REFRESH_S = 15.0
MAX_TENANTS = 200
_LABELS = ("tenant", "budget", "consequence")
LIMIT = Family("gauge", "budget_limit_usd", "Limit of a budget's present window, grants included.", _LABELS)
SPENT = Family("gauge", "budget_spent_usd", "Spent in the present window.", _LABELS)
RESERVED = Family("gauge", "budget_reserved_usd", "Held by requests under way and by replicas.", _LABELS)
REMAINING = Family("gauge", "budget_remaining_usd", "Limit less spent and reserved; below 0 by overshoot.", _LABELS)
BURN = Family(
    "gauge", "budget_burn_ratio", "Spent share over elapsed share of the window; above 1 runs out early.", _LABELS
)
FAMILIES = (LIMIT, SPENT, RESERVED, REMAINING, BURN)


class BudgetMetrics(Collector):
    """Keeps what `refresh` read; `run` refreshes for as long as the gateway lives."""

    def __init__(self, treasury: Treasury, policies: Callable[[], PolicySet], clock: Clock) -> None:
        self._treasury = treasury
        self._policies = policies
        self._clock = clock
        self._read: tuple[Balance, ...] = ()
        self._read_at = clock.now()

    async def run(self) -> None:
        """Refresh from time to time."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_S)

    async def refresh(self) -> None:
        """Read every tenant's budgets; a store that is away leaves the figures as they are."""
        policies = self._policies().policies
        read: list[Balance] = []
        try:
            for tenant in sorted(policies)[:MAX_TENANTS]:
                read += await self._treasury.balances(policies[tenant])
        except HeadgateError as problem:
            logger.info("budgets could not be read for the metrics", extra={"problem": problem.message})
            return
        self._read, self._read_at = tuple(one for one in read if one.budget.per == "tenant"), self._clock.now()

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        families = limit, spent, reserved, remaining, burn = [family.gauge() for family in FAMILIES]
        for labels, balance in {_labels(balance): balance for balance in self._read}.items():
            limit.add_metric(labels, balance.limit_nano_usd / NANO_PER_USD)
            spent.add_metric(labels, balance.spent_nano_usd / NANO_PER_USD)
            reserved.add_metric(labels, (balance.reserved_nano_usd - balance.leased_nano_usd) / NANO_PER_USD)
            remaining.add_metric(labels, (balance.free_nano_usd + balance.leased_nano_usd) / NANO_PER_USD)
            burn.add_metric(labels, burn_ratio(balance, self._read_at))
        yield from families


def burn_ratio(balance: Balance, at: datetime) -> float:
    """Return how fast a budget is spent: 1 is exactly used up at the end of its window; a rolling one has no pace."""
    spent_share = balance.spent_nano_usd / balance.limit_nano_usd if balance.limit_nano_usd > 0 else 1.0
    if balance.budget.rolling:
        return spent_share
    whole_s = (balance.ends_at - balance.starts_at).total_seconds()
    elapsed_s = (at - balance.starts_at).total_seconds()
    return spent_share / max(1e-4, min(1.0, elapsed_s / whole_s))


def _labels(balance: Balance) -> tuple[str, str, str]:
    """Return the tenant, the budget in words such as `rolling day large`, and what happens when it is used up."""
    budget = balance.budget
    words = ("rolling" if budget.rolling else "", budget.window, budget.tier or "")
    return balance.account.tenant, " ".join(filter(None, words)), "none" if budget.soft else budget.when_exhausted
