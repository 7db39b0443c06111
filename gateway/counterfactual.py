"""What a request would have cost without Headgate: whatever may be routed goes to the dearest tier, uncached."""

from backends.registry import Registry
from core.money import Price
from core.rules import AutoTarget, DeploymentTarget, EffectivePolicy, TierTarget


def baseline_price(policy: EffectivePolicy, registry: Registry) -> Price | None:
    """Return the price of whoever would answer: an explicit choice stays what it is, and only its cache is left out."""
    match policy.target:
        case DeploymentTarget(deployment):
            return registry[deployment].price
        case TierTarget(tier):
            names = registry.tiers.get(tier, ())
        case AutoTarget():
            allowed = [names for tier, names in registry.tiers.items() if tier in policy.tenant_policy.tiers]
            names = allowed[-1] if allowed else ()
    return registry[names[0]].price if names else None
