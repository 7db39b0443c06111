"""One judged request as it waits for its outcome: what could have answered, how likely, at what price, and who did."""

from dataclasses import dataclass

from core.plan import Plan, Reason
from router.context import Context
from router.decision import Decision
from router.exploring import EXPLORABLE, allowed_tiers
from router.weighing import predicted_quality

TAUGHT_BY = EXPLORABLE | {Reason.EXPLORE}


@dataclass(frozen=True, slots=True)
class Allowed:
    """A tier that could have answered.

    Attributes:
        quality_share: the share of the gap from P(small suffices) to certainty that it closes.
        price: what taking it costs in units of quality, see `chance_of`.
        propensity: the probability with which it was taken.
    """

    tier: str
    quality_share: float
    price: float
    propensity: float


@dataclass(frozen=True, slots=True)
class Chance:
    """A request whose outcome may teach something.

    Attributes:
        in_force: the version of the learned router that judged it; 0 for the plain score.
        allowed: cheapest first.
        greedy: the choice of what was in force, without exploring.
        answered: who did.
    """

    tenant: str
    context: Context
    in_force: int
    floor: float
    allowed: tuple[Allowed, ...]
    greedy: str
    answered: str

    def choice(self, p_small: float) -> str:
        """Return the tier that a router with this score would have chosen: the cheapest at the floor, else the best."""
        for one in self.allowed:
            if p_small + (1.0 - p_small) * one.quality_share >= self.floor:
                return one.tier
        return max(self.allowed, key=lambda one: one.quality_share).tier

    def of(self, tier: str) -> Allowed:
        """Return the tier's part."""
        return next(one for one in self.allowed if one.tier == tier)


def chance_of(
    tenant: str, context: Context, decision: Decision, tiers: tuple[str, ...], in_force: int, answered: str
) -> Chance | None:
    """Return what a decision can teach; None where it left no choice, or a fallback answered.

    The price of a tier is the floor's own: at floor f the planner takes a dearer tier for a gain in quality above
    1 - f, so 1 - f is what the way from the cheapest to the dearest costs, in units of quality. One with the same
    exchange rate for all three knobs: the tenant's `quality`, or the floor that holds its share or mean cost.
    """
    plan, greedy = decision.plan, decision.greedy_tier or decision.plan.tier
    weighing = plan.weighing
    if weighing is None or answered != plan.tier or plan.reason not in TAUGHT_BY:
        return None
    names = tuple(tier for tier, _ in decision.propensities) or allowed_tiers(plan)
    if len(names) < 2:
        return None
    odds = dict(decision.propensities)
    costs = _costs(plan, names)
    least, most = min(costs.values()), max(costs.values())
    price_of_all = (1.0 - weighing.floor) / max(1, most - least)
    ranks = {tier: at for at, tier in enumerate(tiers)}
    allowed = tuple(
        Allowed(
            tier,
            predicted_quality(0.0, ranks[tier], len(tiers)),
            price_of_all * (costs[tier] - least),
            odds.get(tier, float(tier == greedy)),
        )
        for tier in sorted(names, key=lambda tier: (costs[tier], ranks[tier]))
    )
    return Chance(tenant, context, in_force, weighing.floor, allowed, greedy, answered)


def _costs(plan: Plan, names: tuple[str, ...]) -> dict[str, int]:
    """Return the expected cost of each tier: that of the first of its deployments which could have been chosen."""
    costs: dict[str, int] = {}
    assert plan.weighing is not None
    for one in sorted(plan.weighing.candidates, key=lambda one: one.excluded_by not in (None, "quality")):
        if one.tier in names:
            costs.setdefault(one.tier, one.expected_nano_usd)
    return costs
