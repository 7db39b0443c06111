"""Decide which deployments answer a request, in which order, and why: pure, deterministic, first rule that binds wins.

1. An explicit tier or deployment is kept (`requested`), and so is what a rule of the policy says (`rule`), except that
   a prompt which the windows of the rule's deployments do not hold goes to the next one whose window does, in the
   rule's list or in the tiers above (`guard_context`); a list is never left. A request that is held out for comparison
   goes to the dearest tier (`holdout`), from where money and readiness may move it.
2. Otherwise guards that hold without being written raise a request to the first tier with a deployment that was
   measured on what it asks for: media, tools, JSON, its script, its length (`guard_*`). The dearest takes what is left.
   A session that holds its tier keeps it, unless a guard raises it (`session`).
3. Otherwise the tiers from the guard upwards are weighed (`router.weighing`): the least expected cost whose predicted
   quality is at least the floor, whose cost is worth its shadow price and whose latency is within the SLA. The floor
   is the policy's `quality` (`score`, or `prior` when no model could speak), or what control sets to keep a share
   (`share`) or a mean cost (`cost`). Where latency or the shadow price move the choice, they are the reason
   (`latency`, `pace`). Not all can be met: the policy's `give_way` says which wish is broken first.
   Where the policy has requests explored, `router.exploring` may have drawn another tier (`explore`).
4. Money: what does not fit into the free budget is never planned; the next cheaper tier that fits is, down to the guard
   (`budget`). An explicit tier steps down only under `small_only`, which also still allows models without a price when
   nothing is free. Nothing fits: BudgetExhausted.
5. Readiness: within the tier, the first ready deployment. A loading tier follows the policy's `when_loading`, a tier
   that is down is replaced by the next above, then below, where the policy allows fallback (`loading`, `unhealthy`).

Failure is closed: no plan is made that the policy, the guards or the budget forbid.

    worst case of a step  = price.cost(Usage(estimated input tokens, max_tokens * n))
    worst case of a plan  = that of the dearest step, and the input of every other step
"""

from collections.abc import Sequence

from core.facts import RequestFacts
from core.plan import Complexity, Plan, Readiness, Reason, RegistrySnapshot, Standing
from core.rules import AutoTarget, DeploymentTarget, EffectivePolicy, RuledTarget, TenantPolicy, TierTarget
from core.weighing import UNSTEERED, Exclusion, Pin, Steering, Weighing
from router.ladder import Offer, Rung, build_ladder
from router.standing_in import Wanted, affordable_offers, ready, with_fallbacks, within_budget
from router.weighing import Option, Options, Scale, choose, described, options_of, spokesman

DEFAULT_QUALITY = 0.5
KNOB_REASONS = {"quality": Reason.SCORE, "share": Reason.SHARE, "cost": Reason.COST}
_Excluded = Exclusion | None
"""Named here because annotations of an inner function are evaluated anew with each call."""
_NOT_READY: dict[Readiness, Exclusion] = {Readiness.LOADING: "loading", Readiness.DOWN: "down"}


def make_plan(
    facts: RequestFacts,
    policy: EffectivePolicy,
    complexity: Complexity | None,
    standing: Standing,
    registry: RegistrySnapshot,
    steering: Steering = UNSTEERED,
    pin: Pin | None = None,
    explored: str | None = None,
) -> Plan:
    """Return the deployments to try, in order, within policy, budget and readiness, and what they were weighed against.

    Args:
        facts: what the request declares.
        policy: the tenant's rules, and what the requested name means under them.
        complexity: how hard it is; None where nobody judged.
        standing: what the ledger says is free.
        registry: all deployments as they are now.
        steering: the floor and the shadow price that control asks for.
        pin: the deployment that the session used last, whose cached tokens leaving it costs, and the tier it holds.
        explored: the tier that exploration drew; one that the free choice could have taken.

    Raises:
        ModelNotFound: policy and target grant no deployment that exists.
        BudgetExhausted: nothing that may answer fits into the free budget.
        Unavailable: nothing that may answer is ready, and the policy does not wait.
    """
    rules = policy.tenant_policy
    ladder, options = _weighed(facts, policy, complexity, build_ladder(facts, policy, registry), pin)
    scale = _scale(rules, complexity, steering)
    if explored is None:
        wanted = _wanted(facts, policy, complexity, ladder, options, scale, steering, pin)
    else:
        rung = next(index for index, rung in enumerate(ladder) if rung.tier == explored)
        wanted = Wanted(rung, _guarded(ladder)[0], Reason.EXPLORE)
    fitting_only = isinstance(policy.target, RuledTarget) and ladder[wanted.rung].fits
    affordable = [affordable_offers(rung, standing, fitting_only=fitting_only) for rung in ladder]
    rung, reason = within_budget(wanted, affordable, standing)
    chosen, first, reason = ready(wanted, rung, reason, affordable, rules)
    steps = with_fallbacks(wanted, chosen, first, affordable, standing, rules)
    degraded_from = ladder[wanted.rung].tier if chosen < wanted.rung else None
    weighing = _weighing(wanted, options, scale, complexity, affordable)
    return Plan(steps, reason, first.step.tier, degraded_from, weighing)


def _weighed(
    facts: RequestFacts,
    policy: EffectivePolicy,
    complexity: Complexity | None,
    ladder: tuple[Rung, ...],
    pin: Pin | None,
) -> tuple[tuple[Rung, ...], tuple[Options, ...]]:
    """Return the tiers with their offers in the order of their options; a named deployment stays first."""
    options = options_of(facts, policy.tenant_policy, complexity, ladder, pin)
    if isinstance(policy.target, DeploymentTarget) or (len(options) == 1 and len(options[0]) == 1):
        return ladder, options
    reordered = [
        rung if len(one) == 1 else Rung(rung.tier, tuple([option.offer for option in one]))
        for rung, one in zip(ladder, options, strict=True)
    ]
    return tuple(reordered), options


def _scale(policy: TenantPolicy, complexity: Complexity | None, steering: Steering) -> Scale:
    floor = policy.routing.quality if steering.floor is None or complexity is None else steering.floor
    floor = 1.0 if complexity is None else DEFAULT_QUALITY if floor is None else floor
    return Scale(floor, steering.shadow_price_per_usd, policy.routing.give_way)


def _wanted(
    facts: RequestFacts,
    policy: EffectivePolicy,
    complexity: Complexity | None,
    ladder: tuple[Rung, ...],
    options: Sequence[Options],
    scale: Scale,
    steering: Steering,
    pin: Pin | None,
) -> Wanted:
    target = policy.target
    guard, guard_reason = _guarded(ladder)
    if isinstance(target, RuledTarget):
        return _ruled(target, ladder, guard)
    if not isinstance(target, AutoTarget):
        rung = _named_rung(target, ladder)
        return Wanted(rung, min(rung, guard), Reason.REQUESTED, True)
    if target.held_out:
        return Wanted(len(ladder) - 1, guard, Reason.HOLDOUT)
    held = _held_rung(pin, ladder)
    if held is not None:
        reason = Reason.SESSION if guard_reason is None or held > guard else guard_reason
        return Wanted(max(held, guard), guard, reason)
    speakers = [spokesman(one) for one in options]
    choice = choose(speakers[guard:], scale)
    if guard_reason is not None and choice.rung == guard and choose(speakers, scale).rung <= guard:
        return Wanted(guard, guard, guard_reason)
    reason = _binding(speakers[guard:], choice, scale, complexity, steering)
    return Wanted(choice.rung, guard, reason)


def _ruled(target: RuledTarget, ladder: tuple[Rung, ...], guard: int) -> Wanted:
    """Return the rule's rung, or the next one whose windows hold the prompt where the rule's own do not.

    Where none does, the dearest tier or the first deployment of the list is asked: the estimate may be too high.
    """
    named = _named_rung(target, ladder)
    if ladder[named].fits:
        return Wanted(named, min(named, guard), Reason.RULE, True)
    last = len(ladder) - 1 if isinstance(target.use, str) else named
    rung = next((index for index in range(named, len(ladder)) if ladder[index].fits), last)
    reason = Reason.RULE if rung == named else Reason.GUARD_CONTEXT
    return Wanted(rung, min(rung, guard) if rung == named else rung, reason, True)


def _binding(
    speakers: Sequence[Option], choice: Option, scale: Scale, complexity: Complexity | None, steering: Steering
) -> Reason:
    """Return which of the wishes decided: what moved the choice away from where the floor alone would have put it."""
    floored = [option for option in speakers if option.quality >= scale.floor]
    if choice is min(floored or speakers, key=lambda option: (option.expected_nano_usd, option.rung)):
        is_prior = complexity is None or complexity.source.startswith("prior")
        return Reason.PRIOR if is_prior else KNOB_REASONS[steering.knob]
    unpriced = choose(speakers, Scale(scale.floor, 0.0, scale.give_way))
    return Reason.LATENCY if choice is unpriced else Reason.PACE


def _weighing(
    wanted: Wanted,
    options: Sequence[Options],
    scale: Scale,
    complexity: Complexity | None,
    affordable: Sequence[tuple[Offer, ...]],
) -> Weighing:
    def spared(option: Option) -> _Excluded:
        if (wanted.explicit or wanted.reason is Reason.HOLDOUT) and option.rung != wanted.rung:
            was_raised = wanted.reason is Reason.GUARD_CONTEXT and option.rung < wanted.rung
            return "guard" if was_raised and option.offer.guard is not None else "not_asked"
        if option.rung < wanted.lowest:
            return "guard"
        if wanted.reason is Reason.SESSION and option.rung != wanted.rung:
            return "session"
        readiness = option.offer.deployment.readiness
        if readiness is not Readiness.READY:
            return _NOT_READY[readiness]
        if option.offer in affordable[option.rung]:
            return None
        return "budget" if option.offer.guard is None else "guard"

    is_free = not wanted.explicit and wanted.reason not in (Reason.SESSION, Reason.HOLDOUT)
    weighed = [] if not is_free else [spokesman(one) for one in options[wanted.lowest :]]
    candidates = described(options, scale, judged=complexity is not None, spared=spared, weighed=weighed)
    return Weighing(candidates, scale.floor, scale.price_per_usd, scale.give_way)


def _named_rung(target: TierTarget | DeploymentTarget | RuledTarget, ladder: tuple[Rung, ...]) -> int:
    """Return the rung of an explicit target; building the ladder failed if there is none."""
    if isinstance(target, DeploymentTarget):
        return next(index for index, rung in enumerate(ladder) if rung.offers[0].step.deployment == target.deployment)
    tier = target.tier if isinstance(target, TierTarget) else target.use
    if isinstance(tier, str):
        return next(index for index, rung in enumerate(ladder) if rung.tier == tier)
    return 0  # the first of a rule's list


def _held_rung(pin: Pin | None, ladder: tuple[Rung, ...]) -> int | None:
    if pin is None or pin.held_tier is None:
        return None
    return next((index for index, rung in enumerate(ladder) if rung.tier == pin.held_tier), None)


def _guarded(ladder: tuple[Rung, ...]) -> tuple[int, Reason | None]:
    """Return the lowest rung that may answer and the guard that says so (None when the cheapest may).

    The dearest tier takes what no other may: nobody else is left to ask.
    """
    lowest = len(ladder) - 1
    for index, rung in enumerate(ladder):
        if rung.fits:
            lowest = index
            break
    return lowest, ladder[lowest - 1].offers[0].guard if lowest else None
