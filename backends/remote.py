"""The driver for any server that speaks the OpenAI wire: a provider, or an engine that we host."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import cast

import aiohttp
import httpx
import msgspec
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from httpx_aiohttp import AiohttpTransport

from backends.protocol import AttemptError, HeaderLists, UpstreamCall, UpstreamResponse, timed_out
from core.clock import Clock
from core.deadline import Deadline
from core.trace import AttemptOutcome

CONNECT_TIMEOUT_S = 5.0
NOTHING_PASSES = HeaderLists()
PROBE_TIMEOUT_S = 2.0
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
        connector = _Connector(limit=max_connections, keepalive_timeout=KEEPALIVE_S)
        factory = partial(_Connection, loop=asyncio.get_running_loop())
        connector._factory = cast("partial[ResponseHandler]", factory)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent",),
            read_bufsize=2**18,
        )

    return AiohttpTransport(client=session, trust_env=False)


@dataclass(slots=True)
class _PoolUse:
    """How one request uses the pool: `only_new` asks for a new connection, `kept` is the old one that it was given."""

    only_new: bool = False
    kept: "_Connection | None" = None


_pool_use: ContextVar[_PoolUse | None] = ContextVar("_pool_use", default=None)


class _Connector(aiohttp.TCPConnector):
    """Tells whether a request was sent on a connection kept from before, which the upstream may just have closed."""

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        use = _pool_use.get()
        if use is None:
            return await super()._get(key, traces)
        connection = None if use.only_new else await super()._get(key, traces)
        if connection is not None and isinstance(connection.protocol, _Connection):
            use.kept = connection.protocol
            use.kept.has_received = False
        return connection


class _Connection(ResponseHandler):
    """Wakes whoever reads a body whose framing broke: aiohttp 3.14 tells only who waits for a head."""

    has_received = False

    def data_received(self, data: bytes) -> None:
        self.has_received = True
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
        passed: HeaderLists = NOTHING_PASSES,
    ) -> None:
        self._passed = passed
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
        response = await self._send_on_live(self._request(base_url, call, deadline), deadline)
        try:
            if response.status_code != httpx.codes.OK:
                raise await self._refused(response, deadline)
            async with aclosing(_chunks(response)) as chunks:
                yield UpstreamResponse(
                    content_type=response.headers.get("content-type", "").partition(";")[0].strip().lower(),
                    chunks=chunks,
                    headers=self._returned(response),
                )
        finally:
            await response.aclose()

    async def answers(self, model: str, *, generates: bool) -> bool:
        """Ask whether the deployment answers: by its list of models, or by one token of `model`, which costs."""
        base_url = self._base_url()
        if base_url is None:
            return False
        headers = [*self._headers, ("content-type", "application/json")] if generates else self._headers
        timeout = {"connect": PROBE_TIMEOUT_S, "read": None, "pool": None}
        body = {"model": model, "messages": [{"role": "user", "content": "ping"}], "max_tokens": 1}
        request = httpx.Request(
            "POST" if generates else "GET",
            f"{base_url}/chat/completions" if generates else f"{base_url}/models",
            headers=headers,
            content=msgspec.json.encode(body) if generates else None,
            extensions={"timeout": timeout},
        )
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                response = await self._transport.handle_async_request(request)
                await response.aclose()
        except (TimeoutError, httpx.TransportError, aiohttp.ClientError, OSError):
            return False
        return response.status_code < 500 and response.status_code != httpx.codes.TOO_MANY_REQUESTS

    async def close(self) -> None:
        """Close the connections of the transport."""
        await self._transport.aclose()

    def _request(self, base_url: str, call: UpstreamCall, deadline: Deadline) -> httpx.Request:
        headers = [*self._headers, ("content-type", call.content_type), ("x-request-id", call.request_id)]
        headers += [pair for pair in call.headers if pair[0] in self._passed.request]
        if call.traceparent is not None:
            headers.append(("traceparent", call.traceparent))
        left_s = deadline.remaining_s(self._clock, first_token_sent=True) if call.tells_deadline else None
        if left_s is not None:
            headers.append(("x-headgate-deadline-ms", str(max(1, round(left_s * 1000)))))
        return httpx.Request(
            "POST",
            f"{base_url}{call.path}",
            headers=headers,
            content=call.body,
            extensions={"timeout": {"connect": CONNECT_TIMEOUT_S, "read": None, "pool": None}},
        )

    def _returned(self, response: httpx.Response) -> tuple[tuple[str, str], ...]:
        if not self._passed.response:
            return ()
        return tuple(pair for pair in response.headers.items() if pair[0].lower() in self._passed.response)

    async def _send_on_live(self, request: httpx.Request, deadline: Deadline) -> httpx.Response:
        """Send a request, and once more on a new connection when it met one that the upstream had just closed.

        Only where the connection was kept from an earlier request and not a byte of an answer has come: the upstream
        closed it before it read the request, which is therefore not sent twice.
        """
        use = _PoolUse()
        _pool_use.set(use)
        try:
            return await self._send(request, deadline)
        except AttemptError as failure:
            cause = failure.__cause__ and (failure.__cause__.__cause__ or failure.__cause__)
            was_closed = isinstance(cause, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError)
            if use.kept is None or use.kept.has_received or not was_closed:
                raise
        _pool_use.set(_PoolUse(only_new=True))
        return await self._send(request, deadline)

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
