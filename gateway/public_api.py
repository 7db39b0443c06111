"""The public listener: chat, models, feedback, `/healthz`, `/readyz`, and the error object elsewhere.

The hot routes are bare ASGI handlers: the key is checked from the headers before the body is read.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import msgspec
from litestar import Litestar, Response, asgi, get
from litestar.config.app import AppConfig
from litestar.exceptions import HTTPException
from litestar.types import HTTPScope, Receive, Scope, Send

from backends.registry import Registry
from core.chat import parse_chat_request
from core.clock import Clock
from core.errors import HeadgateError, RouteNotFound
from core.identity import Caller, new_request_id
from core.plan import Readiness
from gateway.asgi import Reply, encode_headers, read_body
from gateway.demands import parse_demands, relevant_headers
from gateway.feedback import Feedback
from gateway.feedback_api import FeedbackApi, feedback_route
from gateway.pipeline import Pipeline
from gateway.rendering import render_http_exception, render_unexpected
from gateway.running import RunningRequest, RunningRequests
from gateway.telemetry.metrics import Metrics
from gateway.trace_draft import TraceDraft
from policies.access import CallerSource
from policies.loading import PolicySet
from policies.resolution import visible_models

logger = logging.getLogger("headgate.http")
CHAT = "/v1/chat/completions"
MODELS = "/v1/models"
BEST_FIRST = list(Readiness)


@dataclass(frozen=True, slots=True)
class PublicApi:
    """What the public routes need."""

    pipeline: Pipeline
    authenticator: CallerSource
    policies: Callable[[], PolicySet]
    registry: Registry
    metrics: Metrics
    clock: Clock
    max_body_bytes: int
    feedback: Feedback
    running: RunningRequests = field(default_factory=RunningRequests)

    async def chat(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Serve one chat completion."""
        with self.running.entered() as running:
            await self._chat(scope, receive, send, running)

    async def _chat(self, scope: HTTPScope, receive: Receive, send: Send, running: RunningRequest) -> None:
        received_s = self.clock.monotonic_s()
        request_id = new_request_id()
        reply = Reply(scope, send, request_id)
        caller: Caller | None = None
        draft: TraceDraft | None = None
        try:
            with running.interruptible():
                self.running.refuse_when_draining()
                if scope["method"] != "POST":
                    raise RouteNotFound(f"{scope['method']} is not served on {CHAT}; use POST.")
                headers = relevant_headers(scope["headers"])
                caller = self.authenticator.authenticate(headers.get("authorization"), client_address(scope))
                body = await read_body(scope, receive, self.max_body_bytes)
                request = parse_chat_request(body, request_id, parse_demands(headers))
                draft = TraceDraft(caller, request, CHAT, self.clock.now(), received_s, headers.get("traceparent"))
                async with running.watching(receive), self.pipeline.open(caller, request, draft) as answer:
                    await reply.answer(answer, running)
        except HeadgateError as error:
            if draft is None:
                self.note_refusal(error, request_id, caller)
            await reply.error(error)
        except Exception:
            logger.exception("request failed", extra={"request_id": request_id})
            await reply.error(HeadgateError("The gateway failed to handle this request."))

    async def models(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """List the model names that the caller may send."""
        request_id = new_request_id()
        reply = Reply(scope, send, request_id)
        caller: Caller | None = None
        try:
            if scope["method"] not in ("GET", "HEAD"):
                raise RouteNotFound(f"{scope['method']} is not served on {MODELS}; use GET.")
            headers = relevant_headers(scope["headers"])
            caller = self.authenticator.authenticate(headers.get("authorization"), client_address(scope))
            names = visible_models(self.policies(), caller)
            body = {"object": "list", "data": [_model(name) for name in names]}
            await reply.whole(200, encode_headers([("x-request-id", request_id)]), msgspec.json.encode(body))
        except HeadgateError as error:
            self.note_refusal(error, request_id, caller)
            await reply.error(error)

    def note_refusal(self, error: HeadgateError, request_id: str, caller: Caller | None) -> None:
        """Count and log a request that was refused before it had a trace; its id is what the client was told."""
        self.metrics.refused(error.code)
        who = {} if caller is None else {"tenant": caller.tenant, "key_id": caller.key_id}
        logger.info("refused", extra={"request_id": request_id, "code": error.code, "status": error.http_status, **who})

    def readiness(self) -> tuple[bool, dict[str, str]]:
        """Return whether every tier can answer, and each tier's best state."""
        snapshot = self.registry.snapshot()
        states = {
            tier: min(
                (snapshot.deployments[name].readiness for name in names),
                key=list(Readiness).index,
                default=Readiness.DOWN,
            ).value
            for tier, names in snapshot.tiers.items()
        }
        return all(state == Readiness.READY for state in states.values()), states


def public_app(api: PublicApi, on_app_init: Callable[[AppConfig], AppConfig] | None = None) -> Litestar:
    """Build the Litestar application of the public listener."""

    @asgi(CHAT, copy_scope=False)
    async def chat(scope: Scope, receive: Receive, send: Send) -> None:
        await api.chat(cast(HTTPScope, scope), receive, send)

    @asgi(MODELS, copy_scope=False)
    async def models(scope: Scope, receive: Receive, send: Send) -> None:
        await api.models(cast(HTTPScope, scope), receive, send)

    @get("/healthz", sync_to_thread=False)
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @get("/readyz", sync_to_thread=False)
    def readyz() -> Response[dict[str, object]]:
        if api.running.is_draining:
            return Response({"ready": False, "draining": True}, status_code=503)
        ready, tiers = api.readiness()
        return Response({"ready": ready, "tiers": tiers}, status_code=200 if ready else 503)

    feedback = feedback_route(FeedbackApi(api.feedback, api.authenticator, api.note_refusal), client_address)
    return Litestar(
        route_handlers=[chat, models, feedback, healthz, readyz],
        exception_handlers={HTTPException: render_http_exception, Exception: render_unexpected},
        openapi_config=None,
        logging_config=None,
        on_app_init=[on_app_init] if on_app_init else None,
    )


def client_address(scope: HTTPScope) -> str:
    """Return the address of whoever connected, empty on a unix socket."""
    return scope["client"][0] if scope["client"] else ""


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "headgate"}
