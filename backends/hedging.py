"""When a second attempt is started beside one that has not answered yet, and where it goes.

A hedge starts at the last moment at which the other deployment, as slow as 19 of 20 of its recent attempts at most,
would still keep the deadline; not earlier, since it costs, and never in the first half of the time, since most attempts
answer by themselves. Where that other one is not expected to be in time any more, no hedge is started: it would cost
and not help. Streams are hedged for their first token, plain answers for their end. Without a limit there is nothing
to keep, and no hedge.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from backends.deployment import Deployment
from backends.registry import Registry
from backends.rescue_budget import MoneyBudget, RescueRules, ShareBudget
from backends.tries import Errand
from core.money import Usage
from core.plan import PlannedStep, Readiness

MARGIN = 1.5
MARGIN_S = 0.02
LEAST_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class PlannedHedge:
    """A step to start at a monotonic moment, by when it should answer, and about what it would cost."""

    step: PlannedStep
    at_s: float
    limit_s: float
    nano_usd: int


class Hedging:
    """Plans hedges and keeps them within their budgets."""

    def __init__(self, registry: Registry, rules: RescueRules) -> None:
        self._registry = registry
        self.share = ShareBudget(rules.hedge_ratio)
        self.money = MoneyBudget(rules.hedge_cost_ratio)

    def planned(self, errand: Errand, used: Iterable[str], now_s: float) -> PlannedHedge | None:
        """Return the hedge for an errand whose deployments `used` have not answered yet, None when there is none."""
        limit_s = errand.deadline.end_at_s
        if errand.request.stream and errand.deadline.first_token_at_s is not None:
            limit_s = errand.deadline.first_token_at_s
        elif errand.request.stream:
            limit_s = None
        step = self._step(errand, frozenset(used))
        if limit_s is None or step is None:
            return None
        begun_s = errand.received_s
        at_s = begun_s + LEAST_SHARE * (limit_s - begun_s)
        needed_s = self._needed_s(errand, step, now_s)
        if needed_s is not None:
            at_s = max(at_s, limit_s - needed_s)
        return PlannedHedge(step, at_s, limit_s, self._cost(errand, step))

    def may_start(self, errand: Errand, hedge: PlannedHedge, now_s: float) -> bool:
        """Tell whether a hedge that is due still makes sense and fits both budgets, of which it takes its part."""
        if now_s + self._usual_s(errand, hedge.step, now_s) >= hedge.limit_s:
            return False
        if self._registry.readiness_of(hedge.step.deployment) is not Readiness.READY:
            return False
        return self.money.allows(hedge.nano_usd) and self.share.use()

    def _step(self, errand: Errand, used: frozenset[str]) -> PlannedStep | None:
        """Return the first unused step that is ready, of the planned tier before a dearer one; never a cheaper tier."""
        ranks = {tier: rank for rank, tier in enumerate(self._registry.tiers)}
        planned = ranks.get(errand.plan.tier, 0)
        able = [
            step
            for step in errand.plan.steps
            if step.deployment not in used
            and ranks.get(step.tier, planned) >= planned
            and self._registry.readiness_of(step.deployment) is Readiness.READY
        ]
        return min(able, key=lambda step: ranks.get(step.tier, planned), default=None)

    def _needed_s(self, errand: Errand, step: PlannedStep, now_s: float) -> float | None:
        deployment = self._registry[step.deployment]
        tokens = errand.request.estimated_input_tokens()
        slow_ms = deployment.latency.slow_first_byte_ms(tokens, now_s)
        if not errand.request.stream:
            slow_ms = deployment.latency.slow_total_ms(tokens, _output_tokens(errand, step, deployment), now_s)
        return None if slow_ms is None else MARGIN * slow_ms / 1000 + MARGIN_S

    def _usual_s(self, errand: Errand, step: PlannedStep, now_s: float) -> float:
        """Return how long the other deployment is expected to need, 0 while that is unknown."""
        latency, tokens = self._registry[step.deployment].latency, errand.request.estimated_input_tokens()
        forecast = latency.forecast(now_s)
        if forecast is None:
            return 0.0
        if errand.request.stream:
            return forecast.ttft_ms(tokens) / 1000
        output_tokens = min(step.max_tokens, latency.usual_output_tokens(now_s) * errand.request.n)
        return forecast.total_ms(tokens, output_tokens) / 1000

    def _cost(self, errand: Errand, step: PlannedStep) -> int:
        deployment = self._registry[step.deployment]
        usage = Usage(errand.request.estimated_input_tokens(), _output_tokens(errand, step, deployment))
        return deployment.price.cost_nano_usd(usage)


def _output_tokens(errand: Errand, step: PlannedStep, deployment: Deployment) -> int:
    return min(step.max_tokens, max(1, round(deployment.expected_output_tokens))) * errand.request.n
