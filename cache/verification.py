"""Follow a request from its semantic candidate to a judgement: by the shadow, by the fresh answer, or by feedback."""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

from cache.local_evidence import LocalEvidence
from cache.served import ServedHit, ServedHits
from cache.shadow import Shadow
from core.cached import CachedAnswer, ExactHit, Found, SemanticHit
from core.chat import ChatRequest
from core.identity import Caller
from core.rules import EffectivePolicy

_MAX_CANDIDATES = 2_000


@dataclass(frozen=True, slots=True)
class _Candidate:
    hit: ServedHit
    content: str


class Verification:
    """Remembers the best candidate of each request until what became of it is known; used from the event loop only."""

    def __init__(self, evidence: LocalEvidence) -> None:
        self.evidence = evidence
        self.hits = ServedHits()
        self.shadow: Shadow | None = None
        self._candidates: OrderedDict[str, _Candidate] = OrderedDict()

    def candidate(self, request_id: str, hit: ServedHit, content: str) -> None:
        """Keep the candidate with the highest score; `content` is its answer."""
        known = self._candidates.get(request_id)
        if known is not None and known.hit.score >= hit.score:
            return
        self._candidates[request_id] = _Candidate(hit, content)
        if len(self._candidates) > _MAX_CANDIDATES:
            self._candidates.popitem(last=False)

    def looked_up(
        self, caller: Caller, request: ChatRequest, policy: EffectivePolicy, found: Found, outcome: str
    ) -> None:
        """Count the request, remember a hit for feedback, and give the shadow its chance at a semantic one."""
        candidate = self._candidates.pop(request.request_id, None)
        self.evidence.count(caller.tenant, outcome, is_candidate=candidate is not None)
        if isinstance(found, ExactHit):
            entry = found.entry
            hit = ServedHit(caller.tenant, entry.entry_id, entry.normalised_key, entry.normalised_key, 1.0, True)
            self.hits.served(request.request_id, hit)
        if candidate is None:
            return
        if isinstance(found, SemanticHit):
            self.hits.served(request.request_id, candidate.hit)
            if self.shadow is not None:
                judged = partial(self._judge, candidate.hit)
                self.shadow.consider(caller, request, policy, found.entry.answer, judged)
        elif self.shadow is not None and policy.tenant_policy.cache.shadow_ratio > 0.0:
            self._candidates[request.request_id] = candidate

    def answered(self, request: ChatRequest, answer: CachedAnswer) -> None:
        """Compare the answer that a near hit would have given with the fresh one, which costs no call."""
        near = self._candidates.pop(request.request_id, None)
        if near is not None and self.shadow is not None:
            self.shadow.compare_later(near.content, answer.content, partial(self._judge, near.hit))

    def take(self, tenant: str, request_id: str, *, wrong: bool) -> ServedHit | None:
        """Return the hit that a tenant gives feedback on, once, and judge by it; None when there was none."""
        hit = self.hits.take(tenant, request_id)
        if hit is None or hit.is_exact:
            return hit
        self.evidence.judge(tenant, hit.score, is_right=not wrong)
        if wrong:
            self.evidence.veto(tenant, hit.cached_key, hit.new_key)
        return hit

    def forget(self, tenant: str) -> None:
        """Drop all that was learned of a tenant, and what it was served."""
        self.evidence.forget(tenant)
        self.hits.forget(tenant)
        for request_id in [name for name, one in self._candidates.items() if one.hit.tenant == tenant]:
            del self._candidates[request_id]

    async def close(self) -> None:
        """Stop the checks under way."""
        if self.shadow is not None:
            await self.shadow.close()

    async def _judge(self, hit: ServedHit, is_right: bool) -> None:
        """Feed the tenant's bound; a pair whose answers differ is not served again."""
        self.evidence.judge(hit.tenant, hit.score, is_right=is_right)
        if not is_right:
            self.evidence.veto(hit.tenant, hit.cached_key, hit.new_key)
