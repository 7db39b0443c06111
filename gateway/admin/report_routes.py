"""`/admin/report` and `/admin/savings`: a tenant's month as JSON and as a page, and savings by source with evidence."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from litestar import Response, Router, get
from litestar.params import FromPath, QueryParameter
from msgspec import Struct

from core.clock import Clock
from core.errors import ConfigurationError, InvalidRequest, UnknownName
from gateway.admin.access import VIEWER
from gateway.admin.insight_routes import RANGES_S, Range
from gateway.reporting.budget_line import BudgetLine
from gateway.reporting.evidence import Difference, saved_per_request
from gateway.reporting.report import TenantReport, month_report
from gateway.reporting.shown import page_of
from gateway.reporting.sources import Machine, SourceLine, by_source
from gateway.telemetry.log_reader import LogReader, Window
from gateway.telemetry.rollup import DAY_S
from gateway.telemetry.time_ranges import TimeRange, month_of
from policies.loading import PolicySet

PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
Month = Annotated[str | None, QueryParameter(max_length=7)]
Verified = Callable[[str], tuple[int, int, float] | None]


class Savings(Struct, frozen=True):
    """Savings of a window by source, and what the holdout shows since the month began.

    `beside` is what the ledger does not hold; `measured` is per eligible request, in nano-USD; `month` is that of UTC.
    """

    sources: list[SourceLine]
    beside: list[SourceLine]
    measured: Difference
    month: str


@dataclass(frozen=True, slots=True)
class Reporting:
    """What the routes need; `verified` tells of a tenant's judged hits, `balances` its budgets."""

    log: Path
    machine: Machine
    policies: Callable[[], PolicySet]
    balances: Callable[[str], Awaitable[tuple[BudgetLine, ...]]]
    verified: Verified
    clock: Clock

    async def report(self, tenant: str, month: str | None) -> TenantReport:
        """Return a tenant's month, the present one unless said otherwise.

        Raises:
            UnknownName: no such tenant.
            InvalidRequest: no such month.
        """
        if self.policies().get(tenant) is None:
            raise UnknownName(f"The tenant {tenant[:64]!r} has no policy.", param="tenant")
        name, span = self._month(month)
        budgets = await self.balances(tenant)
        verified, now = self.verified(tenant), self.clock.now()
        return await asyncio.to_thread(month_report, self.log, self.machine, tenant, name, span, budgets, verified, now)

    def savings(self, range_: Range, tenant: str | None) -> Savings:
        """Return what a window saved by source, and the month's evidence; it blocks."""
        reader, now_s = LogReader(self.log), self.clock.now().timestamp()
        month, span = self._month(None)
        whole = Window(int(span.start.timestamp()), int(span.end.timestamp()), DAY_S)
        window = Window.between(now_s - RANGES_S[range_], now_s)
        measured = saved_per_request(reader.trials(whole, tenant))
        saved = by_source(reader, self.machine, window, tenant)
        return Savings(saved.sources, saved.beside, measured, month)

    def _month(self, month: str | None) -> tuple[str, TimeRange]:
        name = month or f"{self.clock.now():%Y-%m}"
        try:
            return name, month_of(name)
        except ConfigurationError as problem:
            raise InvalidRequest(problem.message, param="month") from problem


def report_router(reporting: Reporting) -> Router:
    """Return the routes."""

    @get("/report/{tenant:str}", opt=VIEWER, summary="Show a tenant's month")
    async def report(tenant: FromPath[str], month: Month = None) -> TenantReport:
        return await reporting.report(tenant, month)

    @get("/report/{tenant:str}/page", opt=VIEWER, summary="Show a tenant's month as a printable page")
    async def page(tenant: FromPath[str], month: Month = None) -> Response[str]:
        shown = page_of(await reporting.report(tenant, month))
        return Response(shown, media_type="text/html; charset=utf-8", headers={"content-security-policy": PAGE_POLICY})

    @get("/savings", opt=VIEWER, summary="Show savings by source, and what the holdout shows")
    async def savings(
        range: Range = "24h", tenant: Annotated[str | None, QueryParameter(max_length=200)] = None
    ) -> Savings:
        return await asyncio.to_thread(reporting.savings, range, tenant)

    return Router("/admin", route_handlers=[report, page, savings], tags=["reports"])
