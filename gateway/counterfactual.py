"""What a request would have cost without Headgate: whatever may be routed goes to the dearest tier, uncached."""

from backends.registry import Registry
from core.money import Price, Usage
from core.rules import AutoTarget, DeploymentTarget, EffectivePolicy, TierTarget
from router.decision import Inputs


def baseline_price(policy: EffectivePolicy, registry: Registry) -> Price | None:
    """Return the price of whoever would answer: an explicit choice stays what it is, and only its cache is left out."""
    match policy.target:
        case DeploymentTarget(deployment):
            return registry[deployment].price
        case TierTarget(tier):
            names = registry.tiers.get(tier, ())
        case AutoTarget():
            names = ()
            for tier, members in registry.tiers.items():
                if tier in policy.tenant_policy.tiers:
                    names = members
    return registry[names[0]].price if names else None


def lost_prefix_nano_usd(inputs: Inputs | None, deployment: str | None) -> int:
    """Return what a conversation's prompt lost by going to `deployment`: cached tokens that are read anew.

    Those are the tokens of the last turn's prompt, at the difference between the price of input and of cached input
    where the last turn was; 0 where that deployment has no price for cached input, or nobody was asked.
    """
    state = None if inputs is None else inputs.session
    if inputs is None or state is None or deployment in (None, state.deployment):
        return 0
    left = inputs.registry.deployments.get(state.deployment)
    if left is None or left.price.cached_input_pico_usd is None:
        return 0
    tokens = min(state.input_tokens, inputs.facts.input_tokens)
    return max(0, left.price.cost_nano_usd(Usage(tokens, 0)) - left.price.cost_nano_usd(Usage(tokens, 0, tokens)))
