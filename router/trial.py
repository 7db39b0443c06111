"""A trial: does a challenging router serve a tenant better than the one in force, by utility = quality - price?

Two kinds of evidence are kept apart, since they mean different things by quality:

- **said**: users' words on answers. Only the tier that answered is known, so each outcome r gives a doubly robust
  estimate of the difference (Dudik, Langford and Li 2011), with the bandit's predictions q made before that outcome:
  d = q(c) - q(g) - (price(c) - price(g)) + (1[A=c] / P(c) - 1[A=g] / P(g)) * (r - q(A)),
  with c the challenger's choice, g the choice in force, A who answered. Where both agree, d = 0.
- **compared**: both tiers' answers to one request were compared in the background, so d needs no estimate; the dearest
  tier's answer counts as right (1), the cheapest tier's as right when it says the same.
"""

import msgspec

from router.chance import Chance
from router.confidence import Bound

LEAST_ROWS = 100
"""Fewer outcomes never decide, whatever the bound says."""


class Evidence(msgspec.Struct, frozen=True):
    """One kind of evidence as it is told; utilities in [-1, 1] units of quality."""

    rows: int
    mean: float
    low: float
    high: float


class Trial(msgspec.Struct):
    """Evidence on one challenger; `alpha` is the probability with which it may wrongly win, both kinds together."""

    alpha: float
    said: Bound
    compared: Bound

    @property
    def is_won(self) -> bool:
        """Tell whether one kind shows the challenger better, and neither shows it worse."""
        shown = (self.evidence(self.said), self.evidence(self.compared))
        return any(one.low > 0.0 and one.rows >= LEAST_ROWS for one in shown) and all(one.high >= 0.0 for one in shown)

    @property
    def is_lost(self) -> bool:
        """Tell whether one kind shows the challenger no better, and the other does not show it better."""
        shown = (self.evidence(self.said), self.evidence(self.compared))
        return any(one.high < 0.0 and one.rows >= LEAST_ROWS for one in shown) and not any(one.low > 0 for one in shown)

    def evidence(self, bound: Bound) -> Evidence:
        """Return what a kind of evidence says by now."""
        low, high = bound.interval(self.alpha)
        return Evidence(bound.rows, bound.mean, low, high)

    def note_said(self, difference: float) -> None:
        """Take a doubly robust difference in."""
        self.said.note(difference, self.alpha)

    def note_compared(self, difference: float) -> None:
        """Take a compared difference in."""
        self.compared.note(difference, self.alpha)


def trial_of(alpha: float, least_propensity: float) -> Trial:
    """Return a trial without evidence; `alpha` is split over both kinds, and each bound has two sides.

    Args:
        alpha: the probability with which a challenger that is not better may win.
        least_propensity: the least probability with which a tier is taken; its inverse bounds the estimates.
    """
    return Trial(alpha, Bound(reach_of(least_propensity)), Bound(2.0))


def reach_of(least_propensity: float) -> float:
    """Return the bound on a doubly robust difference."""
    return 2.0 + 1.0 / least_propensity


def doubly_robust(chance: Chance, challenger: str, quality: dict[str, float], reward: float) -> float:
    """Return the estimated gain in utility of taking `challenger` instead of what was in force, from one outcome."""
    if challenger == chance.greedy:
        return 0.0
    new, old = chance.of(challenger), chance.of(chance.greedy)
    estimate = quality[challenger] - quality[chance.greedy] - (new.price - old.price)
    missed = reward - quality[chance.answered]
    if chance.answered == challenger:
        return estimate + missed / new.propensity
    if chance.answered == chance.greedy:
        return estimate - missed / old.propensity
    return estimate


def compared_gain(chance: Chance, challenger: str, quality: dict[str, float]) -> float | None:
    """Return the gain in utility of `challenger` when every tier's quality is known; None when one of both is not."""
    if challenger == chance.greedy:
        return 0.0
    if challenger not in quality or chance.greedy not in quality:
        return None
    prices = chance.of(challenger).price - chance.of(chance.greedy).price
    return quality[challenger] - quality[chance.greedy] - prices
