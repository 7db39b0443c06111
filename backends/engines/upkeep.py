"""Reloads engines as their plans say; looks from time to time, and reads the disk in a thread."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backends.engines.engine_state import EngineState
from backends.engines.reload_plan import ReloadPlan, WeightsWatch, fingerprint
from backends.engines.supervisor import Supervisor
from core.clock import Clock

logger = logging.getLogger("headgate.engine")
LOOK_EVERY_S = 5.0


@dataclass(slots=True)
class Upkeep:
    """The engines with a plan.

    Attributes:
        supervisors: all engines by name.
        plans: the plans of those that have one.
        weights: where the files of each are.
    """

    supervisors: Mapping[str, Supervisor]
    plans: Mapping[str, ReloadPlan]
    weights: Mapping[str, Path]
    clock: Clock
    _watches: dict[str, WeightsWatch] = field(default_factory=dict)

    async def run(self) -> None:
        """Look for ever; at once without plans there is nothing to look for."""
        while self.plans:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Reload what is due now."""
        for name, plan in self.plans.items():
            why = await self._why(name, plan)
            if why is not None:
                logger.info("engine reload", extra={"engine": name, "why": why})
                self.supervisors[name].reload()

    async def _why(self, name: str, plan: ReloadPlan) -> str | None:
        supervisor = self.supervisors[name]
        if plan.on_change:
            present = await asyncio.to_thread(fingerprint, self.weights[name])
            if self._watches.setdefault(name, WeightsWatch()).look(present):
                return "weights changed"
        is_ready = supervisor.state is EngineState.READY and supervisor.reloading.stage not in ("starting", "in place")
        if is_ready and plan.is_due(supervisor.ready_s, self.clock.now()):
            return "schedule"
        return None
