"""From a request's draft to its decision record: kept off the event loop, told in a header when the caller asked."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Protocol

from core.money import usd_text
from core.weighing import Candidate, Weighing
from gateway.trace_draft import TraceDraft
from router.receipt import Decided

MAX_HEADER_CHARACTERS = 4_000
"""Proxies mostly take 8 KB of headers."""
HASHED_CHARACTERS = 64 * 1024


class DecisionSink(Protocol):
    """Keeps decisions; `record` neither blocks nor raises. `router` names the weights that judge here."""

    router: str

    def record(self, decided: Decided) -> None:
        """Take one decision."""
        ...


class Receipts:
    """Notes decisions; the log writes them."""

    def __init__(self, log: DecisionSink, secret: bytes) -> None:
        self._log = log
        self._secret = hashlib.blake2b(secret, digest_size=32, person=b"headgate-receipt").digest()

    def note(self, draft: TraceDraft) -> None:
        """Keep what was decided; a request that no plan was made for, such as a hit, has no receipt."""
        if draft.inputs is None:
            return
        decided = draft.decision or draft.error
        if decided is not None:
            prompt = self._prompt_hash(draft.request.last_user_text)
            self._log.record(Decided(draft.request.request_id, draft.received_at, prompt, draft.inputs, decided))

    def header(self, draft: TraceDraft, reason: str) -> tuple[str, str]:
        """Return the header that tells the decision: compact ASCII JSON of bounded length."""
        told: dict[str, Any] = {"id": draft.request.request_id, "reason": reason}
        if draft.decision is not None and draft.inputs is not None:
            told |= self._told(draft)
        weighing = None if draft.decision is None else draft.decision.plan.weighing
        return "x-headgate-decision", _bounded(told, weighing)

    def _told(self, draft: TraceDraft) -> dict[str, Any]:
        assert draft.decision is not None
        assert draft.inputs is not None
        decision, inputs = draft.decision, draft.inputs
        told = {
            "tier": decision.plan.tier,
            "rule": decision.rule,
            "session": decision.hold,
            "propensities": {tier: round(one, 6) for tier, one in decision.propensities} or None,
            "p_small_suffices": None if inputs.complexity is None else round(inputs.complexity.p_small_suffices, 4),
            "judged_by": None if inputs.complexity is None else inputs.complexity.source,
            "holds_usd": usd_text(decision.plan.worst_case_nano_usd),
            "policy": inputs.policy.tenant_policy.version,
            "router": self._log.router,
        }
        return {name: value for name, value in told.items() if value is not None}

    def _prompt_hash(self, text: str | None) -> str:
        if text is None:
            return ""
        content = text[:HASHED_CHARACTERS].encode("utf-8", "surrogatepass")
        return hashlib.blake2b(content, key=self._secret, digest_size=8).hexdigest()


def _bounded(told: dict[str, Any], weighing: Weighing | None) -> str:
    """Return the JSON with as many candidates as fit."""
    shown = [] if weighing is None else [_shown(candidate) for candidate in weighing.candidates]
    if weighing is not None:
        told |= {"floor": weighing.floor, "shadow_price_per_usd": weighing.shadow_price_per_usd}
    text = _json(told, shown)
    for kept in range(len(shown) - 1, -1, -1):
        if len(text) <= MAX_HEADER_CHARACTERS:
            break
        text = _json(told | {"candidates_left_out": len(shown) - kept}, shown[:kept])
    return text


def _json(told: dict[str, Any], candidates: Sequence[dict[str, Any]]) -> str:
    return json.dumps(told | ({"candidates": candidates} if candidates else {}), separators=(",", ":"))


def _shown(candidate: Candidate) -> dict[str, Any]:
    shown = {
        "deployment": candidate.deployment,
        "tier": candidate.tier,
        "quality": None if candidate.predicted_quality is None else round(candidate.predicted_quality, 4),
        "ttft_ms": None if candidate.ttft_ms is None else round(candidate.ttft_ms, 1),
        "total_ms": None if candidate.total_ms is None else round(candidate.total_ms, 1),
        "expected_usd": usd_text(candidate.expected_nano_usd),
        "excluded_by": candidate.excluded_by,
    }
    return {name: value for name, value in shown.items() if value is not None}
