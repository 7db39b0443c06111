"""Lets engines that do not fit into memory together take turns, without thrash: requests are batched by engine.

An engine gives way when nothing is under way on it, or when another has been wanted for its `wait_s` since it became
ready; until then it goes on taking requests. There is one change at a time: who gives way drains first, then the other
starts. So there is at most one forced swap in `wait_s`, and nobody waits longer than that, the drain and a start.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from backends.engines.engine_state import EngineState
from backends.engines.launcher import EngineSpec
from backends.engines.memory import MemoryBudget
from backends.engines.supervisor import Supervisor
from core.clock import Clock

LOOK_EVERY_S = 0.1
IDLE_S = 0.5
"""A pause between two requests of one client is not idleness."""
CHANGING = frozenset({EngineState.STARTING, EngineState.WARMING, EngineState.DRAINING})


@dataclass(slots=True)
class Swapping:
    """The engines that take turns.

    Attributes:
        supervisors: by name.
        specs: what each declares.
        waits_s: how long the requests of others wait at most before an engine gives way.
        memory: the budget that decides who fits.
        clock: for durations.
    """

    supervisors: Mapping[str, Supervisor]
    specs: Mapping[str, EngineSpec]
    waits_s: Mapping[str, float]
    memory: MemoryBudget
    clock: Clock
    _wanted: dict[str, float] = field(default_factory=dict)

    def want(self, name: str) -> None:
        """Note that a request wants an engine, which gets its turn."""
        if self.supervisors[name].state is not EngineState.READY:
            self._wanted.setdefault(name, self.clock.monotonic_s())

    def wait_s(self, name: str) -> float:
        """Estimate how long an engine waits for its turn, 0 where there is room or nobody to give way."""
        rival = self._rival(name)
        if rival is None or self._fits(name):
            return 0.0
        since_s = self._wanted.get(name, self.clock.monotonic_s())
        return max(0.0, self._gives_way_at_s(rival, since_s) - self.clock.monotonic_s())

    async def run(self) -> None:
        """Look for ever."""
        while self.waits_s:
            self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """Make the one change that is due, if any: whoever has waited longest comes first."""
        if any(self.supervisors[name].state in CHANGING for name in self.waits_s):
            return
        for name, since_s in sorted(self._wanted.items(), key=lambda item: item[1]):
            if self.supervisors[name].state is not EngineState.SLEEPING:
                del self._wanted[name]
            elif self._fits(name):
                del self._wanted[name]
                self.supervisors[name].wake()
                return
            else:
                rival = self._rival(name)
                if rival is not None and self._gives_way(rival, since_s):
                    self.supervisors[rival].sleep()
                    return

    def _fits(self, name: str) -> bool:
        spec = self.specs[name]
        return self.memory.has_room(name, spec.memory_bytes, spec.devices)

    def _rival(self, name: str) -> str | None:
        """Return who on the same devices has been ready for longest."""
        devices = set(self.specs[name].devices)
        ready = [
            other
            for other in self.waits_s
            if other != name
            and devices & set(self.specs[other].devices)
            and self.supervisors[other].state is EngineState.READY
        ]
        return max(ready, key=lambda other: self.supervisors[other].ready_s, default=None)

    def _gives_way(self, rival: str, since_s: float) -> bool:
        supervisor = self.supervisors[rival]
        is_idle = supervisor.requests == 0 and supervisor.leases.idle_s >= IDLE_S
        return is_idle or self.clock.monotonic_s() >= self._gives_way_at_s(rival, since_s)

    def _gives_way_at_s(self, rival: str, since_s: float) -> float:
        ready_at_s = self.clock.monotonic_s() - self.supervisors[rival].ready_s
        return max(since_s, ready_at_s) + self.waits_s[rival]
