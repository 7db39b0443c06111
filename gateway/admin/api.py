"""The admin listener: keys, policies, budgets, cache, feedback, state, `/metrics`, dashboard; for administrators only.

Every request passes `AdminGate` before its body is read; what is wrong with a request is told as an OpenAI error
object. Failure rule: closed, also for routes that forgot to declare who may use them.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from litestar import Litestar, Request, Response, Router, get
from litestar.datastructures import ResponseHeader
from litestar.enums import MediaType
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from core.errors import HeadgateError, InvalidRequest
from core.identity import new_request_id
from gateway.admin.access import OPEN, VIEWER, AdminGate
from gateway.admin.budget_routes import BudgetAdministration, budget_router
from gateway.admin.cache_administration import CacheAdministration
from gateway.admin.cache_routes import cache_router
from gateway.admin.dashboard_routes import Dashboard, dashboard_router
from gateway.admin.decision_routes import decision_router
from gateway.admin.engine_routes import EngineAdministration, engine_router
from gateway.admin.feedback_routes import feedback_router
from gateway.admin.insight_routes import Insight, insight_router
from gateway.admin.key_routes import KeyAdministration, key_router
from gateway.admin.learning_routes import learning_router
from gateway.admin.policy_routes import PolicyAdministration, policy_router
from gateway.admin.report_routes import Reporting, report_router
from gateway.admin.sla_routes import Attainment, sla_router
from gateway.admin.state_routes import state_router
from gateway.changes import Changes
from gateway.learning.feedback import Feedback
from gateway.learning.router_learning import Learning
from gateway.parts.probing import StoreProbe
from gateway.reporting.decisions import Decisions
from gateway.wire.application import Application
from gateway.wire.rendering import error_body, render_http_exception, render_unexpected
from policies.access import AdminAuthenticator

MAX_BODY_BYTES = 64 * 1024
NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
OPENAPI = "/admin/openapi"


@dataclass(frozen=True, slots=True)
class AdminApi:
    """What the admin routes need; `exposition` returns the metrics and their type, and runs in a thread."""

    authenticator: AdminAuthenticator
    keys: KeyAdministration
    policies: PolicyAdministration
    budgets: BudgetAdministration
    cache: CacheAdministration
    feedback: Feedback
    engines: EngineAdministration
    learning: Learning
    decisions: Decisions
    changes: Changes
    insight: Insight
    reporting: Reporting
    attainment: Attainment
    dashboard: Dashboard
    probe: StoreProbe
    exposition: Callable[[], tuple[bytes, str]]


def admin_app(api: AdminApi) -> Litestar:
    """Build the Litestar application of the admin listener."""

    @get("/metrics", opt=VIEWER, include_in_schema=False)
    async def metrics() -> Response[bytes]:
        body, content_type = await asyncio.to_thread(api.exposition)
        return Response(body, media_type=content_type)

    @get("/healthz", opt=OPEN, sync_to_thread=False, include_in_schema=False)
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return Application(
        route_handlers=[
            metrics,
            healthz,
            key_router(api.keys),
            policy_router(api.policies),
            budget_router(api.budgets),
            cache_router(api.cache),
            feedback_router(api.feedback, api.changes),
            engine_router(api.engines),
            learning_router(api.learning, api.changes),
            decision_router(api.decisions),
            state_router(api.probe, api.changes),
            insight_router(api.insight),
            report_router(api.reporting),
            sla_router(api.attainment),
            dashboard_router(api.dashboard),
        ],
        guards=[AdminGate(api.authenticator, api.dashboard.sessions)],
        exception_handlers={
            HeadgateError: render_error,
            ValidationException: render_invalid,
            HTTPException: render_http_exception,
            Exception: render_unexpected,
        },
        response_headers=[ResponseHeader(name=name, value=value) for name, value in NO_STORE.items()],
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=_openapi(),
        logging_config=None,
    )


def render_error(_: Request[Any, Any, Any], error: HeadgateError) -> Response[bytes]:
    """Render an error of our own as an OpenAI error object."""
    headers = {"x-request-id": new_request_id(), **NO_STORE} | error.headers()
    return Response(error_body(error), status_code=error.http_status, media_type="application/json", headers=headers)


def render_invalid(request: Request[Any, Any, Any], error: ValidationException) -> Response[bytes]:
    """Name the field that cannot be used, which the framework keeps apart from its message."""
    first = error.extra[0] if isinstance(error.extra, list) and error.extra else {}
    problem = str(first.get("message", error.detail))[:300]
    field = first.get("key")
    return render_error(request, InvalidRequest(problem, param=None if field == "data" else field))


def _openapi() -> OpenAPIConfig:
    """Describe the API under `/admin/openapi/openapi.json`, for administrators."""
    return OpenAPIConfig(
        title="Headgate admin API",
        version="1",
        components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}),
        security=[{"key": []}],
        openapi_router=Router(OPENAPI, route_handlers=[], include_in_schema=False, opt=VIEWER),
        render_plugins=[JsonRenderPlugin(media_type=MediaType.JSON)],
    )
