"""The deployments that the gateway hosts itself: recipes become supervised engines, engines become deployments."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from backends.deployment import Deployment
from backends.engines.devices import CPU, device_bytes
from backends.engines.engine_state import EngineState
from backends.engines.engine_watch import EngineWatch, Told, tell_nobody
from backends.engines.gpu_use import GpuWatch
from backends.engines.hosted_backend import HostedBackend
from backends.engines.kinds import launcher_of
from backends.engines.memory import MemoryBudget
from backends.engines.recipes import Recipe, load_recipe
from backends.engines.supervisor import Supervisor
from backends.engines.swapping import Swapping
from backends.engines.upkeep import Upkeep
from backends.gate import Gate
from backends.remote import RemoteBackend
from backends.transport import http_transport
from core.clock import Clock
from core.plan import Abilities, Readiness
from gateway.hosting.elsewhere import EngineFace, EnginesElsewhere
from gateway.hosting.engine_costs import EngineCosts
from gateway.hosting.evaluations import check_evaluated
from gateway.hosting.probed_abilities import abilities_of
from gateway.settings.deployments import HostedDeployment
from gateway.settings.operator import Settings
from policies.prices import parse_price
from policies.safe_yaml import load_yaml

logger = logging.getLogger("headgate.hosting")
TENANTS_POLL_S = 1.0
GATEWAY_BYTES = 512 << 20
"""Kept free for the gateway itself: 400 MB resident with the encoder loaded and two tiers ready, and a small index."""
FIRST_START_S = 10.0
"""How long the next tier's engines wait for those of the cheapest, so that these do not share the machine."""
START_POLL_S = 0.05
STARTING = frozenset({EngineState.STOPPED, EngineState.STARTING, EngineState.WARMING})
READINESS = {
    EngineState.READY: Readiness.READY,
    EngineState.STARTING: Readiness.LOADING,
    EngineState.WARMING: Readiness.LOADING,
    EngineState.SLEEPING: Readiness.LOADING,
}


@dataclass(frozen=True, slots=True)
class Hosting:
    """The engines of this gateway by deployment name."""

    supervisors: Mapping[str, Supervisor]
    recipes: Mapping[str, Recipe]
    abilities: Mapping[str, Abilities]
    clock: Clock
    single_tenant: Callable[[], bool]
    upkeep: Upkeep
    costs: EngineCosts
    watch: EngineWatch
    gpus: GpuWatch
    swapping: Swapping
    tiers: tuple[tuple[str, ...], ...]
    elsewhere: EnginesElsewhere | None = None

    @asynccontextmanager
    async def running(self, told: Told = tell_nobody) -> AsyncIterator[None]:
        """Start every engine, the cheapest tier first, and stop all on the way out; or watch another worker's.

        `told` gets what the engines say of their load.
        """
        background = [asyncio.create_task(duty) for duty in self._duties(told)]
        try:
            yield
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await asyncio.gather(*(supervisor.stop() for supervisor in self.supervisors.values()))
            await asyncio.to_thread(self.costs.write)

    def _duties(self, told: Told) -> Iterator[Coroutine[object, object, object]]:
        yield self.costs.run()
        if self.elsewhere is not None:
            yield self.elsewhere.run()
            return
        yield self._keep_prefixes_apart()
        yield self.upkeep.run()
        yield self.watch.run(told)
        yield self.gpus.run()
        yield self.swapping.run()
        yield self._start()

    def deployment(self, hosted: HostedDeployment, salt: Callable[[str], str]) -> Deployment:
        """Return the registry's view of one hosted deployment; the engine's address is asked for each call.

        Args:
            hosted: the operator's entry, whose price, measured ones included, goes before the recipe's.
            salt: makes of a tenant what keeps its prefixes apart, for engines that can.
        """
        supervisor, recipe, engine = self.supervisors[hosted.name], self.recipes[hosted.name], self._face(hosted.name)
        return Deployment(
            name=hosted.name,
            model=recipe.spec.model,
            price=hosted.price or parse_price(dict(recipe.price), str(recipe.file), "price"),
            backend=HostedBackend(RemoteBackend(engine.base_url, http_transport(), self.clock), engine.leases),
            context_tokens=recipe.spec.context_tokens,
            max_output_tokens=recipe.spec.max_output_tokens,
            abilities=self.abilities[hosted.name],
            local=True,
            gate=Gate(hosted.max_concurrency),
            readiness=engine.readiness,
            retry_after_s=engine.retry_after_s,
            wanted=engine.wanted,
            salt=salt if supervisor.isolates_prefixes and not recipe.spec.share_prefix_cache else None,
        )

    def want(self, name: str) -> None:
        """Note that a request wants an engine that is not ready: it is woken, or gets its turn."""
        if name in self.swapping.waits_s:
            self.swapping.want(name)
        else:
            self.supervisors[name].wake()

    def retry_after_s(self, name: str) -> float:
        """Estimate when an engine can answer, its turn included; 0 when it is ready."""
        turn_s = self.swapping.wait_s(name) if name in self.swapping.waits_s else 0.0
        return self.supervisors[name].retry_after_s + turn_s

    def _face(self, name: str) -> EngineFace:
        if self.elsewhere is not None:
            return self.elsewhere.face(name)
        engine = self.supervisors[name]
        return EngineFace(
            base_url=lambda: engine.base_url,
            leases=lambda: engine.leases,
            readiness=lambda: readiness_of(engine),
            retry_after_s=partial(self.retry_after_s, name),
            wanted=partial(self.want, name),
        )

    async def _start(self) -> None:
        """Start the engines of the cheapest tier, and those of the next when these are ready, failed or take long."""
        for names in self.tiers:
            for name in names:
                self.supervisors[name].start()
            give_up_at_s = self.clock.monotonic_s() + FIRST_START_S
            while any(self.supervisors[name].state in STARTING for name in names):
                if self.clock.monotonic_s() >= give_up_at_s:
                    break
                await asyncio.sleep(START_POLL_S)

    def failing(self) -> dict[str, object]:
        """Return the engines that failed and are not healthy again, for those who watch; no error text, it may tell."""
        return {
            name: {"failures": engine.failures, "retry_after_s": round(engine.retry_after_s)}
            for name, engine in self.supervisors.items()
            if engine.state is EngineState.FAILED or engine.failures > 1
        }

    async def _keep_prefixes_apart(self) -> None:
        """Start engines anew that cache prefixes for one tenant alone when a second tenant joins while they run."""
        was_alone = self.single_tenant()
        while True:
            await asyncio.sleep(TENANTS_POLL_S)
            is_alone = self.single_tenant()
            if was_alone and not is_alone:
                for name, supervisor in self.supervisors.items():
                    spec = self.recipes[name].spec
                    if spec.prefix_caching and not (spec.share_prefix_cache or supervisor.isolates_prefixes):
                        logger.warning("a second tenant ends prefix caching; restarting", extra={"engine": name})
                        supervisor.restart()
            was_alone = is_alone


def readiness_of(supervisor: Supervisor) -> Readiness:
    """Return what requests may expect: an engine that drains only to start anew is loading, as one that sleeps."""
    if supervisor.comes_back:
        return Readiness.LOADING
    return READINESS.get(supervisor.state, Readiness.DOWN)


def build_hosting(settings: Settings, clock: Clock, single_tenant: Callable[[], bool]) -> Hosting:
    """Read the recipe of every hosted deployment; prefixes are shared only where a recipe says so.

    Args:
        settings: the operator's choices.
        clock: for durations.
        single_tenant: tells whether there is only one tenant, who may then reuse its own prefixes on any engine.

    Raises:
        ConfigurationError: a recipe is missing or cannot be used, its model was quantised here and not evaluated,
            or the file of its probe is broken.
    """
    hosted = {name: one for name, one in settings.deployments.items() if isinstance(one, HostedDeployment)}
    state_dir = settings.state_file.parent
    recipes = {name: load_recipe(one.recipe, load_yaml) for name, one in hosted.items()}
    for recipe in recipes.values():
        check_evaluated(recipe, state_dir)
    specs = {name: recipe.spec for name, recipe in recipes.items()}
    kinds = {name: recipe.engine for name, recipe in recipes.items()}
    waits_s = {name: one.swap_wait_s for name, one in hosted.items() if one.swap_wait_s is not None}
    plans = {name: one.reload for name, one in hosted.items() if one.reload is not None}
    memory = MemoryBudget(device_bytes, {CPU: GATEWAY_BYTES})
    supervisors = {
        name: Supervisor(
            launcher_of(recipe, device_bytes, single_tenant=single_tenant),
            clock,
            state_dir,
            name=name,
            memory=memory,
            takes_turns=name in waits_s,
        )
        for name, recipe in recipes.items()
    }
    elsewhere = None
    if not settings.worker.is_first:
        elsewhere = EnginesElsewhere(settings.worker_socket(0), settings.worker.number, hosted, clock)
    return Hosting(
        supervisors=supervisors,
        recipes=recipes,
        abilities={name: abilities_of(one.abilities, recipes[name], state_dir) for name, one in hosted.items()},
        clock=clock,
        single_tenant=single_tenant,
        upkeep=Upkeep(supervisors, plans, {name: spec.model_dir for name, spec in specs.items()}, clock),
        costs=EngineCosts(supervisors, recipes, settings.beside("engine-hours"), clock),
        watch=EngineWatch(supervisors, kinds, clock),
        gpus=GpuWatch(),
        swapping=Swapping(supervisors, specs, waits_s, memory, clock),
        tiers=_in_order(settings.tiers, recipes),
        elsewhere=elsewhere,
    )


def _in_order(tiers: Mapping[str, tuple[str, ...]], hosted: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Return the hosted deployments in the order to start: the cheapest tier's first, those of no tier last."""
    served = tuple(tuple(name for name in names if name in hosted) for names in tiers.values())
    others = tuple(name for name in hosted if not any(name in names for names in served))
    return (*served, others)
