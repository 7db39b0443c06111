"""The seam between dispatch and whatever generates text."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import msgspec

from core.clock import Clock
from core.deadline import Deadline
from core.time_limit import TimeLimit
from core.trace import AttemptOutcome


class Pieces(Protocol):
    """The body of an answer as it arrives, already decompressed."""

    def arrived(self) -> bytes | None:
        """Return what has arrived without waiting, empty when nothing has, None at the end."""
        ...

    async def next(self, limit_s: float | None) -> bytes | None:
        """Return what has arrived, and wait while nothing has; None at the end.

        Raises:
            AttemptError: it broke off; everything before was returned.
            OSError: the same, for the caller to translate (`broken_off`).
            TimeoutError: nothing came within `limit_s` seconds.
        """
        ...


class Flow(Protocol):
    """A body of which something may be taken the moment it arrives, while its reader waits: no task has to wake."""

    def flow_to(self, take: Callable[[bytes], int] | None) -> None:
        """From now on let `take` see first what arrives for a reader that waits; it returns how many bytes it took."""
        ...

    def limit(self, limit_s: float) -> None:
        """Let the wait under way last no longer than so long from now."""
        ...


class Iterated:
    """The pieces that an iterator yields."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    def arrived(self) -> bytes | None:
        """Return nothing: an iterator has to be waited for; see `Pieces.arrived`."""
        return b""

    async def next(self, limit_s: float | None) -> bytes | None:
        """Return the next one; see `Pieces.next`."""
        with TimeLimit(limit_s):
            return await anext(self._chunks, None)


class UpstreamCall(msgspec.Struct, frozen=True):
    """One request as an upstream will see it; `path` is relative to the backend's base URL.

    `tells_deadline` sends the milliseconds left along, so that an engine of ours stops by itself.
    """

    path: str
    body: bytes
    request_id: str
    traceparent: str | None = None
    content_type: str = "application/json"
    tells_deadline: bool = False
    headers: tuple[tuple[str, str], ...] = ()


class UpstreamResponse(msgspec.Struct, frozen=True):
    """An answer that has begun with status 200."""

    content_type: str
    pieces: Pieces
    headers: tuple[tuple[str, str], ...] = ()
    flow: Flow | None = None


@dataclass(frozen=True, slots=True)
class HeaderLists:
    """Lower-case names of the headers that pass to a deployment, and of those that pass back to the client."""

    request: frozenset[str] = frozenset()
    response: frozenset[str] = frozenset()


class AttemptError(Exception):
    """One attempt failed; dispatch decides whether another one follows."""

    def __init__(
        self,
        outcome: AttemptOutcome,
        message: str,
        *,
        http_status: int | None = None,
        retryable: bool = True,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.message = message
        self.http_status = http_status
        self.retryable = retryable
        self.retry_after_s = retry_after_s


def timed_out(deadline: Deadline, clock: Clock, message: str) -> AttemptError:
    """Return the error of a missed deadline; where it was the caller's own wish, nobody else is to blame."""
    is_wish = deadline.is_missed_by_callers_wish(clock)
    outcome = AttemptOutcome.GIVEN_UP if is_wish else AttemptOutcome.TIMED_OUT
    return AttemptError(outcome, message, retryable=False)


def broken_off(problem: Exception) -> AttemptError:
    """Return the error of an answer whose connection was lost, or whose framing is broken."""
    return AttemptError(AttemptOutcome.BROKEN_OFF, f"the answer broke off ({type(problem).__name__})")


class Backend(Protocol):
    """A driver for one deployment."""

    def open(self, call: UpstreamCall, deadline: Deadline) -> AbstractAsyncContextManager[UpstreamResponse]:
        """Send `call` and yield the answer once its head has arrived; leaving the context cancels what is left.

        Raises:
            AttemptError: not reachable, refused, a status other than 200, or the deadline passed.
        """
        ...

    async def close(self) -> None:
        """Release every connection."""
        ...
