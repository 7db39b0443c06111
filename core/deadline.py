"""Moments by which something must have happened, shared by queueing, attempts, hedges and fallbacks of one request."""

import msgspec

from core.clock import Clock


class Deadline(msgspec.Struct, frozen=True, gc=False):
    """Two moments on the monotonic clock, in seconds, and two limits on a stream's flow; `None` means no limit.

    Attributes:
        first_token_at_s: when the first token must have been sent.
        end_at_s: when everything must have been sent.
        end_is_callers: the end is the caller's own wish: missing it says nothing about a deployment.
        idle_s: the longest gap between two pieces of a stream.
        min_output_tokens_per_s: the least average pace of a stream from its first token on.
    """

    first_token_at_s: float | None
    end_at_s: float | None
    end_is_callers: bool = False
    idle_s: float | None = None
    min_output_tokens_per_s: float | None = None

    @classmethod
    def after(cls, start_s: float, ttft_ms: int | None, total_ms: int | None) -> "Deadline":
        """Start both limits at `start_s` on the monotonic clock."""
        return cls(
            None if ttft_ms is None else start_s + ttft_ms / 1000,
            None if total_ms is None else start_s + total_ms / 1000,
        )

    def remaining_s(self, clock: Clock, *, first_token_sent: bool) -> float | None:
        """Return the seconds left until the next moment that applies (never below 0), or None without one."""
        at_s, first_at_s = self.end_at_s, None if first_token_sent else self.first_token_at_s
        if first_at_s is not None and (at_s is None or first_at_s < at_s):
            at_s = first_at_s
        if at_s is None:
            return None
        left_s = at_s - clock.monotonic_s()
        return left_s if left_s > 0.0 else 0.0

    def tightened_by_caller(self, end_at_s: float | None) -> "Deadline":
        """Return the deadline with the caller's own end where that is earlier."""
        if end_at_s is None or (self.end_at_s is not None and self.end_at_s <= end_at_s):
            return self
        return msgspec.structs.replace(self, end_at_s=end_at_s, end_is_callers=True)

    def is_missed_by_callers_wish(self, clock: Clock) -> bool:
        """Tell whether the caller's own end has passed."""
        return self.end_is_callers and self.end_at_s is not None and clock.monotonic_s() >= self.end_at_s
