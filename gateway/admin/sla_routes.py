"""`/admin/sla`: how well every tenant's SLA was kept, read from the request log in a thread."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from litestar import Router, get
from litestar.params import QueryParameter

from gateway.admin.access import VIEWER
from gateway.admin.insight_routes import Insight, Range, Text
from gateway.reporting.sla_report import SlaReport, sla_report
from policies.loading import PolicySet


@dataclass(frozen=True, slots=True)
class Attainment:
    """What the report needs."""

    insight: Insight
    policies: Callable[[], PolicySet]


def sla_router(attainment: Attainment) -> Router:
    """Return the route of the report."""

    @get("/sla", opt=VIEWER, summary="Report how well SLAs were kept")
    async def sla(
        range: Range = "7d",
        tenant: Text = None,
        since: Annotated[int | None, QueryParameter(ge=0)] = None,
        until: Annotated[int | None, QueryParameter(ge=0)] = None,
    ) -> SlaReport:
        insight = attainment.insight
        window = insight.window(range, since, until)
        now_s = insight.clock.now().timestamp() if until is None else until
        return await asyncio.to_thread(sla_report, insight.log, attainment.policies(), window, now_s, tenant)

    return Router("/admin", route_handlers=[sla], tags=["insight"])
