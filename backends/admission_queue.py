"""Who is served next when deployments have no slot free: a bounded queue that refuses early instead of serving late.

Whoever could not be served in time, by the forecast and a margin, is told so at once, with the wait that the queue's
own speed implies. While requests wait, the forecast is made anew every `LOOK_EVERY_S`: when it has become worse,
because heavier tenants overtake or slots come free more slowly, as many as needed are refused there and then, the last
that came first. A deployment whose own engine tells of a queue that is too long for a request is not free for it. When
the queue is full, batch, then the lightest weight, then the latest deadline makes room for who
comes before it.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

from backends.gate import Gate
from backends.waiting_lines import Claim, Waiter, WaitingLines
from core.clock import Clock
from core.errors import Unavailable

MAX_WAITING = 1_000
LONGEST_WAIT_S = 30.0
LEAST_RETRY_S = 0.1
LONGEST_RETRY_S = 60.0
LOOK_EVERY_S = 0.1
SURE = 1.5
"""Who enters the queue has this many times the time that it is expected to need, so that few are overtaken later."""
ShedReason = Literal["late", "full", "evicted", "waited", "policy"]


def no_engine_tells(name: str, now_s: float) -> float:
    """Tell of no queue before any engine."""
    return 0.0


class AdmissionQueue:
    """The slots of all deployments and who waits for them."""

    def __init__(
        self,
        gates: Callable[[str], Gate],
        clock: Clock,
        *,
        max_waiting: int = MAX_WAITING,
        on_shed: Callable[[ShedReason], None] = lambda reason: None,
        engine_wait_s: Callable[[str, float], float] = no_engine_tells,
    ) -> None:
        """Queue at most `max_waiting` requests for the gates by deployment name.

        `engine_wait_s` is asked how long the queue before a deployment's own engine takes at a moment.
        """
        self._gates = gates
        self._clock = clock
        self._max_waiting = max_waiting
        self._on_shed = on_shed
        self._engine_wait_s = engine_wait_s
        self._lines = WaitingLines(lambda name, now_s: gates(name).per_s(now_s))
        self._looking: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Return how many wait."""
        return self._lines.waiting

    def enter_at_once(self, claim: Claim, name: str) -> bool:
        """Take a slot of the deployment that may serve a request best, where it would not have to wait; see `enter`."""
        now_s = self._clock.monotonic_s()
        if not self._begins_at_once(claim, name, now_s):
            return False
        self._lines.let_in(claim, (name,), now_s)
        self._gates(name).taken += 1
        return True

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
        free = self._free_for(claim, own, now_s)
        if free is not None:
            self._lines.let_in(claim, own, now_s)
            return self._taken(free)
        names, start_by_s = frozenset(own), _start_by_s(claim, now_s)
        engine_s = min(self._engine_wait_s(name, now_s) for name in own)
        wait_s = self._lines.wait_s(claim, names, now_s) + engine_s
        is_late = now_s + SURE * wait_s > start_by_s
        if is_late and claim.when_late == "move":
            moved = self._free_for(claim, others, now_s)
            if moved is not None:
                return self._taken(moved)
        if claim.when_late == "shed":
            raise self._shed("policy", wait_s)
        if is_late:
            raise self._shed("late", wait_s)
        if self.waiting >= self._max_waiting:
            self._make_room(claim, wait_s)
        self._lines.let_in(claim, own, now_s)
        return await self._wait(self._lines.join(claim, names, start_by_s), now_s)

    def take(self, name: str, *, is_batch: bool = False) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        if not self._is_free(name, self._clock.monotonic_s(), is_batch=is_batch):
            return False
        self._taken(name)
        return True

    def leave(self, name: str, held_s: float) -> None:
        """Give a slot back, and let in who is next."""
        self._gates(name).give_back(held_s, self._clock.monotonic_s())
        if self._lines.waiting:
            self._serve(name)

    def refuse_late(self) -> None:
        """Refuse who can no longer start in time, as forecast now."""
        for waiter, wait_s in self._lines.late(self._clock.monotonic_s()):
            self._refuse(waiter, "late", wait_s)

    def _serve(self, name: str) -> None:
        gate, now_s = self._gates(name), self._clock.monotonic_s()
        for is_batch in (False, True):
            while self.waiting and gate.has_room(now_s, is_batch=is_batch):
                waiter = self._lines.take(name, is_batch=is_batch)
                if waiter is None:
                    break
                gate.take()
                waiter.served.set_result(name)

    def _free_for(self, claim: Claim, names: Sequence[str], now_s: float) -> str | None:
        """Return the first deployment with a free slot whose own engine would begin in time, as far as it tells."""
        for name in names:
            if self._begins_at_once(claim, name, now_s):
                return name
        return None

    def _begins_at_once(self, claim: Claim, name: str, now_s: float) -> bool:
        if not self._is_free(name, now_s, is_batch=claim.is_batch):
            return False
        if claim.start_by_s is None:
            return True
        engine_s = self._engine_wait_s(name, now_s)
        return not engine_s or now_s + engine_s <= claim.start_by_s

    def _is_free(self, name: str, now_s: float, *, is_batch: bool) -> bool:
        if not self._gates(name).has_room(now_s, is_batch=is_batch):
            return False
        return not self._lines.waiting or not self._lines.is_awaited(name, by_batch=is_batch)

    def _taken(self, name: str) -> str:
        self._gates(name).take()
        return name

    def _make_room(self, claim: Claim, wait_s: float) -> None:
        """Send away whoever comes after `claim`, the last of them first.

        Raises:
            Unavailable: nobody does.
        """
        last = min(self._lines, key=lambda waiter: waiter.claim.rank, default=None)
        if last is None or last.claim.rank[:2] >= claim.rank[:2]:
            raise self._shed("full", wait_s)
        self._refuse(last, "evicted", wait_s)

    async def _wait(self, waiter: Waiter, now_s: float) -> str:
        self._look_later()
        try:
            async with asyncio.timeout(waiter.start_by_s - now_s):
                return await waiter.served
        except TimeoutError:
            if waiter.served.done() and not waiter.served.cancelled():
                return waiter.served.result()  # both may happen in one turn of the loop
            self._lines.remove(waiter)
            wait_s = self._lines.wait_s(waiter.claim, waiter.names, self._clock.monotonic_s())
            raise self._shed("waited", wait_s) from None
        except asyncio.CancelledError:
            self._gone(waiter)
            raise

    def _gone(self, waiter: Waiter) -> None:
        """Forget who does not wait any more, and hand on a slot that it was just given."""
        self._lines.remove(waiter)
        if waiter.served.cancel() or waiter.served.cancelled():
            return
        if waiter.served.exception() is None:
            name = waiter.served.result()
            self._gates(name).taken -= 1
            self._serve(name)

    def _look_later(self) -> None:
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        self._looking = None
        self.refuse_late()
        if self.waiting:
            self._look_later()

    def _refuse(self, waiter: Waiter, reason: ShedReason, wait_s: float) -> None:
        self._lines.remove(waiter)
        if not waiter.served.done():
            waiter.served.set_exception(self._shed(reason, wait_s))

    def _shed(self, reason: ShedReason, wait_s: float) -> Unavailable:
        self._on_shed(reason)
        retry_s = min(LONGEST_RETRY_S, max(LEAST_RETRY_S, wait_s))
        return Unavailable("The deployments that may answer are busy; the answer would come too late.", retry_s)


def _start_by_s(claim: Claim, now_s: float) -> float:
    longest = now_s + LONGEST_WAIT_S
    return longest if claim.start_by_s is None else min(longest, claim.start_by_s)
