"""The tiers that one request may use, cheapest first, each with its deployments priced for this very request."""

from collections.abc import Callable, Iterator

import msgspec

from core.endpoints import CHAT, COMPLETIONS, EMBEDDINGS
from core.errors import InvalidRequest, ModelNotFound
from core.facts import RequestFacts
from core.plan import DeploymentSnapshot, PlannedStep, Readiness, Reason, RegistrySnapshot
from core.rules import AutoTarget, DeploymentTarget, EffectivePolicy, RuledTarget, Target, TenantPolicy, TierTarget

UNSTATED_OUTPUT_FACTOR = 4


class Offer(msgspec.Struct, frozen=True, gc=False):
    """One deployment as this request would use it; `guard` is what it was not measured on, or does not hold."""

    step: PlannedStep
    deployment: DeploymentSnapshot
    guard: Reason | None = None


class Rung(msgspec.Struct, frozen=True, gc=False):
    """One tier with its granted deployments in the order they are preferred."""

    tier: str
    offers: tuple[Offer, ...]

    @property
    def fits(self) -> bool:
        """Tell whether one of them may take the request."""
        return self.offers[0].guard is None or any(offer.guard is None for offer in self.offers)


def output_cap(facts: RequestFacts, policy: TenantPolicy, deployment: DeploymentSnapshot) -> int:
    """Return the output tokens (per choice) that bound the worst case.

    It is the least of what the client, the policy and the model allow. Where neither client nor policy says anything,
    four times the deployment's expected output stands in for them; nothing is sent upstream then, so an answer may
    pass it and settle above its reservation.
    """
    cap, most = facts.max_tokens, policy.max_output_tokens
    if cap is None or (most is not None and most < cap):
        cap = most
    if cap is None:
        cap = deployment.expected_output_tokens * UNSTATED_OUTPUT_FACTOR
    most = deployment.max_output_tokens
    if most is not None and most < cap:
        cap = most
    return cap if cap > 1 else 1


def build_ladder(facts: RequestFacts, policy: EffectivePolicy, registry: RegistrySnapshot) -> tuple[Rung, ...]:
    """Return the rungs that policy and target grant, cheapest tier first, or deployments in the order of a rule.

    `auto` uses the tiers that the policy lists. An explicit target is granted by resolution; a named deployment comes
    first in its tier, those beside it only where the policy lists their tier or themselves.

    Raises:
        ModelNotFound: nothing is granted, or the target is not in the registry.
        InvalidRequest: what is granted does not serve the request's path.
    """
    target, rules = policy.target, policy.tenant_policy
    match target:
        case RuledTarget():
            ladder = _ruled_rungs(facts, rules, registry, target)
        case AutoTarget():
            ladder = _tier_rungs(facts, rules, registry, named=None)
        case TierTarget(tier):
            if tier not in registry.tiers:
                raise ModelNotFound(policy.alias)
            ladder = _tier_rungs(facts, rules, registry, named=tier)
        case DeploymentTarget(deployment):
            ladder = _deployment_rungs(facts, policy, registry, deployment)
    named = named_tier(target)
    if ladder and (named is None or any(rung.tier == named for rung in ladder)):
        return ladder
    raise ModelNotFound(policy.alias) if facts.endpoint == CHAT else _not_served(facts, policy)


def named_tier(target: Target) -> str | None:
    """Return the tier that the caller or a rule named, None where neither did."""
    if isinstance(target, TierTarget):
        return target.tier
    return target.use if isinstance(target, RuledTarget) and isinstance(target.use, str) else None


def serves(policy: EffectivePolicy, path: str, registry: RegistrySnapshot) -> bool:
    """Tell whether any deployment behind the policy's target answers `path`."""
    match policy.target:
        case AutoTarget():
            names = [name for tier in policy.tenant_policy.tiers for name in registry.tiers.get(tier, ())]
        case TierTarget(tier):
            names = list(registry.tiers.get(tier, ()))
        case DeploymentTarget(deployment):
            names = [deployment]
        case RuledTarget(_, str()):
            names = [name for tier in policy.tenant_policy.tiers for name in registry.tiers.get(tier, ())]
        case RuledTarget(_, listed):
            names = list(listed)
    return any(path in registry.deployments[name].serves for name in names if name in registry.deployments)


def _not_served(facts: RequestFacts, policy: EffectivePolicy) -> InvalidRequest:
    return InvalidRequest(f"The model {policy.alias[:120]!r} does not serve /v1{facts.endpoint}.", param="model")


def _tier_rungs(
    facts: RequestFacts, policy: TenantPolicy, registry: RegistrySnapshot, named: str | None, ruled: str | None = None
) -> tuple[Rung, ...]:
    """Return the tiers that the policy lists, and `named`; a rule asks for what it names, free of most guards."""
    granted: Iterator[str] = (tier for tier in registry.tiers if tier in policy.tiers or tier == named)
    if facts.endpoint == EMBEDDINGS and named is not None:
        granted = iter((named,))  # vectors of two models cannot be compared: nothing may stand in
    serving: list[Rung] = []
    for tier in granted:
        names = _joined(facts, policy, registry, registry.tiers[tier])
        rung = _rung(facts, policy, registry, tier, names, _outside if tier == ruled else guard_of)
        if rung.offers:
            serving.append(rung)
    if serving and serving[-1].tier != ruled:
        serving[-1] = _unguarded(facts, serving[-1])
    return tuple(serving[:1] if facts.endpoint == EMBEDDINGS else serving)


def _unguarded(facts: RequestFacts, dearest: Rung) -> Rung:
    """Return the dearest tier, which takes what no other was measured on, as long as its windows hold it."""
    if all(offer.guard is None for offer in dearest.offers):
        return dearest
    offers = (Offer(offer.step, offer.deployment, _beyond(facts, offer.deployment)) for offer in dearest.offers)
    return Rung(dearest.tier, tuple(offers))


def _ruled_rungs(
    facts: RequestFacts, policy: TenantPolicy, registry: RegistrySnapshot, target: RuledTarget
) -> tuple[Rung, ...]:
    """Return what a rule names, free of every guard but the window: what does not go into it nobody can answer."""
    if isinstance(target.use, str):
        return _tier_rungs(facts, policy, registry, named=None, ruled=target.use)
    rungs = []
    for name in target.use:
        rung = _rung(facts, policy, registry, registry.tier_of(name), (name,), _outside)
        if rung.offers:
            rungs.append(rung)
    return tuple(rungs)


def _deployment_rungs(
    facts: RequestFacts, policy: EffectivePolicy, registry: RegistrySnapshot, named: str
) -> tuple[Rung, ...]:
    if named not in registry.deployments:
        raise ModelNotFound(policy.alias)
    rules = policy.tenant_policy
    home = registry.tier_of(named)
    beside = (
        name
        for name in registry.tiers.get(home, ())
        if name != named and (home in rules.tiers or name in rules.deployments)
    )
    if facts.endpoint not in registry.deployments[named].serves:
        raise _not_served(facts, policy)
    is_alone = facts.endpoint not in (CHAT, COMPLETIONS)
    names = (named,) if is_alone else _joined(facts, rules, registry, (named, *beside))
    own = _rung(facts, rules, registry, home, names)
    first = own.offers[0]
    own = Rung(home, (Offer(first.step, first.deployment), *own.offers[1:]))  # whether it fits is the upstream's to say
    if home not in registry.tiers or is_alone:
        return (own,)
    rungs = _tier_rungs(facts, rules, registry, named=home)
    return tuple(own if rung.tier == home else rung for rung in rungs)


def _joined(
    facts: RequestFacts, policy: TenantPolicy, registry: RegistrySnapshot, names: tuple[str, ...]
) -> tuple[str, ...]:
    """Return a tier's deployments and, while it loads and the policy says `remote`, those that stand in for it.

    These are remote deployments that the policy grants by name and that belong to no tier of the tenant's. They answer
    in the tier's name, so that its budgets, its SLA and its guards hold for them.
    """
    if policy.when_loading != "remote" or facts.endpoint not in (CHAT, COMPLETIONS):
        return names
    states = {registry.deployments[name].readiness for name in names if name in registry.deployments}
    if Readiness.LOADING not in states or Readiness.READY in states:
        return names
    remote = (name for name, one in registry.deployments.items() if name in policy.deployments and not one.local)
    return (*names, *(name for name in remote if name not in names and registry.tier_of(name) not in policy.tiers))


def guard_of(facts: RequestFacts, deployment: DeploymentSnapshot) -> Reason | None:
    """Return the guard that rules a deployment out for these facts, None where it may take them.

    The prompt must lie in the measured range, and with the output that was asked for in the window.
    """
    able = deployment.abilities
    if facts.has_media and not able.media:
        return Reason.GUARD_MEDIA
    if facts.has_tools and not able.tools:
        return Reason.GUARD_TOOLS
    if facts.response_format != "text" and not able.json:
        return Reason.GUARD_JSON
    if facts.script not in able.scripts:
        return Reason.GUARD_LANGUAGE
    return _beyond(facts, deployment)


def _beyond(facts: RequestFacts, deployment: DeploymentSnapshot) -> Reason | None:
    measured = deployment.abilities.measured_context_tokens
    if measured is not None and facts.input_tokens > measured:
        return Reason.GUARD_CONTEXT
    return _outside(facts, deployment)


def _outside(facts: RequestFacts, deployment: DeploymentSnapshot) -> Reason | None:
    window = deployment.context_tokens
    is_outside = window is not None and facts.input_tokens + (facts.max_tokens or 0) > window
    return Reason.GUARD_CONTEXT if is_outside else None


def _rung(
    facts: RequestFacts,
    policy: TenantPolicy,
    registry: RegistrySnapshot,
    tier: str,
    names: tuple[str, ...],
    guard: Callable[[RequestFacts, DeploymentSnapshot], Reason | None] = guard_of,
) -> Rung:
    offers = []
    for name in names:
        deployment = registry.deployments.get(name)
        if deployment is not None and facts.endpoint in deployment.serves:
            offers.append(_offer(facts, policy, tier, deployment, guard(facts, deployment)))
    return Rung(tier, tuple(offers))


def _offer(
    facts: RequestFacts, policy: TenantPolicy, tier: str, deployment: DeploymentSnapshot, guard: Reason | None
) -> Offer:
    """Price one deployment: worst case = price of (estimated input, cap times the number of choices)."""
    input_tokens, price = facts.input_tokens, deployment.price
    cap = output_cap(facts, policy, deployment)
    stated = facts.max_tokens is not None or policy.max_output_tokens is not None
    step = PlannedStep(
        deployment.name,
        tier,
        cap,
        cap if stated and cap != facts.max_tokens else None,
        price.tokens_nano_usd(input_tokens, cap * facts.n),
        price.tokens_nano_usd(input_tokens, 0),
    )
    return Offer(step, deployment, guard)
