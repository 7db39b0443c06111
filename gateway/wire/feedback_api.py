"""`POST /v1/feedback`: a client's word on one of its own requests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import msgspec
from litestar import asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import HTTPScope, Receive, Scope, Send

from core.errors import HeadgateError, RouteNotFound
from core.identity import Caller, new_request_id
from gateway.learning.feedback import Feedback, parse_feedback
from gateway.wire.asgi import Reply, encode_headers, read_body
from gateway.wire.demands import relevant_headers
from policies.access import CallerSource

FEEDBACK = "/v1/feedback"
MAX_BODY_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class FeedbackApi:
    """What the route needs; `refused` counts and logs what could not be taken."""

    feedback: Feedback
    authenticator: CallerSource
    refused: Callable[[HeadgateError, str, Caller | None], None]

    async def serve(self, scope: HTTPScope, receive: Receive, send: Send, address: str) -> None:
        """Check the key, read the body, and take what it says."""
        request_id = new_request_id()
        reply = Reply(scope, send, request_id)
        caller: Caller | None = None
        try:
            if scope["method"] != "POST":
                raise RouteNotFound(f"{scope['method']} is not served on {FEEDBACK}; use POST.")
            headers = relevant_headers(scope["headers"])
            caller = self.authenticator.authenticate(headers.get("authorization"), address)
            said = parse_feedback(await read_body(scope, receive, MAX_BODY_BYTES))
            taken = await self.feedback.take(caller.tenant, said)
            await reply.whole(200, encode_headers([("x-request-id", request_id)]), msgspec.json.encode(taken))
        except HeadgateError as error:
            self.refused(error, request_id, caller)
            await reply.error(error)


def feedback_route(api: FeedbackApi, client_address: Callable[[HTTPScope], str]) -> ASGIRouteHandler:
    """Return the route."""

    @asgi(FEEDBACK, copy_scope=False)
    async def feedback(scope: Scope, receive: Receive, send: Send) -> None:
        request = cast(HTTPScope, scope)
        await api.serve(request, receive, send, client_address(request))

    return feedback
