"""The one place that turns errors into what a client reads: the OpenAI error object, as a body or as an SSE event."""

import logging
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from core.errors import HeadgateError, InvalidRequest, RouteNotFound
from core.identity import new_request_id

logger = logging.getLogger("headgate.http")


def error_body(error: HeadgateError) -> bytes:
    """Return the OpenAI error object as JSON."""
    return msgspec.json.encode(
        {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}
    )


def error_event(error: HeadgateError) -> bytes:
    """Return the error object as one SSE data frame; the official SDKs raise on it."""
    return b"data: " + error_body(error) + b"\n\n"


def error_headers(error: HeadgateError) -> list[tuple[str, str]]:
    """Return the headers that tell the client whether and when to try again."""
    return list(error.headers().items())


def render_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Render the framework's own refusals, such as an unknown path, as OpenAI error objects."""
    if error.status_code in (404, 405):
        path = str(request.scope["path"])[:200]
        return _rendered(RouteNotFound(f"{request.scope['method']} {path} is not served here."))
    return _rendered(InvalidRequest(error.detail), error.status_code)


def render_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Render a fault of our own without its details, which go to the log."""
    logger.error("request failed", exc_info=error)
    return _rendered(HeadgateError("The gateway failed to handle this request."))


def _rendered(error: HeadgateError, status: int | None = None) -> Response[bytes]:
    headers = {"x-request-id": new_request_id()} | error.headers()
    return Response(
        error_body(error), status_code=status or error.http_status, media_type="application/json", headers=headers
    )
