"""Decide which deployments answer a request, in which order, and why: pure, deterministic, first rule that binds wins.

1. An explicit tier or deployment is kept (`requested`), and so is what a rule of the policy says (`rule`).
2. Otherwise guards that hold without being written send a request to the large tier: media, tools, JSON and scripts
   that the small tier was not measured on (`guard_*`); a context beyond a tier's window raises to the first that
   holds it.
3. Otherwise the score: the cheapest tier with P(suffices) of at least the policy's `quality` (`score`, or `prior` when
   no model could speak). P belongs to the cheapest tier; of several tiers, the k-th of K is taken to close the share
   k / (K - 1) of the gap to certainty.
4. Money: what does not fit into the free budget is never planned; the next cheaper tier that fits is, down to the guard
   (`budget`). An explicit tier steps down only under `small_only`, which also still allows models without a price when
   nothing is free. Nothing fits: BudgetExhausted.
5. Readiness: within the tier, the first ready deployment. A loading tier follows the policy's `when_loading`, a tier
   that is down is replaced by the next above, then below, where the policy allows fallback (`loading`, `unhealthy`).

Failure is closed: no plan is made that the policy, the guards or the budget forbid.

    worst case of a step  = price.cost(Usage(estimated input tokens, max_tokens * n))
    worst case of a plan  = that of the dearest step, and the input of every other step
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.chat import ChatRequest
from core.errors import BudgetExhausted, Unavailable
from core.plan import Complexity, Plan, PlannedStep, Readiness, Reason, RegistrySnapshot, Standing
from core.rules import AutoTarget, DeploymentTarget, EffectivePolicy, RuledTarget, TenantPolicy, TierTarget
from router.ladder import Offer, Rung, build_ladder
from router.script import non_latin_ratio

DEFAULT_QUALITY = 0.5
MAX_NON_LATIN_RATIO = 0.3


@dataclass(frozen=True, slots=True)
class _Wish:
    """The rung that is wanted before money and readiness, the lowest that may stand in, and why."""

    rung: int
    lowest: int
    reason: Reason
    explicit: bool


def make_plan(
    request: ChatRequest,
    policy: EffectivePolicy,
    complexity: Complexity | None,
    standing: Standing,
    registry: RegistrySnapshot,
) -> Plan:
    """Return the deployments to try, in order, within policy, budget and readiness.

    Raises:
        ModelNotFound: policy and target grant no deployment that exists.
        BudgetExhausted: nothing that may answer fits into the free budget.
        Unavailable: nothing that may answer is ready, and the policy does not wait.
    """
    ladder = build_ladder(request, policy, registry)
    wish = _wish(request, policy, complexity, ladder)
    affordable = [_affordable(rung, standing) for rung in ladder]
    rung, reason = _within_budget(wish, affordable, standing)
    chosen, first, reason = _ready(wish, rung, reason, affordable, policy.tenant_policy)
    steps = _with_fallbacks(wish, chosen, first, affordable, standing, policy.tenant_policy)
    degraded_from = ladder[wish.rung].tier if chosen < wish.rung else None
    return Plan(steps=steps, reason=reason, tier=first.step.tier, degraded_from=degraded_from)


def _wish(
    request: ChatRequest, policy: EffectivePolicy, complexity: Complexity | None, ladder: tuple[Rung, ...]
) -> _Wish:
    guard, guard_reason = _guarded(request, ladder)
    if not isinstance(policy.target, AutoTarget):
        rung = _named_rung(policy.target, ladder)
        reason = Reason.RULE if isinstance(policy.target, RuledTarget) else Reason.REQUESTED
        return _Wish(rung, min(rung, guard), reason, explicit=True)
    scored, reason = _scored(policy.tenant_policy, complexity, len(ladder))
    if guard_reason is not None and guard >= scored:
        return _Wish(guard, guard, guard_reason, explicit=False)
    return _Wish(scored, guard, reason, explicit=False)


def _named_rung(target: TierTarget | DeploymentTarget | RuledTarget, ladder: tuple[Rung, ...]) -> int:
    """Return the rung of an explicit target; building the ladder failed if there is none."""
    match target:
        case TierTarget(tier):
            return next(index for index, rung in enumerate(ladder) if rung.tier == tier)
        case DeploymentTarget(deployment):
            return next(index for index, rung in enumerate(ladder) if rung.offers[0].step.deployment == deployment)
        case RuledTarget(_, str() as tier):
            return next(index for index, rung in enumerate(ladder) if rung.tier == tier)
        case RuledTarget():
            return 0


def _guarded(request: ChatRequest, ladder: tuple[Rung, ...]) -> tuple[int, Reason | None]:
    """Return the lowest rung that may answer and the guard that says so (None when the cheapest may)."""
    top = len(ladder) - 1
    if request.has_media:
        return top, Reason.GUARD_MEDIA
    if request.has_tools:
        return top, Reason.GUARD_TOOLS
    if request.wants_json:
        return top, Reason.GUARD_JSON
    if request.last_user_text is not None and non_latin_ratio(request.last_user_text) > MAX_NON_LATIN_RATIO:
        return top, Reason.GUARD_LANGUAGE
    roomy = next((index for index, rung in enumerate(ladder) if any(offer.fits for offer in rung.offers)), top)
    return roomy, Reason.GUARD_CONTEXT if roomy > 0 else None


def _scored(policy: TenantPolicy, complexity: Complexity | None, rungs: int) -> tuple[int, Reason]:
    if complexity is None:
        return rungs - 1, Reason.PRIOR
    quality = DEFAULT_QUALITY if policy.routing.quality is None else policy.routing.quality
    reason = Reason.PRIOR if complexity.source.startswith("prior") else Reason.SCORE
    p = complexity.p_small_suffices
    for rung in range(rungs - 1):
        if p + (1.0 - p) * rung / (rungs - 1) >= quality:
            return rung, reason
    return rungs - 1, reason


def _affordable(rung: Rung, standing: Standing) -> tuple[Offer, ...]:
    """Return the offers that fit the free budget; those whose window is too small only when no other is there."""
    roomy = tuple(offer for offer in rung.offers if offer.fits) or rung.offers
    if standing.free_nano_usd is not None and standing.free_nano_usd <= 0 and standing.when_exhausted != "small_only":
        return ()
    free = _free_nano_usd(standing, [rung.tier])
    return roomy if free is None else tuple(o for o in roomy if o.step.worst_case_nano_usd <= max(0, free))


def _free_nano_usd(standing: Standing, tiers: Iterable[str]) -> int | None:
    """Return what a plan over these tiers may cost at most: its hold draws on the budget of every tier it touches."""
    limits = [standing.free_nano_usd, *(standing.free_by_tier.get(tier) for tier in tiers)]
    return min((limit for limit in limits if limit is not None), default=None)


def _within_budget(wish: _Wish, affordable: Sequence[tuple[Offer, ...]], standing: Standing) -> tuple[int, Reason]:
    if affordable[wish.rung]:
        return wish.rung, wish.reason
    lower = [index for index in range(wish.lowest, wish.rung) if affordable[index]]
    if not lower or (wish.explicit and standing.when_exhausted != "small_only"):
        raise BudgetExhausted("The budget has no room for this request.", standing.resets_at)
    return lower[-1], Reason.BUDGET


def _ready(
    wish: _Wish, rung: int, reason: Reason, affordable: Sequence[tuple[Offer, ...]], policy: TenantPolicy
) -> tuple[int, Offer, Reason]:
    """Return the rung and the offer that go first, following readiness from `rung` upwards, then downwards.

    Walking up one rung at a time keeps the choice monotone: whatever stops a walk stops every walk that passes it.
    """
    cause = reason
    for index in range(rung, len(affordable)):
        offers = affordable[index]
        if not offers:
            continue
        ready = _first(offers, Readiness.READY)
        if ready is not None:
            return index, ready, _reason_within(offers, ready, cause)
        loading = _first(offers, Readiness.LOADING)
        if loading is not None and policy.when_loading == "wait":
            return index, loading, cause
        below = _ready_below(wish, index, affordable) if loading and policy.when_loading == "small" else None
        if below is not None:
            return *below, Reason.LOADING
        cause = Reason.LOADING if loading else Reason.UNHEALTHY
        if not policy.fallback or (loading and policy.when_loading == "refuse"):
            raise Unavailable(f"The tier {offers[0].step.tier!r} is not ready.", _retry_after_s(offers))
    below = None if wish.explicit else _ready_below(wish, rung, affordable)
    if below is None:
        waiting = [offer for offers in affordable[wish.rung if wish.explicit else wish.lowest :] for offer in offers]
        raise Unavailable("No deployment that may answer this request is ready.", _retry_after_s(waiting))
    return *below, cause


def _first(offers: tuple[Offer, ...], readiness: Readiness) -> Offer | None:
    return next((offer for offer in offers if offer.readiness is readiness), None)


def _ready_below(wish: _Wish, rung: int, affordable: Sequence[tuple[Offer, ...]]) -> tuple[int, Offer] | None:
    """Return the nearest ready rung below, not below the guard."""
    for index in range(rung - 1, wish.lowest - 1, -1):
        ready = _first(affordable[index], Readiness.READY)
        if ready is not None:
            return index, ready
    return None


def _reason_within(offers: tuple[Offer, ...], ready: Offer, cause: Reason) -> Reason:
    """Say `loading` or `unhealthy` when a deployment that comes before `ready` in the same tier was passed over."""
    if offers[0] is ready:
        return cause
    return Reason.LOADING if offers[0].readiness is Readiness.LOADING else Reason.UNHEALTHY


def _retry_after_s(offers: Sequence[Offer]) -> float:
    return min((offer.retry_after_s for offer in offers), default=1.0)


def _with_fallbacks(
    wish: _Wish,
    chosen: int,
    first: Offer,
    affordable: Sequence[tuple[Offer, ...]],
    standing: Standing,
    policy: TenantPolicy,
) -> tuple[PlannedStep, ...]:
    """Add what is ready as long as the whole plan fits: the same tier, then above, then (for `auto`) below."""
    others = [chosen]
    if policy.fallback:
        others += range(chosen + 1, len(affordable))
        others += [] if wish.explicit else range(chosen - 1, wish.lowest - 1, -1)
    plan = Plan((first.step,), wish.reason, first.step.tier)
    for index in others:
        for offer in affordable[index]:
            if offer is first or offer.readiness is not Readiness.READY:
                continue
            longer = Plan((*plan.steps, offer.step), wish.reason, first.step.tier)
            free = _free_nano_usd(standing, {step.tier for step in longer.steps})
            if free is None or longer.worst_case_nano_usd <= free:
                plan = longer
    return plan.steps
