"""Let identical requests in flight share one answer: the first leads, the others follow its answer as it comes.

A leader publishes what it gets, chunk by chunk, and says how it ended; followers replay the chunks from the first on,
so that a stream is a stream for them too. A leader that fails promotes the one who has waited longest, and the others
wait for that one; who was already given part of the answer sees the failure. Waiting is bounded: after `max_wait_s`
without a chunk one goes on alone. One answer is kept up to `max_bytes`; beyond it nobody new may follow.

    async with flights.join(key) as place:
        match place:
            case Leader():    relay the answer, `place.publish(item)` for each chunk, `place.complete()` after the last
            case Follower():  relay `place.items()`; it raises LeaderFailed
            case Alone():     go on as if there were no single-flight
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
MAX_WAIT_S = 30.0
MAX_BYTES = 2**20
MAX_FOLLOWERS = 1_000


class LeaderFailed(Exception):
    """The leader broke off after this follower had been given part of the answer."""


@dataclass(frozen=True, slots=True)
class Alone:
    """Do the work without telling anybody: there is no flight to join."""


ALONE = Alone()


@dataclass(slots=True)
class _Flight(Generic[T]):
    """What one leader has published so far, and who waits for more."""

    items: list[T] = field(default_factory=list)
    size_bytes: int = 0
    is_complete: bool = False
    has_failed: bool = False
    is_open: bool = True
    waiting: "deque[asyncio.Future[_Flight[T]]]" = field(default_factory=deque)
    followers: int = 0
    is_handed_over: bool = False
    on_follow: Callable[[], None] | None = None

    def wake(self) -> None:
        """Tell all who wait that this flight has changed."""
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_result(self)

    async def changed(self, limit_s: float, waiter: "asyncio.Future[_Flight[T]]") -> "_Flight[T] | None":
        """Wait for a change and return the flight that changed, which is another after a failure; None when too long.

        A flight that `is_handed_over` is the caller's to lead.
        """
        if limit_s <= 0:
            return None
        self.waiting.append(waiter)
        try:
            async with asyncio.timeout(limit_s):
                return await waiter
        except TimeoutError:
            return _result(waiter)  # both may happen in one turn of the loop


class Leader(Generic[T]):
    """Does the work for all; everything published is kept for those who follow."""

    def __init__(self, flight: _Flight[T], max_bytes: int) -> None:
        self._flight = flight
        self._max_bytes = max_bytes

    @property
    def followers(self) -> int:
        """Return how many follow now."""
        return self._flight.followers

    def when_followed(self, call: Callable[[], None]) -> None:
        """Call `call` whenever somebody begins to follow, and now when somebody does already."""
        self._flight.on_follow = call
        if self._flight.followers:
            call()

    def publish(self, item: T, size_bytes: int = 0) -> None:
        """Hand one chunk to all followers; the first chunk may be the answer's head."""
        flight = self._flight
        flight.size_bytes += size_bytes
        flight.is_open = flight.is_open and flight.size_bytes <= self._max_bytes
        if flight.is_open or flight.followers:
            flight.items.append(item)
        if flight.waiting:
            flight.wake()

    def complete(self) -> None:
        """Say that the last chunk was published; without it, leaving the context means failure."""
        self._flight.is_complete = True
        self._flight.wake()


class Follower(Generic[T]):
    """Reads what the leader publishes; at least one chunk is there."""

    def __init__(self, flight: _Flight[T], max_wait_s: float) -> None:
        self._flight = flight
        self._max_wait_s = max_wait_s

    async def items(self) -> AsyncIterator[T]:
        """Yield every chunk from the first on, each as soon as it is published.

        Raises:
            LeaderFailed: the leader broke off, or published nothing more within the wait.
        """
        at = 0
        while True:
            while at < len(self._flight.items):
                yield self._flight.items[at]
                at += 1
            if self._flight.is_complete:
                return
            waiter: asyncio.Future[_Flight[T]] = asyncio.get_running_loop().create_future()
            if self._flight.has_failed or await self._flight.changed(self._max_wait_s, waiter) is None:
                raise LeaderFailed


class SingleFlight(Generic[T]):
    """The flights of one process by key; a key must name everything that can change the answer, and the shape of it."""

    def __init__(
        self, *, max_wait_s: float = MAX_WAIT_S, max_bytes: int = MAX_BYTES, max_followers: int = MAX_FOLLOWERS
    ) -> None:
        self._max_wait_s = max_wait_s
        self._max_bytes = max_bytes
        self._max_followers = max_followers
        self._flights: dict[str, _Flight[T]] = {}

    def __len__(self) -> int:
        """Return how many flights are under way."""
        return len(self._flights)

    def join(
        self, key: str | None, max_wait_s: float | None = None
    ) -> AbstractAsyncContextManager[Leader[T] | Follower[T] | Alone]:
        """Take a place: lead when nobody does, follow once there is something to follow, or go alone.

        Args:
            key: None goes alone at once (the request may not be shared).
            max_wait_s: the longest wait without a chunk, such as what is left of the deadline.
        """
        return _Joining(self, key, self._max_wait_s if max_wait_s is None else min(max_wait_s, self._max_wait_s))

    def led(self, key: str) -> tuple[_Flight[T], Leader[T]] | None:
        """Return a new flight and its leader's place where there is no flight of this key, as is usual."""
        if key in self._flights:
            return None
        flight: _Flight[T] = _Flight()
        self._flights[key] = flight
        return flight, Leader(flight, self._max_bytes)

    async def take_place(self, key: str, limit_s: float) -> tuple[_Flight[T] | None, Leader[T] | Follower[T] | Alone]:
        """Return the place in the flight of a key that somebody leads, which is to be left again, and the flight."""
        flight = await self._flight(key, limit_s)
        if flight is None:
            return None, ALONE
        if flight.is_handed_over:
            flight.is_handed_over = False
            return flight, Leader(flight, self._max_bytes)
        flight.followers += 1
        if flight.on_follow is not None:
            flight.on_follow()
        return flight, Follower(flight, limit_s)

    def leave_place(self, key: str, flight: _Flight[T], place: Leader[T] | Follower[T] | Alone) -> None:
        """End the flight that one has led, or follow no more."""
        if isinstance(place, Leader):
            self._end(key, flight)
        else:
            flight.followers -= 1

    async def _flight(self, key: str, limit_s: float) -> _Flight[T] | None:
        """Return a flight to lead (handed over) or to follow (it has a chunk or is complete); None to go alone."""
        flight = self._flights[key]
        if not flight.is_open or flight.followers + len(flight.waiting) >= self._max_followers:
            return None
        if flight.items:
            return flight
        waiter: asyncio.Future[_Flight[T]] = asyncio.get_running_loop().create_future()
        try:
            return await flight.changed(limit_s, waiter)
        except asyncio.CancelledError:
            promoted = _result(waiter)
            if promoted is not None and promoted.is_handed_over:
                self._end(key, promoted)
            raise

    def _end(self, key: str, flight: _Flight[T]) -> None:
        """Take the flight out; after a failure hand a new one, with all others who wait, to the first of them."""
        if self._flights.get(key) is flight:
            del self._flights[key]
        flight.has_failed = not flight.is_complete
        flight.on_follow = None  # it leads back to the leader: with it, every request would be left to the collector
        if not flight.waiting:
            return
        waiting = deque(waiter for waiter in flight.waiting if not waiter.done())
        if flight.is_complete or flight.items or not waiting:
            flight.wake()
            return
        first = waiting.popleft()
        successor = self._flights[key] = _Flight(waiting=waiting, is_handed_over=True)
        first.set_result(successor)


class _Joining(Generic[T]):
    """The context of `join`."""

    def __init__(self, flights: SingleFlight[T], key: str | None, limit_s: float) -> None:
        self._flights = flights
        self._key = key
        self._limit_s = limit_s
        self._flight: _Flight[T] | None = None
        self._place: Leader[T] | Follower[T] | Alone = ALONE

    async def __aenter__(self) -> Leader[T] | Follower[T] | Alone:
        if self._key is not None:
            led = self._flights.led(self._key)
            self._flight, self._place = led or await self._flights.take_place(self._key, self._limit_s)
        return self._place

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._key is not None and self._flight is not None:
            self._flights.leave_place(self._key, self._flight, self._place)


def _result(waiter: "asyncio.Future[_Flight[T]]") -> _Flight[T] | None:
    return waiter.result() if waiter.done() and not waiter.cancelled() else None
