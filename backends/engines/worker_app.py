"""The OpenAI-compatible ASGI application of a worker: chat (streaming and not), models, health and metrics.

A client that goes away cancels its generation, streaming or not, and so does the deadline that the gateway sends along.
An engine failure before the first token is a 500 error object, after it an SSE error event without `[DONE]`.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import msgspec

from backends.engines.completion import Choice, ChunkWriter, completion_body, usage_of
from backends.engines.generation import Piece, PromptRefused, TextEngine
from backends.engines.worker_metrics import Latencies, render_metrics
from backends.engines.worker_request import Limits, RequestRefused, WorkerRequest, parse

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

MAX_BODY_BYTES = 8 << 20
LONG_PROMPT_CHARS = 8_192
STALLED_AFTER_S = 30.0
DEADLINE_HEADER = b"x-headgate-deadline-ms"
GRACE_S = 0.1
TOO_LATE = "the deadline of the request passed"
JSON = b"application/json"


class _EngineFailed(Exception):
    """The engine reported an error for this completion."""


class _ClientGone(Exception):
    """The client closed the connection."""


class WorkerApp:
    """Serves one loaded model."""

    def __init__(self, engine: TextEngine, limits: Limits, max_in_flight: int) -> None:
        self._engine = engine
        self._limits = limits
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._created = int(time.time())
        self._counts: Counter[str] = Counter()
        self._latencies = Latencies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route one HTTP request."""
        route = (scope["method"], scope["path"])
        if route == ("POST", "/v1/chat/completions"):
            await self._chat(scope, receive, send)
        elif route == ("GET", "/v1/models"):
            await _reply(send, 200, self._models())
        elif route == ("GET", "/health"):
            await self._health(send)
        elif route == ("GET", "/metrics"):
            text = render_metrics(self._limits.model, self._engine.gauges(), self._counts, self._latencies)
            await _reply(send, 200, text, b"text/plain; version=0.0.4; charset=utf-8")
        else:
            message = f"There is no {route[0]} {route[1][:120]} here."
            await _reply(send, 404, _error_body(message, "invalid_request_error", None, "not_found"))

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = parse(await _read_body(receive), self._limits)
            self._admit(request.choices)
            prompt = await self._encode(request)
            samplings = [request.sampling(len(prompt), n, self._limits) for n in range(request.choices)]
        except RequestRefused as refusal:
            self._counts["refused"] += 1
            kind = "invalid_request_error" if refusal.status < 500 else "server_error"
            headers = [(b"retry-after", b"1")] if refusal.status == 503 else []
            body = _error_body(refusal.message, kind, refusal.param, refusal.code)
            await _reply(send, refusal.status, body, headers=headers)
            return
        except _ClientGone:
            return
        choices = [Choice(n, self._engine.detokeniser(), request.stops) for n in range(request.choices)]
        arrived: asyncio.Queue[Piece | None] = asyncio.Queue()
        tickets = [self._engine.submit(prompt, sampling, n, arrived.put_nowait) for n, sampling in enumerate(samplings)]
        watcher = asyncio.create_task(_watch(receive, arrived))
        deadline = _deadline(scope, arrived)
        self._in_flight += request.choices
        try:
            outcome = await self._respond(send, request, len(prompt), choices, arrived)
        finally:
            self._in_flight -= request.choices
            watcher.cancel()
            if deadline is not None:
                deadline.cancel()
            for ticket, choice in zip(tickets, choices, strict=True):
                if not choice.ended_by_engine:
                    self._engine.cancel(ticket)
            self._counts["prompt_tokens"] += len(prompt)
            self._counts["generation_tokens"] += sum(choice.token_count for choice in choices)
        self._counts[outcome] += 1

    def _admit(self, choices: int) -> None:
        if self._in_flight + choices > self._max_in_flight:
            raise RequestRefused("The engine's queue is full.", code="engine_overloaded", status=503)

    async def _encode(self, request: WorkerRequest) -> Sequence[int]:
        """Tokenise here when the prompt is short (a thread would cost more), elsewhere when it is long."""
        try:
            if sum(len(message["content"]) for message in request.messages) < LONG_PROMPT_CHARS:
                return self._engine.encode(request.messages)
            return await asyncio.to_thread(self._engine.encode, request.messages)
        except PromptRefused as problem:
            raise RequestRefused(str(problem), param="messages") from problem

    async def _respond(
        self,
        send: Send,
        request: WorkerRequest,
        prompt_tokens: int,
        choices: list[Choice],
        arrived: "asyncio.Queue[Piece | None]",
    ) -> str:
        """Send the answer as it grows, or whole; returns the outcome that is counted."""
        writer = ChunkWriter(self._limits.model, with_usage=request.include_usage)
        started = False
        began_s, first_s = time.monotonic(), None
        try:
            async for batch in _batches(arrived, choices):
                first_s = first_s or time.monotonic()
                texts = [""] * len(choices)
                for piece in batch:
                    texts[piece.index] += choices[piece.index].take(piece)
                if request.stream and (frames := writer.frames(choices, texts)):
                    if not started:
                        await send(_start(200, b"text/event-stream"))
                        started = True
                    await send({"type": "http.response.body", "body": frames, "more_body": True})
        except _EngineFailed as problem:
            await self._tell_failure(send, str(problem), started=started)
            return "cancelled" if str(problem) == TOO_LATE else "failed"
        except _ClientGone:
            return "cancelled"
        finally:
            if first_s is not None:
                tokens = choices[0].token_count
                self._latencies.answered(began_s, first_s, time.monotonic(), tokens)
        usage = usage_of(prompt_tokens, choices)
        if request.stream:
            await send({"type": "http.response.body", "body": writer.last(usage), "more_body": False})
        else:
            await _reply(send, 200, completion_body(self._limits.model, choices, usage))
        return "completed"

    async def _tell_failure(self, send: Send, problem: str, *, started: bool) -> None:
        body = _error_body(f"The engine failed: {problem}", "server_error", None, "engine_error")
        if not started:
            await _reply(send, 500, body)
            return
        await send({"type": "http.response.body", "body": b"data: " + body + b"\n\n", "more_body": False})

    def _models(self) -> bytes:
        model = {
            "id": self._limits.model,
            "object": "model",
            "created": self._created,
            "owned_by": "headgate",
            "max_model_len": self._limits.context_tokens,
        }
        return msgspec.json.encode({"object": "list", "data": [model]})

    async def _health(self, send: Send) -> None:
        gauges = self._engine.gauges()
        stalled = f"no step finished for {gauges.stalled_s:.0f} s" if gauges.stalled_s > STALLED_AFTER_S else None
        problem = gauges.failure or stalled
        if problem is None:
            await _reply(send, 200, b'{"status":"ok"}')
        else:
            await _reply(send, 503, _error_body(problem, "server_error", None, "engine_error"))


async def _batches(arrived: "asyncio.Queue[Piece | None]", choices: Sequence[Choice]) -> AsyncIterator[list[Piece]]:
    """Yield what has arrived, as much as there is at once, until every choice has ended."""
    while not all(choice.finish_reason for choice in choices):
        batch = [await arrived.get()]
        while not arrived.empty():
            batch.append(arrived.get_nowait())
        pieces = [piece for piece in batch if piece is not None]
        if len(pieces) < len(batch):
            raise _ClientGone
        for piece in pieces:
            if piece.error is not None:
                raise _EngineFailed(piece.error)
        yield pieces


async def _watch(receive: Receive, arrived: "asyncio.Queue[Piece | None]") -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    arrived.put_nowait(None)


def _deadline(scope: Scope, arrived: "asyncio.Queue[Piece | None]") -> asyncio.TimerHandle | None:
    """End the request a little after the milliseconds of its deadline, which the gateway itself enforces first."""
    told = next((value for name, value in scope["headers"] if name == DEADLINE_HEADER), b"")
    if not told.isdigit():
        return None
    late = Piece(0, (), error=TOO_LATE)
    return asyncio.get_running_loop().call_later(int(told[:12]) / 1000 + GRACE_S, arrived.put_nowait, late)


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise _ClientGone
        body += event.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise RequestRefused("The request body is larger than 8 MiB.", code="request_too_large", status=413)
        if not event.get("more_body", False):
            return bytes(body)


def _error_body(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def _start(status: int, content_type: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> Event:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type), *headers]}


async def _reply(
    send: Send, status: int, body: bytes, content_type: bytes = JSON, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send(_start(status, content_type, [length, *headers]))
    await send({"type": "http.response.body", "body": body})
