"""Three times as much as a deployment can serve, in virtual time: who is served, who is refused, and how soon."""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from backends.admission_queue import AdmissionQueue
from backends.gate import Gate
from backends.waiting_lines import Claim
from core.errors import Unavailable
from tests.virtual_time import VirtualClock, run_in_virtual_time

SLOTS = 12
HOLD_S = 1.0
TOTAL_S = 4.0
CLAIMS = {"gold": Claim("gold", 64.0), "plain": Claim("plain", 8.0), "night": Claim("night", 8.0, is_batch=True)}


@dataclass
class Seen:
    """What a tenant's requests met: how many were in time, and after which time the others were refused."""

    sent: int = 0
    in_time: int = 0
    refused_s: list[float] = field(default_factory=list)


class Load:
    """Poisson arrivals of three tenants at one deployment whose requests take about a second each."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = VirtualClock()
        self.gate = Gate(SLOTS)
        self.queue = AdmissionQueue(lambda name: self.gate, self.clock)

    async def phase(self, per_capacity: float, seconds: float) -> dict[str, Seen]:
        """Send for some seconds: a quarter of the capacity from `gold`, of the rest 70 % from `plain`."""
        seen = {tenant: Seen() for tenant in CLAIMS}
        rest_per_s = (per_capacity - 0.25) * SLOTS / HOLD_S
        rates = {"gold": 0.25 * SLOTS / HOLD_S, "plain": 0.7 * rest_per_s, "night": 0.3 * rest_per_s}
        ends_s = self.clock.seconds + seconds

        async def send(tenant: str) -> None:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await asyncio.sleep(self.rng.expovariate(rates[tenant]))
                    if self.clock.seconds >= ends_s:
                        return
                    tasks.create_task(self._one(tenant, seen[tenant]))

        await asyncio.gather(*(send(tenant) for tenant in CLAIMS))
        return seen

    async def _one(self, tenant: str, seen: Seen) -> None:
        began_s, one = self.clock.seconds, CLAIMS[tenant]
        due_s = began_s + TOTAL_S
        claim = Claim(tenant, one.weight, one.is_batch, due_s=due_s, start_by_s=due_s - HOLD_S * 1.1)
        seen.sent += 1
        try:
            await self.queue.enter(claim, ["a"])
        except Unavailable:
            seen.refused_s.append(self.clock.seconds - began_s)
            return
        served_s = self.clock.seconds
        await asyncio.sleep(HOLD_S * self.rng.lognormvariate(0.0, 0.03))
        self.queue.leave("a", self.clock.seconds - served_s)
        seen.in_time += self.clock.seconds <= due_s


def overloaded(seed: int) -> list[dict[str, Seen]]:
    """Return what a usual load, three times the capacity, and half of it saw."""
    load = Load(seed)

    async def phases() -> list[dict[str, Seen]]:
        return [await load.phase(factor, seconds) for factor, seconds in ((0.75, 15.0), (3.0, 30.0), (0.5, 15.0))]

    return run_in_virtual_time(phases(), load.clock)


@pytest.mark.parametrize("seed", range(5))
def test_an_overload_costs_no_goodput_and_no_heavy_tenant_and_refusals_are_fast(seed: int) -> None:
    _, over, after = overloaded(seed)
    assert sum(seen.in_time for seen in over.values()) / 30.0 >= 0.9 * SLOTS / HOLD_S
    assert over["gold"].in_time == over["gold"].sent
    for seen in over.values():
        assert seen.in_time + len(seen.refused_s) == seen.sent
    refused_s = sorted(over["plain"].refused_s + over["night"].refused_s)
    assert len(refused_s) > 500
    assert refused_s[int(0.97 * len(refused_s))] < 0.25
    assert [after[tenant].in_time for tenant in CLAIMS] == [after[tenant].sent for tenant in CLAIMS]
