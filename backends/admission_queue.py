"""Who is served next when deployments have no slot free: a bounded queue that refuses early instead of serving late.

Among tenants the slots are shared by weight (start-time fair queueing; Goyal, Vin, Cheng, SIGCOMM 1996); within a
tenant the earliest deadline goes first. Batch is served when nobody else waits. Whoever could not be served in time is
told so at once, with the wait that the queue's own speed implies; when the queue is full, batch, then the lightest
weight, then the latest deadline makes room for who comes before it.
"""

import asyncio
import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from backends.gate import Gate
from core.clock import Clock
from core.errors import Unavailable

MAX_WAITING = 1_000
LONGEST_WAIT_S = 30.0
LEAST_RETRY_S = 0.1
ARRIVALS_S = 10.0
LEAST_SHARE = 0.1
LONGEST_RETRY_S = 60.0
ShedReason = Literal["late", "full", "evicted", "waited", "policy"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One request's place among others.

    Attributes:
        tenant: who shares.
        weight: its part, relative to other tenants'.
        is_batch: takes what others leave over.
        due_s: the monotonic moment of its deadline, None when nobody waits for it.
        start_by_s: the latest moment at which starting it still makes sense, None without a limit.
        when_late: move to another tier, queue, or be shed.
    """

    tenant: str = ""
    weight: float = 8.0
    is_batch: bool = False
    due_s: float | None = None
    start_by_s: float | None = None
    when_late: Literal["move", "queue", "shed"] = "move"

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Return what makes room for what: the lowest goes first."""
        return not self.is_batch, self.weight, -(math.inf if self.due_s is None else self.due_s)


@dataclass(eq=False, slots=True)
class _Waiter:
    claim: Claim
    names: Sequence[str]
    served: "asyncio.Future[str]"

    @property
    def is_over(self) -> bool:
        return self.served.done()


@dataclass(slots=True)
class _Line:
    """Who waits of one tenant and class, earliest deadline first; `start` is its virtual start time."""

    weight: float
    start: float
    heap: list[tuple[float, int, _Waiter]] = field(default_factory=list)

    def first(self, name: str) -> _Waiter | None:
        """Take out and return the first who may be served by `name`."""
        passed: list[tuple[float, int, _Waiter]] = []
        found = None
        while self.heap and found is None:
            entry = heapq.heappop(self.heap)
            if entry[2].is_over:
                continue
            if name in entry[2].names:
                found = entry[2]
            else:
                passed.append(entry)
        for entry in passed:
            heapq.heappush(self.heap, entry)
        return found


@dataclass(slots=True)
class _Arrivals:
    """How many requests of one class and weight arrive in a second, over the last `ARRIVALS_S` or so."""

    value: float = 0.0
    at_s: float = 0.0

    def add(self, now_s: float) -> None:
        self.value = self.per_s(now_s) * ARRIVALS_S + 1.0
        self.at_s = now_s

    def per_s(self, now_s: float) -> float:
        return self.value * math.exp((self.at_s - now_s) / ARRIVALS_S) / ARRIVALS_S


class AdmissionQueue:
    """The slots of all deployments and who waits for them."""

    def __init__(
        self,
        gates: Callable[[str], Gate],
        clock: Clock,
        *,
        max_waiting: int = MAX_WAITING,
        on_shed: Callable[[ShedReason], None] = lambda reason: None,
    ) -> None:
        """Queue at most `max_waiting` requests for the gates by deployment name."""
        self._gates = gates
        self._clock = clock
        self._max_waiting = max_waiting
        self._on_shed = on_shed
        self._lines: dict[tuple[bool, str], _Line] = {}
        self._arrivals: dict[tuple[bool, float], _Arrivals] = {}
        self._order = count()
        self._virtual = 0.0
        self.waiting = 0

    async def enter(self, claim: Claim, own: Sequence[str], others: Sequence[str] = ()) -> str:
        """Wait for a slot and take it; return whose it is. `leave` gives it back.

        Args:
            claim: the request's place.
            own: the deployments of its tier that may serve it, best first.
            others: those of other tiers, in the order of its plan, for when it would be late.

        Raises:
            Unavailable: it could not be served in time; says when it might be.
        """
        now_s = self._clock.monotonic_s()
        self._arrivals.setdefault((not claim.is_batch, claim.weight), _Arrivals()).add(now_s)
        free = next((name for name in own if self._is_free(name, claim, now_s)), None)
        if free is not None:
            return self._taken(free)
        wait_s = self._expected_wait_s(claim, own, now_s)
        is_late = now_s + wait_s > self._start_by_s(claim, now_s)
        if is_late and claim.when_late == "move":
            moved = next((name for name in others if self._is_free(name, claim, now_s)), None)
            if moved is not None:
                return self._taken(moved)
        if claim.when_late == "shed":
            raise self._shed("policy", wait_s)
        if is_late:
            raise self._shed("late", wait_s)
        if self.waiting >= self._max_waiting:
            self._make_room(claim, wait_s)
        return await self._wait(claim, own, now_s)

    def take(self, name: str, *, is_batch: bool = False) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        if not self._is_free(name, Claim(is_batch=is_batch), self._clock.monotonic_s()):
            return False
        self._taken(name)
        return True

    def leave(self, name: str, held_s: float) -> None:
        """Give a slot back, and let in who is next."""
        self._gates(name).give_back(held_s)
        self._serve(name)

    def _serve(self, name: str) -> None:
        gate, now_s = self._gates(name), self._clock.monotonic_s()
        for is_batch in (False, True):
            while self.waiting and gate.has_room(now_s, is_batch=is_batch):
                waiter = self._next(name, is_batch=is_batch)
                if waiter is None:
                    break
                gate.take()
                waiter.served.set_result(name)

    def _next(self, name: str, *, is_batch: bool) -> _Waiter | None:
        """Take out who is next for a slot of `name`, in one class."""
        keys = sorted((key for key in self._lines if key[0] is is_batch), key=lambda key: self._lines[key].start)
        for key in keys:
            line = self._lines[key]
            waiter = line.first(name)
            if waiter is None and not line.heap:
                del self._lines[key]
            if waiter is not None:
                self._virtual = line.start
                line.start += 1.0 / line.weight
                self.waiting -= 1
                return waiter
        return None

    def _is_free(self, name: str, claim: Claim, now_s: float) -> bool:
        if not self._gates(name).has_room(now_s, is_batch=claim.is_batch):
            return False
        return not self.waiting or not self._is_awaited(name, before=claim)

    def _is_awaited(self, name: str, before: Claim) -> bool:
        """Tell whether somebody who comes before waits for `name`."""
        return any(
            not waiter.is_over and name in waiter.names
            for (is_batch, _), line in self._lines.items()
            if not is_batch or before.is_batch
            for _, _, waiter in line.heap
        )

    def _taken(self, name: str) -> str:
        self._gates(name).take()
        return name

    def _start_by_s(self, claim: Claim, now_s: float) -> float:
        longest = now_s + LONGEST_WAIT_S
        return longest if claim.start_by_s is None else min(longest, claim.start_by_s)

    def _expected_wait_s(self, claim: Claim, names: Sequence[str], now_s: float) -> float:
        """Estimate the wait: who comes before, by weight, over the speed at which slots come free.

        Of that speed, what heavier tenants (and for batch all others) use as they arrive is not there for this one.
        """
        per_s = sum(self._gates(name).per_s(now_s) for name in names)
        if per_s == 0.0 or math.isinf(per_s):
            return 0.0
        mine_is = (not claim.is_batch, claim.weight)
        before_per_s = sum(one.per_s(now_s) for key, one in self._arrivals.items() if key > mine_is)
        per_s = max(LEAST_SHARE * per_s, per_s - before_per_s)
        own = self._lines.get((claim.is_batch, claim.tenant))
        due = math.inf if claim.due_s is None else claim.due_s
        mine = 1 if own is None else 1 + sum(not entry[2].is_over and entry[0] <= due for entry in own.heap)
        rivals = [line.weight for key, line in self._lines.items() if key[0] is claim.is_batch and line is not own]
        shared = mine * (claim.weight + sum(rivals)) / claim.weight
        return min(shared, self.waiting + 1.0) / per_s if not claim.is_batch else (self.waiting + 1.0) / per_s

    def _make_room(self, claim: Claim, wait_s: float) -> None:
        """Send away whoever comes after `claim`, the last of them first.

        Raises:
            Unavailable: nobody does.
        """
        entries = [entry[2] for line in self._lines.values() for entry in line.heap if not entry[2].is_over]
        last = min(entries, key=lambda waiter: waiter.claim.rank, default=None)
        if last is None or last.claim.rank[:2] >= claim.rank[:2]:
            raise self._shed("full", wait_s)
        self.waiting -= 1
        last.served.set_exception(self._shed("evicted", wait_s))

    async def _wait(self, claim: Claim, names: Sequence[str], now_s: float) -> str:
        waiter = _Waiter(claim, names, asyncio.get_running_loop().create_future())
        key = (claim.is_batch, claim.tenant)
        line = self._lines.get(key)
        if line is None or not line.heap:
            start = self._virtual if line is None else max(self._virtual, line.start)
            line = self._lines[key] = _Line(claim.weight, start)
        due = math.inf if claim.due_s is None else claim.due_s
        heapq.heappush(line.heap, (due, next(self._order), waiter))
        self.waiting += 1
        try:
            async with asyncio.timeout(self._start_by_s(claim, now_s) - now_s):
                return await waiter.served
        except TimeoutError:
            if waiter.served.done() and not waiter.served.cancelled():
                return waiter.served.result()  # both may happen in one turn of the loop
            self._gone(waiter)
            wait_s = self._expected_wait_s(claim, names, self._clock.monotonic_s())
            raise self._shed("waited", wait_s) from None
        except asyncio.CancelledError:
            self._gone(waiter)
            raise

    def _gone(self, waiter: _Waiter) -> None:
        """Forget who does not wait any more, and hand on a slot that it was just given."""
        if waiter.served.cancelled() or not waiter.served.done():
            waiter.served.cancel()
            self.waiting -= 1
        elif waiter.served.exception() is None:
            self.leave(waiter.served.result(), 0.0)

    def _shed(self, reason: ShedReason, wait_s: float) -> Unavailable:
        self._on_shed(reason)
        retry_s = min(LONGEST_RETRY_S, max(LEAST_RETRY_S, wait_s))
        return Unavailable("The deployments that may answer are busy; the answer would come too late.", retry_s)
