"""Read an upstream within a request's limits: the deadline is around each read, and a stream has to keep flowing."""

import asyncio
from collections.abc import Callable

from backends.frames import Frames
from backends.protocol import AttemptError, Flow, Pieces, broken_off, timed_out
from core.clock import Clock
from core.deadline import Deadline
from core.trace import AttemptOutcome

PACE_GRACE_S = 2.0


class LimitedReading:
    """Reads `pieces`; `began_s` is to be set when the first content has arrived, after which other limits hold."""

    def __init__(
        self,
        pieces: Pieces,
        deadline: Deadline,
        clock: Clock,
        frames: Frames | None,
        survives_its_client: bool,
        flow: Flow | None = None,
    ) -> None:
        """Read for a stream of `frames`, or without them for a plain answer; `flow` is where they may pass the reader.

        With `survives_its_client` a read goes on when its reader is cancelled, and is taken up by the next one; then
        nothing passes it.
        """
        self.pieces = pieces
        self._flow = None if survives_its_client else flow
        self._too_slow: str | None = None
        self.deadline = deadline
        self.began_s: float | None = None
        self._clock = clock
        self._frames = frames
        self._is_apart = survives_its_client
        self._has_flow_limit = frames is not None and (
            deadline.idle_s is not None or deadline.min_output_tokens_per_s is not None
        )
        self._reading: asyncio.Future[bytes | None] | None = None

    def arrived(self) -> bytes | None:
        """Return what has arrived without waiting, empty when nothing has, None at the end."""
        return self.pieces.arrived() if self._reading is None else b""

    async def next(self) -> bytes | None:
        """Return the next bytes, and wait while there are none; None at the end.

        Raises:
            AttemptError: it broke off, or nothing came in time.
        """
        limit_s = self._limit_s()
        try:
            if self._is_apart:
                return await self._read_apart(limit_s)
            return await self.pieces.next(limit_s)
        except TimeoutError as timeout:
            has_begun = self.began_s is not None
            if self._too_slow is not None:
                raise AttemptError(AttemptOutcome.TIMED_OUT, self._too_slow, retryable=not has_begun) from timeout
            what = "the total time" if has_begun else "the time to the first token"
            raise timed_out(self.deadline, self._clock, f"{what} passed its limit") from timeout
        except OSError as problem:
            raise broken_off(problem) from problem

    @property
    def is_under_way(self) -> bool:
        """Tell whether a read goes on although its reader was cancelled."""
        return self._reading is not None

    def flow_to(self, take: Callable[[bytes], int] | None) -> None:
        """Let `take` see first what arrives for a reader that waits, where that can be; see `Flow`."""
        if self._flow is not None:
            self._flow.flow_to(take)

    def flowed(self) -> None:
        """Note that something passed the reader: what limits the flow begins anew."""
        if self._has_flow_limit and self._flow is not None and (limit_s := self._limit_s()) is not None:
            self._flow.limit(limit_s)

    def _limit_s(self) -> float | None:
        """Return how long the next wait may be, and keep what is said then where that is for a slow flow."""
        remaining_s = self.deadline.remaining_s(self._clock, first_token_sent=self.began_s is not None)
        flow = self._flow_limit() if self._has_flow_limit else None
        self._too_slow = None
        if flow is None or (remaining_s is not None and flow[0] >= remaining_s):
            return remaining_s
        self._too_slow = flow[1]
        return flow[0]

    async def stop(self) -> None:
        """End a read that is still under way."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def _read_apart(self, limit_s: float | None) -> bytes | None:
        """Read in a task of its own, which a client that leaves does not cancel, so that another reader can go on.

        Raises:
            TimeoutError: nothing came in time.
        """
        if self._reading is None:
            self._reading = asyncio.ensure_future(self.pieces.next(None))
        await asyncio.wait({self._reading}, timeout=limit_s)
        reading = self._reading
        if not reading.done():
            reading.cancel()
            await asyncio.wait({reading})
            raise TimeoutError
        self._reading = None
        return reading.result()

    def _flow_limit(self) -> tuple[float, str] | None:
        """Return the seconds until a stream flows too slowly and what is said then, or None without such a limit.

        The pace is the average from the first token on, after a grace; a frame counts as one token at least.
        """
        idle_s, least_per_s = self.deadline.idle_s, self.deadline.min_output_tokens_per_s
        limit = None if idle_s is None else (idle_s, f"nothing came for {idle_s * 1000:.0f} ms")
        if least_per_s is None or self.began_s is None or self._frames is None:
            return limit
        too_slow_at_s = self.began_s + PACE_GRACE_S + self._frames.paced_tokens / least_per_s
        left_s = max(0.0, too_slow_at_s - self._clock.monotonic_s())
        if limit is not None and limit[0] <= left_s:
            return limit
        return left_s, f"the output came slower than {least_per_s:g} tokens per second"
