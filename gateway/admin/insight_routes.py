"""`/admin/overview` and `/admin/requests`: what the dashboard shows, read from the request log in a thread."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from litestar import Router, get
from litestar.params import FromPath, QueryParameter

from backends.registry import Registry
from core.clock import Clock
from core.errors import InvalidRequest, UnknownName
from core.plan import tier_states
from gateway.admin.access import VIEWER
from gateway.admin.insight_views import (
    DeploymentList,
    Overview,
    RequestPage,
    RequestView,
    deployment_view,
    percentiles_view,
    point_view,
    request_view,
    sums_view,
    sums_views,
    window_view,
)
from gateway.telemetry.log_reader import MAX_PAGE, Filter, Label, LogReader, Outcome, Window, regrouped
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
            [deployment_view(snapshot, self.registry[name]) for name in dict.fromkeys([*named, *snapshot.deployments])]
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

    def glance(self, window: Window, tenant: str | None) -> Overview:
        """Return what `overview` does; it blocks."""
        log = self.log
        latencies = log.latencies(window, tenant)
        steps = {(point.starts_at_s, point.served_by): point for point in latencies.series}
        groups = log.sums(window, LABELS, tenant)
        total = regrouped(groups, ())
        return Overview(
            window=window_view(window),
            total=sums_view((), total[0].sums if total else Sums()),
            tiers=sums_views(regrouped(groups, (0, 1))),
            cache=sums_views(regrouped(groups, (2,))),
            reasons=sums_views(regrouped(groups, (0, 3))),
            tenants=sums_views(log.sums(window, ("tenant",), tenant, MAX_TENANTS)),
            percentiles=[percentiles_view(one) for one in latencies.whole],
            readiness=tier_states(self.registry.snapshot()),
            series=[point_view(one, steps.get((one.starts_at_s, one.served_by))) for one in log.series(window, tenant)],
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
        return RequestPage([request_view(row) for row in page.rows], page.searched_to)

    @get("/requests/{request_id:str}", opt=VIEWER, summary="Show one request")
    async def request(request_id: FromPath[str]) -> RequestView:
        row = await asyncio.to_thread(insight.log.request, request_id)
        if row is None:
            raise UnknownName(f"No request {request_id[:64]!r} is in the log.", param="request_id")
        return request_view(row)

    return Router("/admin", route_handlers=[overview, deployments, requests, request], tags=["insight"])
