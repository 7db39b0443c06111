"""Meters the hosted engines while the gateway runs: up and busy seconds, tokens, and what the hour costs for it.

Up and busy are looked at once a second; whoever asks in between gets the figures up to that look. What happened goes to
the file of hours once a minute, in another thread; when that fails it is logged and tried again with the next minute's.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from backends.engines.engine_state import EngineState
from backends.engines.recipes import Recipe
from backends.engines.supervisor import Supervisor
from core.clock import Clock
from core.trace import RequestTrace
from gateway.hosting.engine_hours import EngineCost, add_hours
from policies.loaded_cost import EngineUse, loaded_cost

logger = logging.getLogger("headgate.hosting")
LOOK_EVERY_S = 1.0
LOOKS_PER_WRITE = 60
HOLDS_NOTHING = frozenset({EngineState.STOPPED, EngineState.FAILED, EngineState.SLEEPING})


class EngineCosts:
    """A trace sink and a background task; everything happens on the event loop but the writing."""

    def __init__(
        self, supervisors: Mapping[str, Supervisor], recipes: Mapping[str, Recipe], file: Path, clock: Clock
    ) -> None:
        memory = sum(recipe.spec.memory_bytes for recipe in recipes.values())
        self._supervisors = supervisors
        self._hourly: dict[str, Decimal | None] = {name: recipe.hourly_usd for name, recipe in recipes.items()}
        self._share = {name: Fraction(recipe.spec.memory_bytes, memory) for name, recipe in recipes.items()}
        self._file = file
        self._clock = clock
        self._total = dict.fromkeys(recipes, EngineUse())
        self._unwritten = dict.fromkeys(recipes, EngineUse())
        self._looked_s = clock.monotonic_s()

    def record(self, trace: RequestTrace) -> None:
        """Count what the attempts of a request took from hosted engines; called from the event loop."""
        for attempt in trace.attempts:
            if attempt.deployment in self._total and attempt.usage is not None:
                tokens = (attempt.usage.input_tokens, attempt.usage.output_tokens)
                self._add(attempt.deployment, EngineUse(0.0, 0.0, *tokens, attempt.cost_nano_usd))

    def look(self) -> None:
        """Count the time since the last look by what every engine is doing now."""
        now_s = self._clock.monotonic_s()
        passed_s, self._looked_s = now_s - self._looked_s, now_s
        for name, supervisor in self._supervisors.items():
            up_s = 0.0 if supervisor.state in HOLDS_NOTHING else passed_s
            self._add(name, EngineUse(up_s, up_s if supervisor.requests else 0.0))

    def cost(self, name: str) -> EngineCost:
        """Return what an engine did and cost since the gateway started."""
        return self._cost(name, self._total[name])

    async def run(self) -> None:
        """Look and write until cancelled."""
        looks = 0
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()
            looks += 1
            if looks % LOOKS_PER_WRITE == 0:
                await asyncio.to_thread(self.write)

    def write(self) -> None:
        """Write what is not written yet; a failure is logged, and the figures are kept for the next time."""
        taken, self._unwritten = self._unwritten, dict.fromkeys(self._total, EngineUse())
        costs = {name: self._cost(name, use) for name, use in taken.items() if use != EngineUse()}
        try:
            add_hours(self._file, self._clock.now(), costs)
        except (sqlite3.Error, OSError) as problem:
            for name, use in taken.items():
                self._unwritten[name] += use
            logger.warning("the engines' hours cannot be written", extra={"problem": str(problem)})

    def _add(self, name: str, use: EngineUse) -> None:
        self._total[name] += use
        self._unwritten[name] += use

    def _cost(self, name: str, use: EngineUse) -> EngineCost:
        hourly_usd = self._hourly[name]
        if hourly_usd is None:
            return EngineCost(use, None, None)
        loaded = loaded_cost(use, hourly_usd, self._share[name])
        return EngineCost(use, loaded.held_nano_usd, loaded.idle_nano_usd)
