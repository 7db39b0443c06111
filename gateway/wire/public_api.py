"""The public listener: the generating routes, models, feedback, `/healthz`, `/readyz`, the error object elsewhere.

The hot routes are bare ASGI handlers: the key is checked from the headers before the body is read.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import cast
from urllib.parse import unquote

import msgspec
from litestar import Litestar, Response, asgi, get
from litestar.config.app import AppConfig
from litestar.config.cors import CORSConfig
from litestar.exceptions import HTTPException
from litestar.handlers import ASGIRouteHandler
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from backends.registry import Registry
from core.clock import Clock
from core.endpoints import COMPLETIONS
from core.errors import HeadgateError, InvalidApiKey, ModelNotFound, PermissionRefused, RouteNotFound, let_go
from core.identity import Caller, new_request_id
from core.plan import Readiness, tier_states
from gateway.learning.feedback import Feedback
from gateway.pipeline import Pipeline
from gateway.settings.listening import Cors
from gateway.settings.passed_headers import passed_headers
from gateway.telemetry.metrics import Metrics
from gateway.trace_draft import TraceDraft
from gateway.wire.application import Application
from gateway.wire.asgi import Reply, encode_headers, read_body
from gateway.wire.demands import parse_demands, relevant_headers
from gateway.wire.dialects.completions import as_chat
from gateway.wire.dialects.dialect import OPENAI, Dialect, Spoken, Voice, spoken_answer
from gateway.wire.dialects.messages import MESSAGES_DIALECT
from gateway.wire.dialects.served import DIALECTS, mapped_route
from gateway.wire.feedback_api import FeedbackApi, feedback_route
from gateway.wire.rendering import render_http_exception, render_unexpected
from gateway.wire.running import RunningRequest, RunningRequests
from policies.access import CallerSource
from policies.loading import PolicySet
from policies.resolution import resolve, visible_models
from router.ladder import serves

logger = logging.getLogger("headgate.http")
MODELS = "/v1/models"
EXPOSED = ("x-request-id", "retry-after", "retry-after-ms", "x-should-retry", "age")
OWN_HEADERS = ("cache", "tier", "deployment", "reason", "degraded-from", "cost-usd", "overhead-ms", "store")
COUNT_TOKENS = "/v1/messages/count_tokens"


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
    routes: Mapping[str, str] = field(default_factory=dict)
    heartbeat_s: float = 0.0
    passed: frozenset[bytes] = frozenset()
    running: RunningRequests = field(default_factory=RunningRequests)
    failing: Callable[[], Mapping[str, object]] = dict

    async def serve(self, dialect: Dialect, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Serve one request of a generating route."""
        with self.running.entered() as running:
            await self._serve(dialect, scope, receive, send, running)

    async def _serve(
        self, dialect: Dialect, scope: HTTPScope, receive: Receive, send: Send, running: RunningRequest
    ) -> None:
        received_s = self.clock.monotonic_s()
        request_id = new_request_id()
        reply = Reply(scope, send, request_id, dialect.voice, heartbeat_s=self.heartbeat_s)
        caller: Caller | None = None
        draft: TraceDraft | None = None
        try:
            with running.interruptible():
                self.running.refuse_when_draining()
                if scope["method"] != "POST":
                    raise RouteNotFound(f"{scope['method']} is not served on {dialect.route}; use POST.")
                headers = relevant_headers(scope["headers"])
                caller = self.authenticator.authenticate(credential(headers), client_address(scope))
                body = await read_body(scope, receive, self.max_body_bytes)
                demands = parse_demands(headers, passed_headers(scope["headers"], self.passed))
                spoken = self._spoken(caller, dialect.read(body, request_id, demands))
                reply.voice, request = spoken.voice, spoken.request
                draft = TraceDraft(
                    caller, request, dialect.route, self.clock.now(), received_s, headers.get("traceparent")
                )
                with running.watching(scope, receive):
                    async with self.pipeline.open(caller, request, draft) as answer:
                        await reply.answer(spoken_answer(answer, spoken.translator, draft), running)
        except HeadgateError as error:
            if draft is None:
                self.note_refusal(error, request_id, caller)
            await reply.error(error)
            let_go(error)
        except Exception:
            logger.exception("request failed", extra={"request_id": request_id})
            await reply.error(HeadgateError("The gateway failed to handle this request."))

    def _spoken(self, caller: Caller, spoken: Spoken) -> Spoken:
        """Ask a legacy completion as a chat unless a deployment behind its model serves completions."""
        if spoken.request.path != COMPLETIONS:
            return spoken
        with suppress(ModelNotFound, PermissionRefused):  # the pipeline refuses it again, with a trace
            request = spoken.request
            policy = resolve(self.policies(), caller, request.model, request.demands.tier)
            if not serves(policy, COMPLETIONS, self.registry.snapshot()):
                return as_chat(request)
        return spoken

    async def models(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """List the model names that the caller may send, or show the one that the path names."""

        async def listed(caller: Caller, _: dict[str, str]) -> object:
            names = visible_models(self.policies(), caller)
            one = unquote(scope["path"].removeprefix(MODELS).strip("/"))
            if one and one not in names:
                raise ModelNotFound(one)
            return _model(one) if one else {"object": "list", "data": [_model(name) for name in names]}

        await self._told(scope, send, ("GET", "HEAD"), OPENAI, listed)

    async def count_tokens(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Estimate the input tokens of a Messages request, as the planner does; nothing is generated or charged."""

        async def counted(caller: Caller, headers: dict[str, str]) -> object:
            body = await read_body(scope, receive, self.max_body_bytes)
            request = MESSAGES_DIALECT.read(body, "count", parse_demands(headers)).request
            resolve(self.policies(), caller, request.model)
            return {"input_tokens": request.estimated_input_tokens()}

        await self._told(scope, send, ("POST",), MESSAGES_DIALECT.voice, counted)

    async def _told(
        self,
        scope: HTTPScope,
        send: Send,
        methods: Sequence[str],
        voice: Voice,
        tell: Callable[[Caller, dict[str, str]], Awaitable[object]],
    ) -> None:
        """Answer something that generates nothing."""
        request_id = new_request_id()
        reply = Reply(scope, send, request_id, voice)
        caller: Caller | None = None
        try:
            if scope["method"] not in methods:
                raise RouteNotFound(f"{scope['method']} is not served on {scope['path'][:200]}; use {methods[0]}.")
            headers = relevant_headers(scope["headers"])
            caller = self.authenticator.authenticate(credential(headers), client_address(scope))
            body = msgspec.json.encode(await tell(caller, headers))
            await reply.whole(200, encode_headers([("x-request-id", request_id)]), body)
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
        states = tier_states(self.registry.snapshot())
        return all(state == Readiness.READY for state in states.values()), states


def public_app(
    api: PublicApi, on_app_init: Callable[[AppConfig], AppConfig] | None = None, cors: Cors | None = None
) -> Litestar:
    """Build the Litestar application of the public listener."""
    mapped = (mapped_route(path, name) for path, name in api.routes.items())
    dialects = (*DIALECTS, *mapped)
    generating = [_handler(api, dialect) for dialect in dialects]

    @asgi(MODELS, is_mount=True, copy_scope=True)
    async def models(scope: Scope, receive: Receive, send: Send) -> None:
        await api.models(cast(HTTPScope, scope), receive, send)

    @asgi(COUNT_TOKENS, copy_scope=False)
    async def count_tokens(scope: Scope, receive: Receive, send: Send) -> None:
        await api.count_tokens(cast(HTTPScope, scope), receive, send)

    @get("/healthz", sync_to_thread=False)
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @get("/readyz", sync_to_thread=False)
    def readyz() -> Response[dict[str, object]]:
        if api.running.is_draining:
            return Response({"ready": False, "draining": True}, status_code=503)
        ready, tiers = api.readiness()
        body: dict[str, object] = {"ready": ready, "tiers": tiers}
        if failing := api.failing():
            body["failing"] = failing
        return Response(body, status_code=200 if ready else 503)

    feedback = feedback_route(FeedbackApi(api.feedback, api.authenticator, api.note_refusal), client_address)
    app = Application(
        route_handlers=[*generating, models, count_tokens, feedback, healthz, readyz],
        exception_handlers={HTTPException: render_http_exception, Exception: render_unexpected},
        openapi_config=None,
        logging_config=None,
        on_app_init=[on_app_init] if on_app_init else None,
        cors_config=None if cors is None else _cors_config(cors),
    )
    if cors is None and on_app_init is None:  # nothing of the framework's is set up around the handlers
        app.direct = {dialect.route: cast(ASGIApp, partial(api.serve, dialect)) for dialect in dialects}
    return app


def _cors_config(cors: Cors) -> CORSConfig:
    """Let pages of the listed origins call with a key and read the gateway's headers; cookies are never used."""
    return CORSConfig(
        allow_origins=list(cors.origins),
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=[*EXPOSED, *(f"x-headgate-{name}" for name in OWN_HEADERS)],
        max_age=cors.max_age_s,
    )


def _handler(api: PublicApi, dialect: Dialect) -> ASGIRouteHandler:
    @asgi(dialect.route, copy_scope=False)
    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await api.serve(dialect, cast(HTTPScope, scope), receive, send)

    return handler


def credential(headers: Mapping[str, str]) -> str | None:
    """Return what signs the request in: `Authorization`, or `x-api-key` as Anthropic's clients send it.

    Raises:
        InvalidApiKey: both are there and differ; whoever checked one of them has not seen the other.
    """
    bearer, key = headers.get("authorization"), headers.get("x-api-key")
    if bearer is not None and key is not None and not bearer.endswith(key):
        raise InvalidApiKey
    return bearer if bearer is not None else key


def client_address(scope: HTTPScope) -> str:
    """Return the address of whoever connected, empty on a unix socket."""
    return scope["client"][0] if scope["client"] else ""


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "headgate"}
