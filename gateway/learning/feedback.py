"""Take a user's word on an answer: whose request it was, what the cache makes of it, and who else learns of it.

Only what this gateway served is known to it: requests under way and the last ones in memory, older ones in its request
log. A request of another tenant is answered exactly like one that never was.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from cache.entry_store import StoreUnavailable
from cache.semantic_cache import SemanticCache
from core.clock import Clock
from core.errors import InvalidRequest, Unavailable, UnknownName
from core.outcome import Outcome, OutcomeKind, OutcomeSink

MOST_REMEMBERED = 10_000
"""Far more than the request log may be behind; it knows the others."""
RETRY_AFTER_S = 2.0
RIGHT = 0.5
"""Scores from here on say that the answer was right."""


class FeedbackBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody says of one request: `thumb` or `score` (1 is right), of the answer or of the cache's choice."""

    request_id: Annotated[str, Meta(min_length=1, max_length=200)]
    kind: OutcomeKind
    thumb: Literal["up", "down"] | None = None
    score: Annotated[float, Meta(ge=0, le=1)] | None = None


class FeedbackTaken(Struct, frozen=True):
    """What was taken down."""

    request_id: str
    kind: OutcomeKind
    score: float
    object: str = "feedback"


def parse_feedback(body: bytes) -> FeedbackBody:
    """Decode the body.

    Raises:
        InvalidRequest: not JSON, an unknown or missing field, or a value out of range.
    """
    try:
        return msgspec.json.decode(body, type=FeedbackBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise InvalidRequest(f"The feedback cannot be used: {problem}") from problem


class Owners:
    """Whose the last requests were; used from the event loop only."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._tenants: OrderedDict[str, str] = OrderedDict()

    def note(self, request_id: str, tenant: str) -> None:
        """Remember a request, forgetting the oldest."""
        self._tenants[request_id] = tenant
        if len(self._tenants) > self._most:
            self._tenants.popitem(last=False)

    def find(self, request_id: str) -> str | None:
        """Return the tenant, or None when the request is not remembered."""
        return self._tenants.get(request_id)


@dataclass(frozen=True, slots=True)
class Feedback:
    """Takes feedback; `logged_tenant` asks the request log and may take a moment."""

    owners: Owners
    logged_tenant: Callable[[str], str | None]
    cache: SemanticCache
    sinks: tuple[OutcomeSink, ...]
    clock: Clock

    async def take(self, tenant: str | None, said: FeedbackBody) -> FeedbackTaken:
        """Act on `said` and keep it; `tenant` is who says it, None an administrator who may speak for any.

        Raises:
            InvalidRequest: not exactly one of `thumb` and `score`.
            UnknownName: no such request of that tenant, or, for `cache`, none that was answered from the cache.
            Unavailable: a store is away; the same feedback may be sent again.
        """
        score = _score_of(said)
        owner = await self.owner(said.request_id)
        if owner is None or tenant not in (None, owner):
            raise UnknownName(f"There is no request {said.request_id[:80]!r} of yours that this gateway remembers.")
        if said.kind == "cache":
            await self._judge_hit(owner, said.request_id, is_wrong=score < RIGHT)
        outcome = Outcome(said.request_id, owner, said.kind, score, self.clock.now())
        try:
            for sink in self.sinks:
                await sink.take(outcome)
        except OSError as problem:
            raise Unavailable("The feedback could not be kept.", RETRY_AFTER_S) from problem
        return FeedbackTaken(said.request_id, said.kind, score)

    async def owner(self, request_id: str) -> str | None:
        """Return whose request it was."""
        return self.owners.find(request_id) or await asyncio.to_thread(self.logged_tenant, request_id)

    async def _judge_hit(self, tenant: str, request_id: str, *, is_wrong: bool) -> None:
        try:
            known = await self.cache.feedback(tenant, request_id=request_id, wrong=is_wrong)
        except StoreUnavailable as problem:
            raise Unavailable("The cache's store is away; the entry was not removed.", RETRY_AFTER_S) from problem
        if not known:
            raise UnknownName(
                "The request was not answered from the cache, was judged already, or is no longer remembered."
            )


def _score_of(said: FeedbackBody) -> float:
    if (said.thumb is None) == (said.score is None):
        raise InvalidRequest("Give exactly one of `thumb` and `score`.", param="thumb")
    if said.score is not None:
        return said.score
    return 1.0 if said.thumb == "up" else 0.0
