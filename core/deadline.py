"""Moments by which something must have happened, shared by queueing, attempts and fallbacks of one request."""

from dataclasses import dataclass

from core.clock import Clock


@dataclass(frozen=True, slots=True)
class Deadline:
    """Two moments on the monotonic clock, in seconds: the first token and the end; `None` means no limit."""

    first_token_at_s: float | None
    end_at_s: float | None

    @classmethod
    def after(cls, start_s: float, ttft_ms: int | None, total_ms: int | None) -> "Deadline":
        """Start both limits at `start_s` on the monotonic clock."""
        return cls(
            None if ttft_ms is None else start_s + ttft_ms / 1000,
            None if total_ms is None else start_s + total_ms / 1000,
        )

    def remaining_s(self, clock: Clock, *, first_token_sent: bool) -> float | None:
        """Return the seconds left until the next limit that applies (never below 0), or None without one."""
        limits = [self.end_at_s] if first_token_sent else [self.end_at_s, self.first_token_at_s]
        moments = [moment for moment in limits if moment is not None]
        return max(0.0, min(moments) - clock.monotonic_s()) if moments else None

    def tightened(self, other: "Deadline") -> "Deadline":
        """Return the earlier of both limits, each on its own."""
        return Deadline(
            _earlier(self.first_token_at_s, other.first_token_at_s), _earlier(self.end_at_s, other.end_at_s)
        )


def _earlier(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return a if b is None else b
    return min(a, b)
