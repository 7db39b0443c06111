"""One try on one deployment: opened, watched, relayed, and written down exactly once however it ends."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from backends.deployment import Deployment
from backends.frames import MAX_KEPT_BYTES, Frames, Outlet, is_plain, parsed
from backends.limited_reading import LimitedReading
from backends.protocol import AttemptError, UpstreamResponse
from backends.sse import FrameSplitter, FrameTooLargeError, Parsed, data_of, produced_bytes
from backends.whole_answers import parse_whole
from core.chat import ChatRequest
from core.clock import Clock
from core.deadline import Deadline
from core.endpoints import KNOWN
from core.errors import let_go
from core.money import Usage, usd_text
from core.plan import PlannedStep
from core.trace import Attempt, AttemptKind, AttemptOutcome, UsageSource

MAX_BODY_BYTES = 64 * 1024 * 1024
LAST_READ_S = 0.005
LAST_READS = 8


@dataclass(frozen=True, slots=True)
class Captured:
    """A complete answer as the cache needs it; `plain` means text alone from a single choice."""

    content: str
    finish_reason: str
    model: str
    plain: bool


class LiveAnswer:
    """An answer whose first content has arrived; `chunks` relays it, the rest is known once they are exhausted."""

    def __init__(
        self,
        n: int,
        step: PlannedStep,
        deployment: Deployment,
        request: ChatRequest,
        deadline: Deadline,
        clock: Clock,
        received_s: float,
        kind: AttemptKind = AttemptKind.FIRST,
    ) -> None:
        self.n = n
        self.kind = kind
        self.spent_before_nano_usd = 0
        self.step = step
        self._deployment = deployment
        self._request = request
        self._deadline = deadline
        self._clock = clock
        self._received_s = received_s
        self._started_s = clock.monotonic_s()
        self._first_byte_s: float | None = None
        self._upstream: LimitedReading | None = None
        self._sent = False
        self._splitter = FrameSplitter()
        self._frames = Frames(
            include_usage=request.include_usage, counts_text=deadline.min_output_tokens_per_s is not None
        )
        self._arrived: deque[bytes] = deque()
        self._ready: deque[bytes] = deque()
        self._body: bytes | None = None
        self._parsed: Parsed | None = None
        self.content_type = "application/json"
        self.headers: tuple[tuple[str, str], ...] = ()
        self._costed: Usage | None = None
        self._cost_nano_usd = 0
        self._other_model: str | None = None
        self._partial = bytearray()
        self.was_left = False
        self._failure: AttemptError | None = None
        self._outlet: Outlet | None = None
        self.complete = False
        self.rejected: str | None = None

    async def begin(self, response: UpstreamResponse) -> None:
        """Read until the first content of a stream, or the whole body otherwise.

        Raises:
            AttemptError: nothing was sent to the client yet, so another deployment may be tried.
        """
        drain_s, frames = self._deployment.drain_s, self._frames if self._request.stream else None
        upstream = self._upstream = LimitedReading(
            response.pieces, self._deadline, self._clock, frames, drain_s > 0, response.flow
        )
        self.headers = response.headers
        if self._request.path not in KNOWN:
            self.content_type = response.content_type or "application/octet-stream"
        try:
            if self._request.stream:
                await self._begin_stream(upstream, response.content_type)
            else:
                await self._read_body(upstream)
        except AttemptError as failure:
            self._failure = failure
            raise

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what `next` returns, to the end."""
        while (chunk := await self.next()) is not None:
            yield chunk

    async def next(self) -> bytes | None:
        """Return what the client gets next, each frame when it arrives, from its first content on; None at the end.

        Raises:
            AttemptError: the stream broke off; the client must be told so.
        """
        ready, upstream = self._ready, self._upstream
        assert upstream is not None, "an answer begins before it is read"
        try:
            while not ready:
                if self.complete:
                    return None
                if not self._arrived:
                    self._arrived.extend(self._split(await upstream.next()))
                    continue
                relayed = self._take(self._arrived.popleft())
                if relayed is not None:
                    ready.append(relayed)
        except AttemptError as failure:
            self._failure = failure
            raise
        chunk = ready.popleft()
        return chunk if chunk is not self._frames.usage_frame else self._with_cost(chunk)

    @property
    def may_have_more(self) -> bool:
        """Tell whether it is a complete stream, whose response may not have been read to its end."""
        return self.complete and self._request.stream

    def flow_to(self, outlet: Outlet | None) -> None:
        """Let plain frames pass to `outlet` the moment they arrive, while `next` waits; None ends that.

        All that matters wakes `next` as before: the frames that are not plain, the end, limits, and a client that does
        not keep up.
        """
        self._outlet = outlet
        if self._upstream is not None and self._request.stream:
            self._upstream.flow_to(None if outlet is None else self._pass)

    def _pass(self, data: bytes) -> int:
        """Send the plain frames at the beginning of `data` on, and return their bytes."""
        outlet = self._outlet
        if outlet is None or self._upstream is None or not outlet.is_ready() or not self._splitter.is_between_frames:
            return 0
        frames = self._frames.take_plain(data)
        if not frames:
            return 0
        outlet.send(frames)
        self._upstream.flowed()
        return len(frames[0]) if len(frames) == 1 else sum(map(len, frames))

    def at_hand(self) -> list[bytes]:
        """Return the frames that have arrived behind the last one and may leave together with it."""
        ready, arrived, frames = self._ready, self._arrived, []
        while ready and ready[0] is not self._frames.usage_frame:
            frames.append(ready.popleft())
        while arrived and not ready and not self.complete and is_plain(arrived[0]):
            frames += self._frames.take_plain(arrived.popleft())
        return frames

    async def finish(self) -> None:
        """Read a complete stream to the end of its response, so that its connection can be used again.

        The end mostly lies behind `[DONE]` already; an upstream that takes longer, or sends on, loses the connection.
        """
        if self._upstream is None or not self.may_have_more:
            return
        with suppress(AttemptError, OSError):
            for _ in range(LAST_READS):
                if await self._upstream.pieces.next(LAST_READ_S) is None:
                    return

    def sent(self) -> None:
        """Note that the request is on its way: from here on somebody may bill for it."""
        self._sent = True

    def fail(self, failure: AttemptError) -> None:
        """Remember why the attempt ended before it could begin."""
        self._failure = failure

    def let_go(self) -> None:
        """Forget where the failure came from: the frames that it passed hold this answer in turn."""
        if self._failure is not None:
            let_go(self._failure)

    @property
    def body(self) -> bytes | None:
        """Return the whole body of a plain answer, None of a stream or before it has arrived."""
        return self._body

    @property
    def usage(self) -> Usage | None:
        """Return the reported token counts, else an estimate of what was produced, else None."""
        return self._priced_usage()[0]

    @property
    def cost_nano_usd(self) -> int:
        """Return what this attempt costs as far as it went."""
        return self._cost_of(self._priced_usage()[0])

    @property
    def asks_for_rest(self) -> bool:
        """Tell whether the deployment refused and said when to come again."""
        return self._failure is not None and bool(self._failure.retry_after_s)

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since the attempt started."""
        return self._clock.monotonic_s() - self._started_s

    def captured(self) -> Captured | None:
        """Return the answer for the cache, or None when it is not complete, not sound, too long or another model's."""
        if not self.complete or self._other_model is not None:
            return None
        if self._body is not None and self._parsed is not None:
            said = self._parsed
            plain = said.plain and said.choices <= 1
            is_short = len(self._body) <= MAX_KEPT_BYTES
            return Captured(said.content, said.finish_reason or "", said.model or "", plain) if is_short else None
        whole = self._frames.whole()
        if whole is None:
            return None
        return Captured(whole.content, whole.finish_reason or "", whole.model or "", whole.plain)

    def record(self) -> Attempt:
        """Freeze what happened."""
        usage, source = self._priced_usage()
        received_s, first_byte_s = self._received_s, self._first_byte_s
        return Attempt(  # by position: see `core.trace`
            self.n,
            self._deployment.name,  # deployment
            self.step.tier,
            self._deployment.model,
            (self._started_s - received_s) * 1000,  # started_ms
            None if first_byte_s is None else (first_byte_s - received_s) * 1000,  # first_byte_ms
            (self._clock.monotonic_s() - received_s) * 1000,  # ended_ms
            self._outcome(),  # outcome
            self._http_status(),  # http_status
            usage,
            source,  # usage_source
            self._cost_of(usage),  # cost_nano_usd
            self._error(),  # error
            self.kind,
            self._other_model,
        )

    def _error(self) -> str | None:
        if self._failure is not None:
            return self._failure.message
        return None if self.rejected is None else f"rejected: {self.rejected}"

    def _cost_of(self, usage: Usage | None) -> int:
        """Return the price of a usage; it is asked for several times once the answer is complete."""
        if usage is None:
            return 0
        if usage is not self._costed:
            self._costed, self._cost_nano_usd = usage, self._deployment.price.cost_nano_usd(usage)
        return self._cost_nano_usd

    def _outcome(self) -> AttemptOutcome:
        if self.complete and not self.was_left:
            return AttemptOutcome.COMPLETE
        return AttemptOutcome.CLIENT_GONE if self._failure is None else self._failure.outcome

    def _http_status(self) -> int | None:
        if self._failure is not None and self._failure.http_status is not None:
            return self._failure.http_status
        return None if self._upstream is None else 200

    async def _begin_stream(self, upstream: LimitedReading, content_type: str) -> None:
        if content_type != "text/event-stream":
            raise AttemptError(AttemptOutcome.FAILED, f"expected an event stream, got {content_type or 'no type'!r}")
        while self._first_byte_s is None:
            frames = self._split(await upstream.next())
            for frame in frames:
                relayed = self._take(frame)
                if relayed is not None:
                    self._ready.append(relayed)
                if self.complete:
                    break
                if self._first_byte_s is None and (first := _with_content(frame)) is not None:
                    self._first_byte_s = upstream.began_s = self._clock.monotonic_s()
                    self._check_model(first)
            if self.complete and self._first_byte_s is None:
                self.complete = False
                raise AttemptError(AttemptOutcome.BROKEN_OFF, "the stream ended without content")

    async def _read_body(self, upstream: LimitedReading) -> None:
        body = self._partial
        while (chunk := upstream.arrived()) is not None:
            if not chunk and (chunk := await upstream.next()) is None:
                break
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise AttemptError(AttemptOutcome.FAILED, f"the answer is larger than {MAX_BODY_BYTES} bytes")
        try:
            whole = bytes(body)
            said = parse_whole(self._request.path, whole)
        except msgspec.DecodeError as problem:
            raise AttemptError(AttemptOutcome.FAILED, "the answer is not what was asked for") from problem
        if said.error is not None or said.choices == 0:
            raise AttemptError(AttemptOutcome.FAILED, said.error or "the answer holds no choice")
        self._body, self._parsed = whole, said
        self._frames.reported = said.usage
        self._first_byte_s = upstream.began_s = self._clock.monotonic_s()
        self._ready.append(whole)
        self._check_model(said)
        self.complete = True

    def _check_model(self, said: Parsed) -> None:
        """Note that another model answered than was asked; where that is refused, nothing has left for the client."""
        check, asked = self._deployment.model_check, self._deployment.model
        self._other_model = check.other(asked, said.model)
        if self._other_model is not None and check.refuses:
            raise AttemptError(AttemptOutcome.BROKEN_OFF, "another model answered than was asked for")

    @property
    def is_worth_draining(self) -> bool:
        """Tell whether the client left an answer that its provider goes on producing, and bills."""
        return self._deployment.drain_s > 0 and self._upstream is not None and not self.complete and not self._failure

    @property
    def is_reading(self) -> bool:
        """Tell whether a read is still under way."""
        return self._upstream is not None and self._upstream.is_under_way

    async def stop_reading(self) -> None:
        """End a read that is still under way, so that its connection can be closed."""
        if self._upstream is not None:
            await self._upstream.stop()

    async def drain(self) -> None:
        """Read on for a while without a client, so that what the provider bills becomes known, where it is set so."""
        if self._upstream is None or not self.is_worth_draining:
            return
        self._upstream.deadline = Deadline(None, self._clock.monotonic_s() + self._deployment.drain_s)
        with suppress(AttemptError):
            if self._request.stream:
                while not self.complete:
                    if not self._arrived:
                        self._arrived.extend(self._split(await self._upstream.next()))
                        continue
                    self._take(self._arrived.popleft())
            else:
                await self._read_body(self._upstream)
        self.was_left = True

    def _split(self, chunk: bytes | None) -> list[bytes]:
        if chunk is None:
            raise AttemptError(AttemptOutcome.BROKEN_OFF, "the stream ended early")
        try:
            return self._splitter.feed(chunk)
        except FrameTooLargeError as problem:
            raise AttemptError(AttemptOutcome.BROKEN_OFF, f"the stream holds {problem}") from problem

    def _take(self, frame: bytes) -> bytes | None:
        relayed = self._frames.take(frame)
        self.complete = self._frames.is_done
        return relayed

    def _with_cost(self, frame: bytes) -> bytes:
        """Add what the request cost to its usage event, when it leaves: only then are all attempts known."""
        fields = msgspec.json.decode(data_of(frame), type=dict[str, msgspec.Raw])
        cost_usd = usd_text(self.spent_before_nano_usd + self.cost_nano_usd)
        fields["headgate"] = msgspec.Raw(msgspec.json.encode({"cost_usd": cost_usd}))
        return b"data: " + msgspec.json.encode(fields) + b"\n\n"

    def _priced_usage(self) -> tuple[Usage | None, UsageSource]:
        """Return the usage to bill: None usage is not zero usage, and a refused call produced nothing.

        Without a report the input is estimated from bytes, and the output from what arrived, or for a plain answer
        that never arrived from its duration and the deployment's pace. A report inside a stream that did not end holds
        up to where it stood, so more is billed where more has arrived.
        """
        reported, failure = self._frames.reported, self._failure
        if reported is not None:
            return (reported, "reported") if self.complete else self._reported_so_far(reported)
        if failure is not None and failure.outcome in (AttemptOutcome.REFUSED, AttemptOutcome.FAILED):
            return None, "none"
        if not self._sent:
            return None, "none"
        return Usage(self._request.estimated_input_tokens(), self._estimated_output_tokens()), "estimated"

    def _reported_so_far(self, reported: Usage) -> tuple[Usage, UsageSource]:
        if self._frames.is_report_last:
            return reported, "reported"
        arrived_tokens = self._estimated_output_tokens()
        if arrived_tokens <= reported.output_tokens:
            return reported, "reported"
        return msgspec.structs.replace(reported, output_tokens=arrived_tokens), "estimated"

    def _estimated_output_tokens(self) -> int:
        """Estimate the tokens of what arrived, or of a plain answer that never did from its duration."""
        if self._body is not None:
            return -(-produced_bytes(self._body) // 3)
        if self._request.stream:
            return self._frames.produced_tokens()
        pace_ms = self._deployment.ms_per_output_token
        return min(self.step.max_tokens, round(self.elapsed_s * 1000 / pace_ms)) if pace_ms else 0


def _with_content(frame: bytes) -> Parsed | None:
    """Return what a frame says, None when it says nothing yet."""
    data = data_of(frame)
    if not data or data == b"[DONE]":
        return None
    said = parsed(frame)
    return said if said.has_content else None
