"""Explore: give a small share of judged requests to another tier that may answer, with a probability that is on record.

Only a free choice by the score is explored. Explicit choices, rules, guards, sessions, and choices that money, latency
or readiness moved never are; nor is a tier that is not ready, beyond the budget, too late, or, while money has a shadow
price, dearer than the choice. Pure: the draw is an input, so a decision made again explores the same.

    P(the chosen tier) = 1 - ratio        P(each of the k others) = ratio / k
"""

import hashlib

from core.plan import Plan, Reason

EXPLORABLE = frozenset({Reason.SCORE, Reason.SHARE, Reason.COST})
Propensities = tuple[tuple[str, float], ...]


def draw_of(secret: bytes, request_id: str, purpose: bytes) -> float:
    """Return a number in [0, 1) that only the secret and the id determine; `purpose` is at most 16 bytes."""
    digest = hashlib.blake2b(request_id.encode(), key=secret, digest_size=8, person=purpose).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def propensities_of(plan: Plan, ratio: float) -> Propensities:
    """Return what each tier's probability is when `plan` is the free choice, in the order of tiers; empty for 1."""
    if plan.weighing is None or plan.reason not in EXPLORABLE or ratio <= 0.0:
        return ()
    tiers = allowed_tiers(plan)
    others = len(tiers) - 1
    if others < 1:
        return ()
    return tuple((tier, 1.0 - ratio if tier == plan.tier else ratio / others) for tier in tiers)


def allowed_tiers(plan: Plan) -> tuple[str, ...]:
    """Return the chosen tier and those that could answer in its place as well, cheapest tier first."""
    weighing = plan.weighing
    assert weighing is not None, "a free choice was weighed"
    chosen_nano_usd = weighing.of(plan.steps[0].deployment, plan.tier).expected_nano_usd
    allowed: dict[str, None] = {}
    for one in weighing.candidates:
        is_ours = one.tier == plan.tier
        may = one.excluded_by in (None, "quality") and one.late_ratio <= 0.0
        if is_ours or (may and (weighing.shadow_price_per_usd <= 0.0 or one.expected_nano_usd <= chosen_nano_usd)):
            allowed[one.tier] = None
    return tuple(allowed)


def picked(propensities: Propensities, draw: float) -> str:
    """Return the tier that a draw in [0, 1) falls on."""
    reached = 0.0
    for tier, probability in propensities:
        reached += probability
        if draw < reached:
            return tier
    return propensities[-1][0]
