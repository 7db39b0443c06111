"""One live answer on its way to its client: told to followers, stored just before its last bytes leave, timed.

So a client that asks again at once finds its answer and its slot. What another tier than the planned one gave is not
stored: it must not be served when the planned one is back. Most frames of a stream pass without waking the reader, see
`Relay.flow_to`; all others go through one loop here.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from backends.attempt import LiveAnswer
from backends.dispatch import broken_off
from backends.frames import Outlet
from backends.protocol import AttemptError
from cache.semantic_cache import SemanticCache
from cache.single_flight import Alone, Leader
from core.cached import CachedAnswer
from core.clock import Clock
from core.identity import Caller
from core.plan import Plan
from core.rules import EffectivePolicy
from core.time_limit import TimeLimit
from core.trace import AttemptKind
from gateway.answer import AnswerHead, AnswerTail, Published
from gateway.learning.learns import Learns
from gateway.trace_draft import TraceDraft
from gateway.wire.read_ahead import ReadAhead
from policies.admission import Admitted

CACHE_LIMIT_S = 2.0
logger = logging.getLogger("headgate.relay")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a relayed answer comes from."""

    caller: Caller
    policy: EffectivePolicy
    plan: Plan
    admitted: Admitted
    live: LiveAnswer
    place: Leader[Published] | Alone


class Relay:
    """Iterates over what the client gets, at its pace unless others follow; the context ends what reads ahead."""

    def __init__(self, source: Source, draft: TraceDraft, cache: SemanticCache, learning: Learns, clock: Clock) -> None:
        self._source = source
        self._live = source.live
        self._draft = draft
        self._cache = cache
        self._learning = learning
        self._clock = clock
        self._leader = source.place if isinstance(source.place, Leader) else None
        self._is_open = True
        self._is_reading = False
        self._is_followed = False
        self._ahead: ReadAhead | None = None
        self._outlet: Outlet | None = None
        if self._leader is not None:
            step = self._live.step
            self._leader.publish(AnswerHead(step.tier, step.deployment, source.plan.reason.value))
            self._leader.when_followed(self._follow)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes for the client.

        Raises:
            HeadgateError: the answer broke off; it is the request's error from now on.
        """
        try:
            if self._ahead is not None:
                chunk = await self._ahead.next()
            else:
                self._is_reading = True  # stays so after the end and after a failure: there is nothing to read ahead
                chunk = await self._live.next()
                if self._is_open and self._live.complete:
                    await self._completed()
                self._publish(chunk)
                if chunk is not None:
                    chunk = self._with_those_at_hand(chunk)
                    self._is_reading = False
                    if self._is_followed:
                        self._ahead = ReadAhead(self._next)
        except AttemptError as failure:
            self._draft.error = broken_off(failure)
            raise self._draft.error from failure
        if chunk is None:
            raise StopAsyncIteration
        if self._draft.first_sent_s is None:
            self._draft.first_sent_s = self._clock.monotonic_s()
        return chunk

    def flow_to(self, outlet: Outlet | None) -> None:
        """Let plain frames pass to `outlet` the moment they arrive, and others leave several at a time; None ends it.

        Whoever follows sets the pace of none of this: once somebody does, the answer is read ahead instead.
        """
        self._outlet = outlet
        self._live.flow_to(None if outlet is None else self)

    def is_ready(self) -> bool:
        """Tell whether frames may pass now; see `Outlet`."""
        return self._outlet is not None and not self._is_followed and self._outlet.is_ready()

    def send(self, frames: Sequence[bytes]) -> None:
        """Publish frames and send them on; see `Outlet`."""
        assert self._outlet is not None, "it was ready"
        leader = self._leader
        if leader is not None:
            for frame in frames:
                leader.publish(frame, len(frame))
        self._outlet.send(frames)

    def _with_those_at_hand(self, chunk: bytes) -> bytes:
        """Return a chunk and what has arrived behind it, where its client takes several frames at once."""
        more = () if self._outlet is None else self._live.at_hand()
        for frame in more:
            self._publish(frame)
        return b"".join((chunk, *more)) if more else chunk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ahead is not None:
            await self._ahead.close()

    def _follow(self) -> None:
        """Read ahead from now on, or once the chunk is there that is awaited just now."""
        self._is_followed = True
        if self._ahead is None and not self._is_reading:
            self._ahead = ReadAhead(self._next)

    async def _next(self) -> bytes | None:
        chunk = await self._live.next()
        if self._is_open and self._live.complete:
            await self._completed()
        self._publish(chunk)
        return chunk

    def _publish(self, chunk: bytes | None) -> None:
        """Hand a chunk to followers; None is the end."""
        leader = self._leader
        if leader is None:
            return
        if chunk is None:
            leader.publish(AnswerTail(self._live.usage, self._live.cost_nano_usd))
            leader.complete()
        else:
            leader.publish(chunk, len(chunk))

    async def _completed(self) -> None:
        self._is_open = False
        source, live = self._source, self._live
        is_meant = live.kind is AttemptKind.ESCALATION or (live.step.tier == source.plan.tier and live.rejected is None)
        if is_meant and not source.plan.has_given_way:
            await self._store()
        usage = live.usage
        source.admitted.used_tokens = None if usage is None else usage.input_tokens + usage.output_tokens
        self._learning.answered(self._draft, live.captured)
        source.admitted.leave()

    async def _store(self) -> None:
        """Offer a complete answer to the cache; only plain text from one choice has a canonical replay."""
        live = self._live
        captured, usage = live.captured(), live.usage
        if captured is None or not captured.plain or usage is None:
            return
        answer = CachedAnswer(
            content=captured.content,
            finish_reason=captured.finish_reason,
            response_model=captured.model,
            tier=live.step.tier,
            deployment=live.step.deployment,
            usage=usage,
            cost_nano_usd=live.cost_nano_usd,
        )
        try:
            with TimeLimit(CACHE_LIMIT_S):
                await self._cache.store(self._source.caller, self._draft.request, self._source.policy, answer)
        except TimeoutError:
            logger.warning("the cache took too long to store", extra={"request_id": self._draft.request.request_id})
