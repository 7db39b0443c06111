"""`/admin/engines`: the engines of this gateway, what they last wrote, and sleep, wake and reload."""

from dataclasses import asdict, dataclass
from typing import Annotated

from litestar import Router, get, post
from litestar.params import QueryParameter
from msgspec import Struct

from backends.engines.engine_watch import Look
from backends.engines.supervisor import Supervisor
from core.errors import UnknownName
from core.money import usd_text
from gateway.admin.access import OPERATOR, VIEWER, AdminRequest, actor_of
from gateway.changes import Changes
from gateway.hosting.deployments import Hosting
from gateway.hosting.engine_hours import EngineCost

LAST = -1


class ReloadRow(Struct, frozen=True):
    """How far an engine's last reload came; `problem` says why it failed, with the old process serving on."""

    stage: str
    number: int
    problem: str | None


class CostRow(Struct, frozen=True):
    """What an engine did and cost since the gateway started; None where the recipe says no `hourly_usd`.

    `marginal_usd` is what its tokens were priced at, `held_usd` its share of the machine's hours, `idle_usd` the part
    of that in which nothing was under way; a token fully loaded costs its price times `loaded_ratio`.
    """

    up_s: float
    busy_s: float
    input_tokens: int
    output_tokens: int
    marginal_usd: str
    held_usd: str | None
    idle_usd: str | None
    loaded_ratio: float | None


class WorkRow(Struct, frozen=True):
    """What an engine tells of its work, from the last look at its own metrics; null where it does not tell.

    Speed and latencies are means since the look before.
    """

    queued: float | None = None
    running: float | None = None
    kv_usage_ratio: float | None = None
    prefix_hit_ratio: float | None = None
    draft_acceptance_ratio: float | None = None
    output_tokens_per_s: float | None = None
    ttft_ms: float | None = None
    itl_ms: float | None = None


class EngineRow(Struct, frozen=True):
    """One engine: its deployment's name, its recipe, and where it is in its life.

    `failures` are those in a row; `retry_after_s` estimates when it can answer; `requests` are under way; `generation`
    counts the processes that became ready, of which the present one has been for `ready_s` seconds.
    """

    name: str
    recipe: str
    kind: str
    model: str
    precision: str
    devices: list[str]
    memory_bytes: int
    state: str
    failures: int
    restarts: int
    requests: int
    retry_after_s: float
    pid: int | None
    last_error: str | None
    generation: int
    ready_s: float
    reload: ReloadRow
    cost: CostRow
    work: WorkRow


class Engines(Struct, frozen=True):
    """All engines of this gateway, in the order of the operator's file."""

    engines: list[EngineRow]


class EngineLog(Struct, frozen=True):
    """Lines as the engine wrote them, oldest first; ask again with `after` = `next` for what follows."""

    lines: list[str]
    next: int


@dataclass(frozen=True, slots=True)
class EngineAdministration:
    """What the engine routes need."""

    hosting: Hosting
    changes: Changes

    def rows(self) -> Engines:
        """Return every engine."""
        return Engines([self._row(name) for name in self.hosting.supervisors])

    def log(self, name: str, after: int) -> EngineLog:
        """Return the lines after the one numbered `after`, all that are kept for a negative one."""
        lines, following = self._find(name).log_after(after)
        return EngineLog(list(lines), following)

    async def sleep(self, request: AdminRequest, name: str) -> EngineRow:
        """Let an engine give its memory back; it wakes when a request wants its tier."""
        supervisor = self._find(name)
        async with self.changes.recording(actor_of(request), "engine.sleep", name):
            supervisor.sleep()
        return self._row(name)

    async def wake(self, request: AdminRequest, name: str) -> EngineRow:
        """Wake an engine."""
        supervisor = self._find(name)
        async with self.changes.recording(actor_of(request), "engine.wake", name):
            supervisor.wake()
        return self._row(name)

    async def reload(self, request: AdminRequest, name: str) -> EngineRow:
        """Replace the engine's process by a new one without failing a request; the row says how far it came."""
        supervisor = self._find(name)
        async with self.changes.recording(actor_of(request), "engine.reload", name):
            supervisor.reload()
        return self._row(name)

    def _find(self, name: str) -> Supervisor:
        supervisor = self.hosting.supervisors.get(name)
        if supervisor is None:
            known = ", ".join(self.hosting.supervisors) or "none"
            raise UnknownName(f"There is no engine {name[:80]!r}; this gateway hosts: {known}.")
        return supervisor

    def _row(self, name: str) -> EngineRow:
        supervisor, recipe = self.hosting.supervisors[name], self.hosting.recipes[name]
        return EngineRow(
            name=name,
            recipe=recipe.name,
            kind=recipe.engine,
            model=recipe.spec.model,
            precision=recipe.spec.precision,
            devices=list(recipe.spec.devices),
            memory_bytes=recipe.spec.memory_bytes,
            state=supervisor.state.value,
            failures=supervisor.failures,
            restarts=supervisor.restarts,
            requests=supervisor.requests,
            retry_after_s=round(supervisor.retry_after_s, 1),
            pid=supervisor.group,
            last_error=supervisor.last_error,
            generation=supervisor.generation,
            ready_s=round(supervisor.ready_s, 1),
            reload=ReloadRow(**asdict(supervisor.reloading)),
            cost=_cost_row(self.hosting.costs.cost(name)),
            work=_work(self.hosting.watch.last(name)),
        )


def _cost_row(cost: EngineCost) -> CostRow:
    use = cost.use
    return CostRow(
        up_s=round(use.up_s, 1),
        busy_s=round(use.busy_s, 1),
        input_tokens=use.input_tokens,
        output_tokens=use.output_tokens,
        marginal_usd=usd_text(use.marginal_nano_usd),
        held_usd=None if cost.held_nano_usd is None else usd_text(cost.held_nano_usd),
        idle_usd=None if cost.idle_nano_usd is None else usd_text(cost.idle_nano_usd),
        loaded_ratio=None if cost.ratio is None else round(cost.ratio, 4),
    )


def _work(look: Look | None) -> WorkRow:
    if look is None:
        return WorkRow()
    figures = look.figures
    return WorkRow(
        queued=figures.queued,
        running=figures.running,
        kv_usage_ratio=figures.kv_usage_ratio,
        prefix_hit_ratio=_ratio(figures.prefix_hit_tokens, figures.prefix_queried_tokens),
        draft_acceptance_ratio=_ratio(figures.accepted_tokens, figures.drafted_tokens),
        **asdict(look.rates),
    )


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def engine_router(engines: EngineAdministration) -> Router:
    """Return the routes under `/admin/engines`."""

    @get("/", opt=VIEWER, sync_to_thread=False, summary="Show every engine's state")
    def listing() -> Engines:
        return engines.rows()

    @get("/{name:str}/logs", opt=OPERATOR, sync_to_thread=False, summary="Show what an engine last wrote")
    def logs(name: str, after: Annotated[int, QueryParameter(ge=LAST)] = LAST) -> EngineLog:
        return engines.log(name, after)

    @post("/{name:str}/sleep", opt=OPERATOR, status_code=200, summary="Let an engine give its memory back")
    async def sleep(request: AdminRequest, name: str) -> EngineRow:
        return await engines.sleep(request, name)

    @post("/{name:str}/wake", opt=OPERATOR, status_code=200, summary="Wake an engine")
    async def wake(request: AdminRequest, name: str) -> EngineRow:
        return await engines.wake(request, name)

    @post("/{name:str}/reload", opt=OPERATOR, status_code=200, summary="Replace an engine's process while it serves")
    async def reload(request: AdminRequest, name: str) -> EngineRow:
        return await engines.reload(request, name)

    return Router("/admin/engines", route_handlers=[listing, logs, sleep, wake, reload], tags=["engines"])
