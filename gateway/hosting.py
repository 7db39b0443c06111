"""The deployments that the gateway hosts itself: recipes become supervised engines, engines become deployments."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from backends.engines.devices import device_bytes
from backends.engines.kinds import launcher_of
from backends.engines.memory import MemoryBudget
from backends.engines.recipes import Recipe, load_recipe
from backends.engines.supervisor import EngineState, Supervisor
from backends.registry import Deployment
from backends.remote import RemoteBackend, http_transport
from core.clock import Clock
from core.plan import Readiness
from gateway.settings import HostedDeployment, Settings
from policies.prices import parse_price
from policies.safe_yaml import load_yaml

READINESS = {
    EngineState.READY: Readiness.READY,
    EngineState.STARTING: Readiness.LOADING,
    EngineState.WARMING: Readiness.LOADING,
}


@dataclass(frozen=True, slots=True)
class Hosting:
    """The engines of this gateway by deployment name."""

    supervisors: Mapping[str, Supervisor]
    recipes: Mapping[str, Recipe]
    clock: Clock

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start every engine, in the order of the file, and stop all of them on the way out."""
        try:
            for supervisor in self.supervisors.values():
                supervisor.start()
            yield
        finally:
            await asyncio.gather(*(supervisor.stop() for supervisor in self.supervisors.values()))

    def deployment(self, hosted: HostedDeployment) -> Deployment:
        """Return the registry's view of one hosted deployment; the engine's address is asked for each call.

        A price of the operator's file, measured ones included, goes before the recipe's.
        """
        supervisor, recipe = self.supervisors[hosted.name], self.recipes[hosted.name]
        return Deployment(
            name=hosted.name,
            model=recipe.spec.model,
            price=hosted.price or parse_price(dict(recipe.price), str(recipe.file), "price"),
            backend=RemoteBackend(lambda: supervisor.base_url, http_transport(), self.clock),
            context_tokens=recipe.spec.context_tokens,
            max_output_tokens=recipe.spec.max_output_tokens,
            local=True,
            readiness=lambda: READINESS.get(supervisor.state, Readiness.DOWN),
            retry_after_s=lambda: supervisor.retry_after_s,
        )


def build_hosting(settings: Settings, clock: Clock) -> Hosting:
    """Read the recipe of every hosted deployment; prefixes are shared only where a recipe says so.

    Raises:
        ConfigurationError: a recipe is missing or cannot be used.
    """
    hosted = {name: one for name, one in settings.deployments.items() if isinstance(one, HostedDeployment)}
    recipes = {name: load_recipe(one.recipe, load_yaml) for name, one in hosted.items()}
    memory = MemoryBudget(device_bytes)
    supervisors = {
        name: Supervisor(
            launcher_of(recipe, device_bytes),
            clock,
            settings.state_file.parent,
            name=name,
            memory=memory,
        )
        for name, recipe in recipes.items()
    }
    return Hosting(supervisors, recipes, clock)
