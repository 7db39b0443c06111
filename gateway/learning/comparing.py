"""Compare a share of answers with what the other end of the tiers says, in the background and within a day's budget.

The dearest tier's answer counts as right, the cheapest tier's as right when it says the same: equal once normalised, or
close in meaning with, in short answers, the same numbers (`cache.shadow.AnswerComparison`). That is a proxy: where both
are wrong alike it praises, where the dearest errs alone it blames, and open questions have many right answers.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date

from cache.shadow import Compare
from core.chat import ChatRequest
from core.clock import Clock
from core.identity import Caller
from core.rules import EffectivePolicy
from gateway.learning.asking import Asking
from router.chance import Chance

logger = logging.getLogger("headgate.comparing")
MOST_WAITING = 4
MOST_TENANTS = 10_000

Compared = Callable[[Chance, bool], None]


@dataclass(slots=True)
class Comparing:
    """Asks the other end on the tenant's account; at most MOST_WAITING at a time, more are dropped.

    `spent` is by tenant: a day and what was spent on it, in nano-USD.
    """

    asking: Asking
    compare: Compare
    clock: Clock
    spent: dict[str, tuple[date, int]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def begin(
        self,
        caller: Caller,
        request: ChatRequest,
        policy: EffectivePolicy,
        chance: Chance,
        content: str,
        compared: Compared,
    ) -> bool:
        """Start a comparison; return whether one was started.

        Args:
            caller: who pays.
            request: what was answered.
            policy: its policy.
            chance: what was decided; `compared` is told of it.
            content: the text of the answer.
            compared: takes the chance and whether the cheapest tier's answer counts as right.
        """
        tiers = policy.tenant_policy.tiers
        ends = (tiers[0], tiers[-1])
        is_spent = self.spent_nano_usd(caller.tenant) >= policy.tenant_policy.routing.shadow_budget_nano_usd
        if chance.answered not in ends or is_spent or len(self._tasks) >= MOST_WAITING:
            return False
        other = ends[1] if chance.answered == ends[0] else ends[0]
        if not any(one.tier == other for one in chance.allowed):
            return False
        work = self._compared(caller, request, policy, other, chance, content, compared)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def spent_nano_usd(self, tenant: str) -> int:
        """Return what comparisons have cost the tenant today (UTC)."""
        day, spent = self.spent.get(tenant, (None, 0))
        return spent if day == self.clock.now().date() else 0

    async def close(self) -> None:
        """Cancel what is under way."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _compared(
        self,
        caller: Caller,
        request: ChatRequest,
        policy: EffectivePolicy,
        other: str,
        chance: Chance,
        content: str,
        compared: Compared,
    ) -> None:
        asked = await self.asking.ask(caller, request, policy, purpose="route", tier=other)
        if asked is None:
            return
        self._spend(caller.tenant, asked.cost_nano_usd)
        if asked.finish_reason != "stop" or asked.tier != other:
            return
        is_same = await self.compare(content, asked.content)
        if is_same is not None:
            compared(chance, is_same)

    def _spend(self, tenant: str, cost_nano_usd: int) -> None:
        spent = self.spent_nano_usd(tenant) + cost_nano_usd
        self.spent[tenant] = (self.clock.now().date(), spent)
        if len(self.spent) > MOST_TENANTS:
            self.spent.pop(next(iter(self.spent)))
