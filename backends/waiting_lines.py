"""Who waits for slots, who is next, and how long somebody's turn takes to come; no waiting is done here.

Among tenants the slots are shared by weight (start-time fair queueing; Goyal, Vin, Cheng, SIGCOMM 1996); within a
tenant the earliest deadline goes first. Batch is served when nobody else waits.
"""

import asyncio
import math
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from operator import attrgetter
from typing import Literal

import msgspec

INTAKE_S = 10.0
LEAST_SHARE = 0.1
LEAST_BATCH_SHARE = 0.02
"""Of a deployment's speed, what those who come last are taken to get at least: weights leave the lightest tenant some,
nothing is sure to be left for batch."""


class Claim(msgspec.Struct, frozen=True, gc=False):
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
class Waiter:
    """One request that waits until `start_by_s` at most; `served` becomes the name of the deployment with its slot."""

    claim: Claim
    names: frozenset[str]
    n: int
    start_by_s: float
    served: "asyncio.Future[str]"
    is_in_line: bool = True

    @property
    def order(self) -> tuple[float, int]:
        """Return its place among its tenant's: by deadline, then by arrival."""
        return math.inf if self.claim.due_s is None else self.claim.due_s, self.n


@dataclass(eq=False, slots=True)
class _Tenant:
    """One tenant's virtual start time in one class; each slot moves it on by 1 / weight."""

    is_batch: bool
    weight: float
    start: float


@dataclass(eq=False, slots=True)
class _Line:
    """Who waits of one tenant and class for the same deployments, earliest deadline first."""

    tenant: _Tenant
    names: frozenset[str]
    waiters: list[Waiter] = field(default_factory=list)

    def place(self, due_s: float) -> int:
        """Return how many of the line go before a newcomer with this deadline."""
        return bisect_right(self.waiters, (due_s, math.inf), key=attrgetter("order"))


@dataclass(slots=True)
class _Intake:
    """How many requests are let in per second, over the last `INTAKE_S` or so."""

    value: float = 0.0
    at_s: float = 0.0

    def add(self, now_s: float) -> None:
        self.value = self.value * math.exp((self.at_s - now_s) / INTAKE_S) + 1.0
        self.at_s = now_s

    def per_s(self, now_s: float) -> float:
        return self.value * math.exp((self.at_s - now_s) / INTAKE_S) / INTAKE_S


@dataclass(frozen=True, slots=True)
class _Outlook:
    """What a tenant's requests for some deployments have before them: the k-th starts in `wait_s(k)`.

    Attributes:
        ahead: how many of a class that goes first wait.
        share: how many slots are given away for one of this tenant, by weight.
        others: how many of other tenants wait in the same class.
        per_s: slots that come free in a second and are left by who comes before.
    """

    ahead: int
    share: float
    others: int
    per_s: float

    def wait_s(self, place: int) -> float:
        return (self.ahead + min(place * self.share, place + self.others)) / self.per_s


class WaitingLines:
    """Everybody who waits, by tenant, class and deployments, and how many are let in."""

    def __init__(self, per_s: Callable[[str, float], float]) -> None:
        """Forecast with `per_s`: how many slots of a deployment come free in a second, asked with the moment."""
        self._per_s = per_s
        self._tenants: dict[tuple[bool, str], _Tenant] = {}
        self._lines: dict[tuple[bool, str, frozenset[str]], _Line] = {}
        self._intakes: dict[str, dict[tuple[bool, float], _Intake]] = {}
        self._order = count()
        self._virtual = 0.0
        self.waiting = 0

    def __iter__(self) -> Iterator[Waiter]:
        return (waiter for line in self._lines.values() for waiter in line.waiters)

    def let_in(self, claim: Claim, names: Sequence[str], now_s: float) -> None:
        """Count a request that is served or waits for any of the deployments; the first of them is as good as all."""
        kind = (not claim.is_batch, claim.weight)
        intakes = self._intakes.get(names[0])
        if intakes is None:
            intakes = self._intakes[names[0]] = {}
        if kind not in intakes:
            intakes[kind] = _Intake()
        intakes[kind].add(now_s)

    def join(self, claim: Claim, names: frozenset[str], start_by_s: float) -> Waiter:
        """Put a request into its line."""
        key = (claim.is_batch, claim.tenant)
        if key not in self._tenants:
            self._tenants[key] = _Tenant(claim.is_batch, claim.weight, self._virtual)
        tenant = self._tenants[key]
        line = self._lines.setdefault((*key, names), _Line(tenant, names))
        if not any(other.tenant is tenant and other.waiters for other in self._lines.values()):
            tenant.start = max(tenant.start, self._virtual)
        waiter = Waiter(claim, names, next(self._order), start_by_s, asyncio.get_running_loop().create_future())
        insort(line.waiters, waiter, key=attrgetter("order"))
        self.waiting += 1
        return waiter

    def remove(self, waiter: Waiter) -> None:
        """Take a request out of its line if it is there; once everybody has gone nobody has had more than others."""
        if not waiter.is_in_line:
            return
        waiter.is_in_line = False
        key = (waiter.claim.is_batch, waiter.claim.tenant, waiter.names)
        self._lines[key].waiters.remove(waiter)
        if not self._lines[key].waiters:
            del self._lines[key]
        self.waiting -= 1
        if not self.waiting:
            self._tenants.clear()
            self._virtual = 0.0

    def take(self, name: str, *, is_batch: bool) -> Waiter | None:
        """Take out who is next for a slot of `name`, in one class, passing over who was cancelled this moment."""
        while able := [one for one in self._lines.values() if one.tenant.is_batch is is_batch and name in one.names]:
            line = min(able, key=lambda line: (line.tenant.start, line.waiters[0].order))
            waiter = line.waiters[0]
            if not waiter.served.done():
                self._virtual = line.tenant.start
                line.tenant.start += 1.0 / line.tenant.weight
                self.remove(waiter)
                return waiter
            self.remove(waiter)
        return None

    def is_awaited(self, name: str, *, by_batch: bool) -> bool:
        """Tell whether somebody waits for `name`; batch goes before nobody but batch."""
        return any(name in line.names and (by_batch or not line.tenant.is_batch) for line in self._lines.values())

    def wait_s(self, claim: Claim, names: frozenset[str], now_s: float) -> float:
        """Estimate how long a newcomer would wait."""
        outlook = self._outlook(claim, names, now_s)
        due_s = math.inf if claim.due_s is None else claim.due_s
        return 0.0 if outlook is None else outlook.wait_s(1 + sum(one.place(due_s) for one in self._mine(claim, names)))

    def late(self, now_s: float) -> list[tuple[Waiter, float]]:
        """Return who has to go so that all others can start in time, as few as possible, with the wait of each.

        When one of a line cannot make it, the last that came of those up to it goes (Moore, "An n job, one machine
        sequencing algorithm for minimizing the number of late jobs", Management Science 1968): it has waited least.
        """
        return [one for line in self._lines.values() for one in self._late_of(line, now_s)]

    def _late_of(self, line: _Line, now_s: float) -> Iterator[tuple[Waiter, float]]:
        claim = line.waiters[0].claim
        outlook = self._outlook(claim, line.names, now_s)
        if outlook is None:
            return
        elsewhere = [one for one in self._mine(claim, line.names) if one is not line]
        kept: list[Waiter] = []
        for waiter in line.waiters:
            kept.append(waiter)
            wait_s = outlook.wait_s(len(kept) + sum(other.place(waiter.order[0]) for other in elsewhere))
            if now_s + wait_s > waiter.start_by_s:
                last = max(kept, key=attrgetter("n"))
                kept.remove(last)
                yield last, wait_s

    def _outlook(self, claim: Claim, names: frozenset[str], now_s: float) -> _Outlook | None:
        """Return what lies before a claim, None where slots come free at once or nothing is known of that.

        Of the deployments' speed, what heavier tenants (and for batch all others) use lately is not there.
        """
        per_s = sum(self._per_s(name, now_s) for name in names)
        if per_s == 0.0 or math.isinf(per_s):
            return None
        mine_is = (not claim.is_batch, claim.weight)
        seen = [self._intakes[name] for name in names if name in self._intakes]
        before_per_s = sum(one.per_s(now_s) for by_kind in seen for key, one in by_kind.items() if key > mine_is)
        least = LEAST_BATCH_SHARE if claim.is_batch else LEAST_SHARE
        mine = self._mine(claim, names)
        rivals = [line for line in self._overlapping(names, is_batch=claim.is_batch) if line not in mine]
        weights = {line.tenant: line.tenant.weight for line in rivals}
        return _Outlook(
            ahead=sum(len(line.waiters) for line in self._overlapping(names, is_batch=False)) if claim.is_batch else 0,
            share=(claim.weight + sum(weights.values())) / claim.weight,
            others=sum(len(line.waiters) for line in rivals),
            per_s=max(least * per_s, per_s - before_per_s),
        )

    def _overlapping(self, names: frozenset[str], *, is_batch: bool) -> list[_Line]:
        """Return the lines of one class that wait for any of the deployments."""
        return [
            line
            for line in self._lines.values()
            if line.tenant.is_batch is is_batch and not line.names.isdisjoint(names)
        ]

    def _mine(self, claim: Claim, names: frozenset[str]) -> list[_Line]:
        """Return the lines of a claim's tenant that wait for any of the deployments."""
        tenant = self._tenants.get((claim.is_batch, claim.tenant))
        return [line for line in self._overlapping(names, is_batch=claim.is_batch) if line.tenant is tenant]
