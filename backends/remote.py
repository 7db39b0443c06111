"""The driver for any server that speaks the OpenAI wire: a provider, or an engine that we host."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import cast

import aiohttp
import httpx
import msgspec
from aiohttp.client_proto import ResponseHandler
from httpx_aiohttp import AiohttpTransport

from backends.protocol import AttemptError, UpstreamCall, UpstreamResponse, timed_out
from core.clock import Clock
from core.deadline import Deadline
from core.trace import AttemptOutcome

CONNECT_TIMEOUT_S = 5.0
MAX_ERROR_BODY_BYTES = 64 * 1024
KEEPALIVE_S = 30.0
LONGEST_RETRY_AFTER_S = 86_400.0
REQUEST_AT_FAULT = frozenset({400, 413, 422})


class _ErrorBody(msgspec.Struct):
    message: str | None = None


class _Refusal(msgspec.Struct):
    error: _ErrorBody | None = None


_refusal_decoder = msgspec.json.Decoder(_Refusal)


def http_transport(max_connections: int = 1_000) -> httpx.AsyncBaseTransport:
    """Return a transport whose cost per request does not grow with idle connections; it keeps no cookies."""

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=KEEPALIVE_S)
        factory = partial(_Connection, loop=asyncio.get_running_loop())
        connector._factory = cast("partial[ResponseHandler]", factory)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent",),
            read_bufsize=2**18,
        )

    return AiohttpTransport(client=session, trust_env=False)


class _Connection(ResponseHandler):
    """Wakes whoever reads a body whose framing broke: aiohttp 3.14 tells only who waits for a head."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.exception() is not None and self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(aiohttp.ClientPayloadError("the framing of the answer is broken"))


class RemoteBackend:
    """Calls one deployment over HTTP; `base_url` is asked each time, since a hosted engine moves when it restarts."""

    def __init__(
        self,
        base_url: Callable[[], str | None],
        transport: httpx.AsyncBaseTransport,
        clock: Clock,
        api_key: str | None = None,
    ) -> None:
        self._base_url = base_url
        self._transport = transport
        self._clock = clock
        self._headers = [
            ("accept", "application/json, text/event-stream"),
            ("accept-encoding", "identity"),
            ("user-agent", "headgate"),
        ]
        if api_key is not None:
            self._headers.append(("authorization", f"Bearer {api_key}"))

    @asynccontextmanager
    async def open(self, call: UpstreamCall, deadline: Deadline) -> AsyncIterator[UpstreamResponse]:
        """Send the call; see `Backend.open`."""
        base_url = self._base_url()
        if base_url is None:
            raise AttemptError(AttemptOutcome.FAILED, "the engine is not running")
        response = await self._send(self._request(base_url, call), deadline)
        try:
            if response.status_code != httpx.codes.OK:
                raise await self._refused(response, deadline)
            async with aclosing(_chunks(response)) as chunks:
                yield UpstreamResponse(
                    content_type=response.headers.get("content-type", "").partition(";")[0].strip().lower(),
                    chunks=chunks,
                )
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close the connections of the transport."""
        await self._transport.aclose()

    def _request(self, base_url: str, call: UpstreamCall) -> httpx.Request:
        headers = [*self._headers, ("content-type", call.content_type), ("x-request-id", call.request_id)]
        if call.traceparent is not None:
            headers.append(("traceparent", call.traceparent))
        return httpx.Request(
            "POST",
            f"{base_url}{call.path}",
            headers=headers,
            content=call.body,
            extensions={"timeout": {"connect": CONNECT_TIMEOUT_S, "read": None, "pool": None}},
        )

    async def _send(self, request: httpx.Request, deadline: Deadline) -> httpx.Response:
        try:
            async with asyncio.timeout(deadline.remaining_s(self._clock, first_token_sent=False)):
                return await self._transport.handle_async_request(request)
        except TimeoutError as timeout:
            message = "no answer began within the deadline"
            raise timed_out(deadline, self._clock, message) from timeout
        except (httpx.TransportError, aiohttp.ClientError, OSError) as problem:
            cause = problem.__cause__ or problem  # httpx-aiohttp calls nearly all of them ConnectTimeout
            message = f"the connection failed ({type(cause).__name__})"
            if isinstance(cause, aiohttp.ClientConnectorError):
                message = "the deployment cannot be reached"
            raise AttemptError(AttemptOutcome.FAILED, message) from problem

    async def _refused(self, response: httpx.Response, deadline: Deadline) -> AttemptError:
        """Translate an error answer; the provider's own text is only kept where the request is at fault."""
        status = response.status_code
        message = f"the deployment answered {status}"
        if status in REQUEST_AT_FAULT and (said := _upstream_message(await self._error_body(response, deadline))):
            message = said
        return AttemptError(
            AttemptOutcome.REFUSED,
            message,
            http_status=status,
            retryable=status not in REQUEST_AT_FAULT,
            retry_after_s=_retry_after_s(response.headers.get("retry-after")),
        )

    async def _error_body(self, response: httpx.Response, deadline: Deadline) -> bytes:
        """Read what comes of an error answer within the deadline; the status says enough without it."""
        body = b""
        with suppress(AttemptError, TimeoutError):
            async with asyncio.timeout(deadline.remaining_s(self._clock, first_token_sent=False)):
                async for chunk in _chunks(response):
                    body += chunk
                    if len(body) > MAX_ERROR_BODY_BYTES:
                        break
        return body


async def _chunks(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives, decompressed when the upstream compressed it unasked."""
    encoded = "content-encoding" in response.headers
    try:
        async for chunk in response.aiter_bytes() if encoded else response.aiter_raw():
            yield chunk
    except (httpx.TransportError, httpx.DecodingError, aiohttp.ClientError, OSError) as problem:
        raise AttemptError(AttemptOutcome.BROKEN_OFF, f"the answer broke off ({type(problem).__name__})") from problem


def _upstream_message(body: bytes) -> str | None:
    try:
        error = _refusal_decoder.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return None if error is None or error.message is None else error.message[:500]


def _retry_after_s(value: str | None) -> float | None:
    """Read the wait in seconds, or None when there is none that can be told on; a date is not read."""
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER_S) if math.isfinite(seconds) else None
