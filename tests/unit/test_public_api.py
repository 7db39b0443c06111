"""The chat route by its ASGI messages: what is sent when things end in unusual ways; the pipeline does as told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest
from litestar.types import HTTPScope, Message, Receive

from core.chat import ChatRequest
from core.clock import ManualClock
from core.errors import UpstreamFailed
from core.identity import Caller
from gateway.answer import Answer
from gateway.pipeline import Pipeline
from gateway.telemetry.metrics import Metrics
from gateway.trace_draft import TraceDraft
from gateway.wire.dialects.served import CHAT_DIALECT
from gateway.wire.public_api import PublicApi

BODY = msgspec.json.encode({"model": "auto", "messages": [{"role": "user", "content": "hi"}]})
SCOPE: Any = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": [], "client": None}


class AnyCaller:
    def authenticate(self, header_value: str | None, address: str = "") -> Caller:
        return Caller("acme", "k1")


class Scripted:
    """A pipeline that answers with the given chunks; an exception among them is raised in its place."""

    def __init__(self, *chunks: bytes | Exception, stream: bool = True) -> None:
        self._chunks = chunks
        self._stream = stream
        self.ended_by: BaseException | None = None

    @asynccontextmanager
    async def open(self, caller: Caller, request: ChatRequest, draft: TraceDraft) -> AsyncIterator[Answer]:
        try:
            yield Answer(self._stream, (), self._relay())
        except BaseException as error:
            self.ended_by = error
            raise

    async def _relay(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


def an_api(pipeline: Scripted) -> PublicApi:
    nothing: Any = None
    return PublicApi(
        pipeline=cast(Pipeline, pipeline),
        authenticator=AnyCaller(),
        policies=nothing,
        registry=nothing,
        feedback=nothing,
        metrics=Metrics(set[str]().__contains__),
        clock=ManualClock(),
        max_body_bytes=10_000,
    )


def receiving(*messages: dict[str, object]) -> Receive:
    """Return a `receive` that hands out `messages`, then waits for ever."""
    left = list(messages)

    async def receive() -> Any:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    return receive


def whole(body: bytes) -> dict[str, object]:
    return {"type": "http.request", "body": body, "more_body": False}


async def chat(api: PublicApi, receive: Receive, on_send: Callable[[Message], None] | None = None) -> list[Any]:
    """Serve one request and return what was sent."""
    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append(message)
        if on_send is not None:
            on_send(message)

    await api.serve(CHAT_DIALECT, cast(HTTPScope, SCOPE), receive, send)
    return sent


def starts(sent: list[Any]) -> list[int]:
    return [message["status"] for message in sent if message["type"] == "http.response.start"]


def text_of(sent: list[Any]) -> bytes:
    return b"".join(message["body"] for message in sent if message["type"] == "http.response.body")


async def test_a_fault_of_our_own_in_a_stream_is_told_in_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    sent = await chat(an_api(Scripted(b"data: a\n\n", ValueError("secret"))), receiving(whole(BODY)))
    assert starts(sent) == [200]
    assert sent[-1]["more_body"] is False
    assert b'"code":"internal_error"' in text_of(sent)
    assert b"[DONE]" not in text_of(sent)
    assert b"secret" not in text_of(sent)
    assert "request failed" in caplog.text


async def test_an_upstreams_fault_in_a_stream_is_told_in_the_stream() -> None:
    sent = await chat(an_api(Scripted(b"data: a\n\n", UpstreamFailed("cut"))), receiving(whole(BODY)))
    assert (starts(sent), sent[-1]["more_body"]) == ([200], False)
    assert b'"code":"upstream_error"' in text_of(sent)


@pytest.mark.parametrize(("problem", "status"), [(ValueError("secret"), 500), (UpstreamFailed("no"), 502)])
async def test_a_fault_before_the_first_byte_is_an_error_object(problem: Exception, status: int) -> None:
    sent = await chat(an_api(Scripted(problem, stream=False)), receiving(whole(BODY)))
    assert starts(sent) == [status]
    assert set(msgspec.json.decode(text_of(sent))) == {"error"}
