"""Verify a share of hits in the background: ask the backend as well, compare the answers, and hand on the judgement.

The gateway injects how to ask the tier that made the cached answer, within the tenant's budget; None means that it
could not or may not ask. What cannot be asked or compared is no evidence. At most `max_waiting` checks are under way;
more are dropped, never queued.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from cache.embedder import Embedder, EncoderUnavailable
from cache.normalise import normalise
from core.cached import CachedAnswer
from core.chat import ChatRequest
from core.identity import Caller
from core.rules import EffectivePolicy

log = logging.getLogger(__name__)

Ask = Callable[[Caller, ChatRequest, EffectivePolicy, str], Awaitable[str | None]]
Compare = Callable[[str, str], Awaitable[bool | None]]
Judgement = Callable[[bool], Awaitable[None]]
SAME_ANSWER_SIMILARITY = 0.85
_COMPARED_CHARS = 600
_DIGITS = frozenset("0123456789")


class AnswerComparison:
    """Tells whether two answers say the same: equal once normalised, or close in meaning and, if short, in numbers."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def __call__(self, cached: str, fresh: str) -> bool | None:
        """Return None when it cannot tell: no encoder, or beyond its window."""
        if normalise(cached) == normalise(fresh):
            return True
        if _numbers(cached) != _numbers(fresh) and len(cached) < _COMPARED_CHARS:
            return False
        try:
            one, other = await self._embedder.embed([cached[:_COMPARED_CHARS], fresh[:_COMPARED_CHARS]])
        except EncoderUnavailable:
            return None
        return None if one is None or other is None else float(one @ other) >= SAME_ANSWER_SIMILARITY


class Shadow:
    """Samples hits and checks them; `ask` spends the tenant's budget, `compare` does not."""

    def __init__(
        self, ask: Ask, compare: Compare, *, max_waiting: int = 4, chance: Callable[[], float] = random.random
    ) -> None:
        self._ask = ask
        self._compare = compare
        self._max_waiting = max_waiting
        self._chance = chance
        self._tasks: set[asyncio.Task[None]] = set()

    def consider(
        self,
        caller: Caller,
        request: ChatRequest,
        policy: EffectivePolicy,
        cached: CachedAnswer,
        judged: Judgement,
    ) -> bool:
        """Start a check with the policy's `shadow_ratio` as its probability; return whether one was started."""
        if len(self._tasks) >= self._max_waiting or self._chance() >= policy.tenant_policy.cache.shadow_ratio:
            return False
        self._start(self._check(caller, request, policy, cached, judged))
        return True

    def compare_later(self, cached: str, fresh: str, judged: Judgement) -> bool:
        """Compare two answers that are at hand; return whether that was started."""
        if len(self._tasks) >= self._max_waiting:
            return False
        self._start(self._conclude(cached, fresh, judged))
        return True

    async def settle(self) -> None:
        """Wait for the checks under way."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Cancel the checks under way."""
        for task in self._tasks:
            task.cancel()
        await self.settle()

    def _start(self, work: "Awaitable[None]") -> None:
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check(
        self, caller: Caller, request: ChatRequest, policy: EffectivePolicy, cached: CachedAnswer, judged: Judgement
    ) -> None:
        try:
            fresh = await self._ask(caller, request, policy, cached.tier)
        except Exception as problem:
            log.warning("shadow check not made", extra={"error": f"{type(problem).__name__}: {problem}"})
            return
        if fresh is not None:
            await self._conclude(cached.content, fresh, judged)

    async def _conclude(self, cached: str, fresh: str, judged: Judgement) -> None:
        is_same = await self._compare(cached, fresh)
        if is_same is not None:
            await judged(is_same)


def _numbers(text: str) -> list[str]:
    """Return the words that hold a digit, stripped of marks around them."""
    return sorted({word.strip(".,;:!?()*") for word in text.split() if not _DIGITS.isdisjoint(word)})
