"""`/admin/overview` and `/admin/requests`: what the dashboard shows, read from the request log in a thread."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from litestar import Router, get
from litestar.params import FromPath, QueryParameter
from msgspec import Struct

from backends.registry import Registry
from core.clock import Clock
from core.errors import InvalidRequest, UnknownName
from core.plan import RegistrySnapshot, tier_states
from gateway.admin.access import VIEWER
from gateway.telemetry.log_reader import (
    MAX_PAGE,
    Filter,
    Group,
    Label,
    LatencyPoint,
    LoggedRequest,
    LogReader,
    Outcome,
    Percentiles,
    Point,
    Window,
    regrouped,
)
from gateway.telemetry.request_rows import LoggedAttempt
from gateway.telemetry.rollup import Sums

Range = Literal["15m", "1h", "6h", "24h", "7d", "30d"]
RANGES_S: Mapping[Range, int] = {
    "15m": 900,
    "1h": 3_600,
    "6h": 21_600,
    "24h": 86_400,
    "7d": 604_800,
    "30d": 2_592_000,
}
MAX_TENANTS = 200
LABELS: tuple[Label, ...] = ("tier", "deployment", "cache", "reason")
Text = Annotated[str | None, QueryParameter(max_length=200)]


class WindowView(Struct, frozen=True):
    """Unix seconds; `span_s` is one step of the series."""

    start_s: int
    end_s: int
    span_s: int


class SumsView(Struct, frozen=True):
    """Sums under labels; money in nano-USD."""

    labels: list[str]
    requests: int
    answered: int
    failed: int
    refused: int
    late: int
    attempts: int
    input_tokens: int
    output_tokens: int
    cost_nano_usd: int
    saved_nano_usd: int
    baseline_nano_usd: int


class PercentilesView(Struct, frozen=True):
    """Milliseconds of answered requests by name; `error_ratio` is 0 where they are exact."""

    served_by: str
    ttft_ms: dict[str, float | None]
    total_ms: dict[str, float | None]
    error_ratio: float


class PointView(Struct, frozen=True):
    """One step of the series for one tier, or for `cache`."""

    starts_at_s: int
    served_by: str
    requests: int
    late: int
    failed: int
    cost_nano_usd: int
    ttft_p95_ms: float | None
    total_p95_ms: float | None


class Overview(Struct, frozen=True):
    """A window at a glance; `baseline` is what the same answers cost at the dearest tier without a cache."""

    window: WindowView
    total: SumsView
    tiers: list[SumsView]
    cache: list[SumsView]
    reasons: list[SumsView]
    tenants: list[SumsView]
    percentiles: list[PercentilesView]
    series: list[PointView]
    readiness: dict[str, str]


class RequestView(Struct, frozen=True):
    """One row of the log; times in milliseconds, money in nano-USD."""

    id: int
    columns: dict[str, str | int | float | None]
    attempts: list[dict[str, str | int | float | None]]


class RequestPage(Struct, frozen=True):
    """Rows, newest first; go on with `before=searched_to`, unless it is null."""

    requests: list[RequestView]
    searched_to: int | None


class ForecastView(Struct, frozen=True):
    """What one more request may expect, in milliseconds."""

    queue_ms: float
    base_ms: float
    ms_per_input_token: float
    ms_per_output_token: float


class DeploymentView(Struct, frozen=True):
    """One deployment as the planner sees it now; `forecast` is null until it has answered often enough.

    Five `faults_in_a_row` open its breaker; `ejections` counts how often that happened.
    """

    name: str
    model: str
    tiers: list[str]
    hosted: bool
    readiness: str
    retry_after_s: float
    forecast: ForecastView | None
    faults_in_a_row: int
    ejections: int


class DeploymentList(Struct, frozen=True):
    """All deployments, in the order of the tiers."""

    deployments: list[DeploymentView]


@dataclass(frozen=True, slots=True)
class Insight:
    """What the routes of insight need."""

    log: LogReader
    clock: Clock
    registry: Registry

    async def overview(self, window: Window, tenant: str | None) -> Overview:
        """Return a window at a glance."""
        return await asyncio.to_thread(self.glance, window, tenant)

    def deployments(self) -> DeploymentList:
        """Return every deployment as the planner sees it now."""
        snapshot = self.registry.snapshot()
        named = [name for names in snapshot.tiers.values() for name in names]
        return DeploymentList(
            [self._deployment(snapshot, name) for name in dict.fromkeys([*named, *snapshot.deployments])]
        )

    def window(self, wanted: Range, since: int | None, until: int | None) -> Window:
        """Return the last so many seconds, or the window that was named.

        Raises:
            InvalidRequest: it ends before it begins.
        """
        end_s = self.clock.now().timestamp() if until is None else until
        start_s = end_s - RANGES_S[wanted] if since is None else since
        if start_s > end_s:
            raise InvalidRequest("The window ends before it begins.", param="since")
        return Window.between(start_s, end_s)

    def _deployment(self, snapshot: RegistrySnapshot, name: str) -> DeploymentView:
        one = snapshot.deployments[name]
        forecast = one.forecast
        return DeploymentView(
            name=name,
            model=one.model,
            tiers=[tier for tier, names in snapshot.tiers.items() if name in names],
            hosted=self.registry[name].local,
            readiness=one.readiness.value,
            retry_after_s=one.retry_after_s,
            forecast=None if forecast is None else ForecastView(**asdict(forecast)),
            faults_in_a_row=self.registry[name].health.failures_in_a_row,
            ejections=self.registry[name].health.ejections,
        )

    def glance(self, window: Window, tenant: str | None) -> Overview:
        """Return what `overview` does; it blocks."""
        log = self.log
        latencies = log.latencies(window, tenant)
        steps = {(point.starts_at_s, point.served_by): point for point in latencies.series}
        groups = log.sums(window, LABELS, tenant)
        total = regrouped(groups, ())
        return Overview(
            window=WindowView(window.start_s, window.end_s, window.span_s),
            total=_sums((), total[0].sums if total else Sums()),
            tiers=_views(regrouped(groups, (0, 1))),
            cache=_views(regrouped(groups, (2,))),
            reasons=_views(regrouped(groups, (0, 3))),
            tenants=_views(log.sums(window, ("tenant",), tenant, MAX_TENANTS)),
            percentiles=[_percentiles(one) for one in latencies.whole],
            readiness=tier_states(self.registry.snapshot()),
            series=[_point(one, steps.get((one.starts_at_s, one.served_by))) for one in log.series(window, tenant)],
        )


def insight_router(insight: Insight) -> Router:
    """Return the routes that read the request log."""

    @get("/overview", opt=VIEWER, summary="Show a window at a glance")
    async def overview(
        range: Range = "1h",
        tenant: Text = None,
        since: Annotated[int | None, QueryParameter(ge=0)] = None,
        until: Annotated[int | None, QueryParameter(ge=0)] = None,
    ) -> Overview:
        return await insight.overview(insight.window(range, since, until), tenant)

    @get("/deployments", opt=VIEWER, sync_to_thread=False, summary="List deployments with state and forecast")
    def deployments() -> DeploymentList:
        return insight.deployments()

    @get("/requests", opt=VIEWER, summary="List requests, newest first")
    async def requests(
        tenant: Text = None,
        tier: Text = None,
        deployment: Text = None,
        cache: Text = None,
        reason: Text = None,
        key_id: Text = None,
        outcome: Outcome | None = None,
        request_id: Text = None,
        before: Annotated[int | None, QueryParameter(ge=1)] = None,
        after: Annotated[int | None, QueryParameter(ge=0)] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE)] = 50,
    ) -> RequestPage:
        wanted = Filter(
            tenant=tenant,
            tier=tier,
            deployment=deployment,
            cache=cache,
            reason=reason,
            key_id=key_id,
            outcome=outcome,
            request_id=request_id,
        )
        page = await asyncio.to_thread(insight.log.page, wanted, before=before, after=after, limit=limit)
        return RequestPage([_request(row) for row in page.rows], page.searched_to)

    @get("/requests/{request_id:str}", opt=VIEWER, summary="Show one request")
    async def request(request_id: FromPath[str]) -> RequestView:
        row = await asyncio.to_thread(insight.log.request, request_id)
        if row is None:
            raise UnknownName(f"No request {request_id[:64]!r} is in the log.", param="request_id")
        return _request(row)

    return Router("/admin", route_handlers=[overview, deployments, requests, request], tags=["insight"])


def _views(groups: Iterable[Group]) -> list[SumsView]:
    return [_sums(group.labels, group.sums) for group in groups]


def _sums(labels: tuple[str, ...], sums: Sums) -> SumsView:
    return SumsView(list(labels), **asdict(sums))


def _percentiles(one: Percentiles) -> PercentilesView:
    return PercentilesView(one.served_by, dict(one.ttft_ms), dict(one.total_ms), one.error_ratio)


def _point(point: Point, latency: LatencyPoint | None) -> PointView:
    return PointView(
        starts_at_s=point.starts_at_s,
        served_by=point.served_by,
        requests=point.sums.requests,
        late=point.sums.late,
        failed=point.sums.failed,
        cost_nano_usd=point.sums.cost_nano_usd,
        ttft_p95_ms=None if latency is None else latency.ttft_ms,
        total_p95_ms=None if latency is None else latency.total_ms,
    )


def _request(row: LoggedRequest) -> RequestView:
    return RequestView(row.id, dict(row.columns), [_attempt(attempt) for attempt in row.attempts])


def _attempt(attempt: LoggedAttempt) -> dict[str, str | int | float | None]:
    return {name: getattr(attempt, name) for name in attempt.__struct_fields__}
