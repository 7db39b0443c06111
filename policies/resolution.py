"""What a requested model name means for a caller: pure, and silent about what exists but is not granted."""

from core.errors import ModelNotFound, PermissionRefused
from core.identity import Caller
from core.rules import AutoTarget, DeploymentTarget, EffectivePolicy, Target, TenantPolicy, TierTarget
from policies.building import AUTO
from policies.loading import PolicySet


def resolve(policies: PolicySet, caller: Caller, model: str, tier: str | None = None) -> EffectivePolicy:
    """Look `model` up among the tenant's own names, then `auto`, the tiers, and the deployments granted by name.

    `tier` is what a header chose instead: a tier that the tenant may use.

    Raises:
        ModelNotFound: nothing of that name exists for this tenant; whether it exists at all is not told.
        PermissionRefused: the tenant may use it but this key may not, or the tenant has no policy any more.
    """
    name = model if tier is None else tier
    key = caller.tenant, name, tier is not None
    effective = policies.resolved.get(key)
    if effective is None:  # only what the policies name is kept, so that clients cannot make it grow
        effective = policies.resolved[key] = _resolved(_policy_of(policies, caller), model, tier)
    if caller.allowed_models and name not in caller.allowed_models:
        raise PermissionRefused(f"This API key may not use the model {name[:120]!r}.", param="model")
    return effective


def visible_models(policies: PolicySet, caller: Caller) -> tuple[str, ...]:
    """Return every name that `resolve` accepts from this caller: own names first, then `auto`, tiers, deployments."""
    policy = _policy_of(policies, caller)
    tiers = tuple(tier for tier in policy.tiers if not caller.allowed_tiers or tier in caller.allowed_tiers)
    deployments = () if caller.allowed_tiers else sorted(policy.deployments)
    granted = {AUTO, *tiers, *deployments}
    own = (name for name, target in policy.models.items() if target in granted or not caller.allowed_tiers)
    names = dict.fromkeys((*own, AUTO, *tiers, *deployments))
    return tuple(name for name in names if not caller.allowed_models or name in caller.allowed_models)


def _policy_of(policies: PolicySet, caller: Caller) -> TenantPolicy:
    policy = policies.get(caller.tenant)
    if policy is None:
        raise PermissionRefused(f"The tenant {caller.tenant!r} has no policy.")
    return policy


def _resolved(policy: TenantPolicy, model: str, tier: str | None) -> EffectivePolicy:
    name = model if tier is None else tier
    target = _target(policy, model) if tier is None else TierTarget(tier) if tier in policy.tiers else None
    if target is None:
        raise ModelNotFound(name)
    return EffectivePolicy(policy, name, target)


def _target(policy: TenantPolicy, model: str) -> Target | None:
    meant = policy.models.get(model)
    if meant is not None:
        return _named(policy, meant)
    if model == AUTO:
        return AutoTarget()
    if model in policy.tiers:
        return TierTarget(model)
    return DeploymentTarget(model) if model in policy.deployments else None


def _named(policy: TenantPolicy, meant: str) -> Target:
    """Turn an alias's target, which loading has checked, into what it names; a tier wins over a deployment's name."""
    if meant == AUTO:
        return AutoTarget()
    return TierTarget(meant) if meant in policy.tiers else DeploymentTarget(meant)
