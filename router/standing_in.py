"""Who answers in the place of the wanted tier when money or readiness rules it out, and who follows if a try fails."""

from collections.abc import Iterable, Sequence

import msgspec

from core.errors import BudgetExhausted, Unavailable
from core.plan import PlannedStep, Readiness, Reason, Standing, worst_case_of
from core.rules import TenantPolicy
from router.ladder import Offer, Rung


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """The rung that is wanted before money and readiness, the lowest that may stand in, and why."""

    rung: int
    lowest: int
    reason: Reason
    explicit: bool = False


def affordable_offers(rung: Rung, standing: Standing, *, fitting_only: bool = False) -> tuple[Offer, ...]:
    """Return the offers that fit the free budget; those that a guard speaks against only when no other is there.

    With `fitting_only` they are left out even then: another rung has one that fits.
    """
    if standing.free_nano_usd is not None and standing.free_nano_usd <= 0 and standing.when_exhausted != "small_only":
        return ()
    offers = rung.offers
    for offer in offers:
        if offer.guard is not None:
            fitting = tuple([offer for offer in offers if offer.guard is None])
            offers = fitting if fitting_only else fitting or offers
            break
    free = _free_nano_usd(standing, (rung.tier,))
    if free is None:
        return offers
    for offer in offers:
        if offer.step.worst_case_nano_usd > free:
            most = max(0, free)
            return tuple([offer for offer in offers if offer.step.worst_case_nano_usd <= most])
    return offers


def _free_nano_usd(standing: Standing, tiers: Iterable[str]) -> int | None:
    """Return what a plan over these tiers may cost at most: its hold draws on the budget of every tier it touches."""
    least = standing.free_nano_usd
    if standing.free_by_tier:
        for tier in tiers:
            free = standing.free_by_tier.get(tier)
            if free is not None and (least is None or free < least):
                least = free
    return least


def within_budget(wanted: Wanted, affordable: Sequence[tuple[Offer, ...]], standing: Standing) -> tuple[int, Reason]:
    """Return the wanted rung, or the next below, not below the lowest, with an offer that fits.

    Raises:
        BudgetExhausted: there is none, or an explicit choice must not step down.
    """
    if affordable[wanted.rung]:
        return wanted.rung, wanted.reason
    lower = [index for index in range(wanted.lowest, wanted.rung) if affordable[index]]
    if not lower or (wanted.explicit and standing.when_exhausted != "small_only"):
        raise BudgetExhausted("The budget has no room for this request.", standing.resets_at)
    return lower[-1], Reason.BUDGET


def ready(
    wanted: Wanted, rung: int, reason: Reason, affordable: Sequence[tuple[Offer, ...]], policy: TenantPolicy
) -> tuple[int, Offer, Reason]:
    """Return the rung and the offer that go first, following readiness from `rung` upwards, then downwards.

    Walking up one rung at a time keeps the choice monotone: whatever stops a walk stops every walk that passes it.

    Raises:
        Unavailable: nothing that may answer is ready, and the policy does not wait.
    """
    cause = reason
    for index in range(rung, len(affordable)):
        offers = affordable[index]
        if not offers:
            continue
        if offers[0].deployment.readiness is Readiness.READY:
            return index, offers[0], cause
        ready = _first(offers, Readiness.READY)
        if ready is not None:
            return index, ready, cause if cause is Reason.EXPLORE else _reason_within(offers)
        loading = _first(offers, Readiness.LOADING)
        if loading is not None and policy.when_loading == "wait":
            return index, loading, cause
        below = _ready_below(wanted, index, affordable) if loading and policy.when_loading == "small" else None
        if below is not None:
            return *below, Reason.LOADING
        cause = Reason.LOADING if loading else Reason.UNHEALTHY
        if not policy.fallback or (loading and policy.when_loading == "refuse"):
            raise Unavailable(f"The tier {offers[0].step.tier!r} is not ready.", _retry_after_s(offers))
    below = None if wanted.explicit else _ready_below(wanted, rung, affordable)
    if below is None:
        waiting = [
            offer for offers in affordable[wanted.rung if wanted.explicit else wanted.lowest :] for offer in offers
        ]
        raise Unavailable("No deployment that may answer this request is ready.", _retry_after_s(waiting))
    return *below, cause


def _first(offers: tuple[Offer, ...], readiness: Readiness) -> Offer | None:
    for offer in offers:
        if offer.deployment.readiness is readiness:
            return offer
    return None


def _ready_below(wanted: Wanted, rung: int, affordable: Sequence[tuple[Offer, ...]]) -> tuple[int, Offer] | None:
    """Return the nearest ready rung below, not below the guard."""
    for index in range(rung - 1, wanted.lowest - 1, -1):
        ready = _first(affordable[index], Readiness.READY)
        if ready is not None:
            return index, ready
    return None


def _reason_within(offers: tuple[Offer, ...]) -> Reason:
    """Say `loading` or `unhealthy` when the first deployment of the tier was passed over for one behind it."""
    return Reason.LOADING if offers[0].deployment.readiness is Readiness.LOADING else Reason.UNHEALTHY


def _retry_after_s(offers: Sequence[Offer]) -> float:
    return min((offer.deployment.retry_after_s for offer in offers), default=1.0)


def with_fallbacks(
    wanted: Wanted,
    chosen: int,
    first: Offer,
    affordable: Sequence[tuple[Offer, ...]],
    standing: Standing,
    policy: TenantPolicy,
) -> tuple[PlannedStep, ...]:
    """Add what is ready as long as the whole plan fits: the same tier, then above, then (for `auto`) below."""
    steps: tuple[PlannedStep, ...] = (first.step,)
    if len(affordable) == 1 and len(affordable[0]) == 1:
        return steps
    for index in _order(wanted, chosen, len(affordable), policy):
        for offer in affordable[index]:
            if offer is first or offer.deployment.readiness is not Readiness.READY:
                continue
            if any(offer.step.deployment == step.deployment for step in steps):
                continue
            longer = (*steps, offer.step)
            free = _free_nano_usd(standing, {step.tier for step in longer})
            if free is None or worst_case_of(longer) <= free:
                steps = longer
    return steps


def _order(wanted: Wanted, chosen: int, rungs: int, policy: TenantPolicy) -> Sequence[int]:
    """Return the rungs that stand in for the chosen one, itself first."""
    if not policy.fallback or rungs == 1:
        return (chosen,)
    above = range(chosen, rungs)
    return above if wanted.explicit else (*above, *range(chosen - 1, wanted.lowest - 1, -1))
