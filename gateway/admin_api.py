"""The admin listener: `/metrics` and `/healthz`, open only to the admin key."""

import asyncio
import hmac
from collections.abc import Callable
from typing import Any

from litestar import Litestar, Response, get
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException

from core.errors import InvalidApiKey
from gateway.public_api import render_http_exception, render_unexpected
from gateway.rendering import error_body


def admin_app(admin_key: str, exposition: Callable[[], tuple[bytes, str]]) -> Litestar:
    """Build the Litestar application of the admin listener.

    Args:
        admin_key: the bearer token of every route but `/healthz`.
        exposition: returns the metrics and their content type; it runs in a thread, off the event loop.
    """

    def require_admin(connection: ASGIConnection[Any, Any, Any, Any], _: object) -> None:
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), admin_key.encode()):
            raise InvalidApiKey

    @get("/metrics", guards=[require_admin])
    async def metrics() -> Response[bytes]:
        body, content_type = await asyncio.to_thread(exposition)
        return Response(body, media_type=content_type)

    @get("/healthz", sync_to_thread=False)
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    def render_refusal(_: object, error: InvalidApiKey) -> Response[bytes]:
        return Response(
            error_body(error), status_code=error.http_status, media_type="application/json", headers=error.headers()
        )

    return Litestar(
        route_handlers=[metrics, healthz],
        exception_handlers={
            InvalidApiKey: render_refusal,
            HTTPException: render_http_exception,
            Exception: render_unexpected,
        },
        openapi_config=None,
        logging_config=None,
    )
