"""Which requests take the baseline path, so that savings are measured and not merely calculated.

Eligible is what the router decides (no rule, no explicit choice) and whose caller asked nothing of the cache. Whether
one is held out follows from a keyed hash of its id: it is random for whoever sends requests, and anyone with the
gateway's secret can compute it again. A held-out request goes to the dearest allowed tier and neither reads nor fills
the cache; money, readiness and deadlines hold for it as for any other. It leaves its conversation's tier as it was.
"""

import hashlib
from dataclasses import replace

import msgspec

from core.chat import CacheControls
from core.rules import AutoTarget, EffectivePolicy
from core.trace import Trial
from gateway.trace_draft import TraceDraft
from router.rules import GENERATING

PARTS = 10_000
_ASKED_NOTHING = CacheControls()


class Holdout:
    """Draws the requests that are held out."""

    def __init__(self, secret: bytes) -> None:
        self._secret = hashlib.blake2b(secret, digest_size=32, person=b"headgate-holdout").digest()

    def drawn(self, policy: EffectivePolicy, draft: TraceDraft) -> EffectivePolicy:
        """Note the request's part in the comparison, and return the policy that it goes by."""
        ratio = policy.tenant_policy.routing.holdout_ratio
        if not ratio:
            return policy
        per_10k = round(ratio * PARTS)
        if not per_10k or not _is_eligible(policy, draft):
            return policy
        draft.trial = Trial(self.draws(draft.request.request_id, per_10k), per_10k)
        return on_baseline_path(policy) if draft.trial.held_out else policy

    def draws(self, request_id: str, per_10k: int) -> bool:
        """Tell whether a request of this id is held out, of 10,000 `per_10k`."""
        digest = hashlib.blake2b(request_id.encode(), key=self._secret, digest_size=8).digest()
        return int.from_bytes(digest) * PARTS < per_10k << 64


def on_baseline_path(policy: EffectivePolicy) -> EffectivePolicy:
    """Return the policy with the dearest tier for everything and no cache."""
    rules = policy.tenant_policy
    without_cache = replace(rules, cache=replace(rules.cache, enabled=False))
    return replace(policy, tenant_policy=without_cache, target=AutoTarget(held_out=True))


def _is_eligible(policy: EffectivePolicy, draft: TraceDraft) -> bool:
    facts = draft.facts
    if facts is None or facts.endpoint not in GENERATING:
        return False
    controls = draft.request.demands.cache
    return isinstance(policy.target, AutoTarget) and msgspec.structs.replace(controls, tags=()) == _ASKED_NOTHING
