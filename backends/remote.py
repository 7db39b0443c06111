"""The driver for any server that speaks the OpenAI wire: a provider, or an engine that we host.

Over TLS requests travel by httpx and aiohttp, in the clear by `backends.plain_http`, which costs a tenth of that.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import httpx
import msgspec

from backends.plain_http import CONNECT_TIMEOUT_S, CannotConnectError, Exchange, Origin
from backends.protocol import AttemptError, HeaderLists, Pieces, UpstreamCall, UpstreamResponse, broken_off, timed_out
from backends.transport import LibraryAnswer, PlainAnswer, PoolUse, Transport, pool_use
from core.clock import Clock
from core.deadline import Deadline
from core.time_limit import TimeLimit
from core.trace import AttemptOutcome

NOTHING_PASSES = HeaderLists()
PROBE_TIMEOUT_S = 2.0
MAX_ERROR_BODY_BYTES = 64 * 1024
LONGEST_RETRY_AFTER_S = 86_400.0
MAX_HEADS = 64
Answer = TypeVar("Answer")
OK = 200
REQUEST_AT_FAULT = frozenset({400, 413, 422})


class _ErrorBody(msgspec.Struct):
    message: str | None = None


class _Refusal(msgspec.Struct):
    error: _ErrorBody | None = None


_refusal_decoder = msgspec.json.Decoder(_Refusal)


@dataclass(frozen=True, slots=True)
class _Head:
    """The part of a request's head that stays the same for one URL, and where it is sent."""

    origin: Origin
    fixed: str

    def with_headers(self, headers: Sequence[tuple[str, str]], body_bytes: int) -> bytes:
        """Return the whole head.

        Raises:
            AttemptError: a header would end its line.
        """
        own = "".join([f"{name}: {value}\r\n" for name, value in headers])
        if own.count("\n") != len(headers) or own.count("\r") != len(headers):
            raise AttemptError(AttemptOutcome.REFUSED, "a header holds a line break", retryable=False)
        return f"{self.fixed}{own}content-length: {body_bytes}\r\n\r\n".encode("latin-1", "replace")


def _plain_head(url: str, headers: Sequence[tuple[str, str]]) -> _Head | None:
    """Return the head of requests to a URL, None where it is not plain HTTP to a host and a port."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or "@" in parts.netloc:
        return None
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"POST {target} HTTP/1.1", f"host: {parts.netloc}", *(f"{name}: {value}" for name, value in headers)]
    return _Head((parts.hostname, parts.port or 80), "".join(f"{line}\r\n" for line in lines))


class RemoteBackend:
    """Calls one deployment over HTTP; `base_url` is asked each time, since a hosted engine moves when it restarts."""

    def __init__(
        self,
        base_url: Callable[[], str | None],
        transport: Transport,
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
        self._heads: dict[str, _Head | None] = {}

    def open(self, call: UpstreamCall, deadline: Deadline) -> AbstractAsyncContextManager[UpstreamResponse]:
        """Send the call; see `Backend.open`."""
        return _Exchange(self, call, deadline)

    def told(self, answer: PlainAnswer | LibraryAnswer) -> UpstreamResponse:
        """Return what `Backend.open` tells of an answer."""
        passed = answer.among(self._passed.response) if self._passed.response else ()
        pieces = _pieces_of(answer)
        flow = pieces if isinstance(pieces, Exchange) else None
        return UpstreamResponse(media_type(answer.header("content-type") or ""), pieces, passed, flow)

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
                response = await self._transport.tls.handle_async_request(request)
                await response.aclose()
        except (TimeoutError, httpx.TransportError, aiohttp.ClientError, OSError):
            return False
        return response.status_code < 500 and response.status_code != httpx.codes.TOO_MANY_REQUESTS

    async def close(self) -> None:
        """Close the connections of the transport."""
        await self._transport.aclose()

    async def answered(self, call: UpstreamCall, deadline: Deadline) -> PlainAnswer | LibraryAnswer:
        """Send the call and return its answer, which is to be closed, once its head is there.

        Raises:
            AttemptError: nothing answered, or with a status that refuses.
        """
        base_url = self._base_url()
        if base_url is None:
            raise AttemptError(AttemptOutcome.FAILED, "the engine is not running")
        answer = await self._sent(base_url + call.path, call, deadline)
        if answer.status != OK:
            try:
                raise await self._refused(answer, deadline)
            finally:
                await answer.close()
        return answer

    async def _sent(self, url: str, call: UpstreamCall, deadline: Deadline) -> PlainAnswer | LibraryAnswer:
        if url not in self._heads:
            if len(self._heads) >= MAX_HEADS:
                self._heads.clear()
            self._heads[url] = _plain_head(url, self._headers)
        head, headers = self._heads[url], self._own_headers(call, deadline)
        if head is not None:
            whole, limit_s = head.with_headers(headers, len(call.body)), self._first_left_s(deadline)
            try:
                return PlainAnswer(await self._transport.plain.send(head.origin, whole, call.body, limit_s))
            except OSError as problem:
                raise self._unanswered(problem, deadline) from problem
        request = httpx.Request(
            "POST",
            url,
            headers=[*self._headers, *headers],
            content=call.body,
            extensions={"timeout": {"connect": CONNECT_TIMEOUT_S, "read": None, "pool": None}},
        )
        return LibraryAnswer(await self._send_on_live(request, deadline))

    def _own_headers(self, call: UpstreamCall, deadline: Deadline) -> list[tuple[str, str]]:
        """Return the headers that differ from call to call."""
        headers = [("content-type", call.content_type), ("x-request-id", call.request_id)]
        if self._passed.request:
            headers += [pair for pair in call.headers if pair[0] in self._passed.request]
        if call.traceparent is not None:
            headers.append(("traceparent", call.traceparent))
        left_s = deadline.remaining_s(self._clock, first_token_sent=True) if call.tells_deadline else None
        if left_s is not None:
            headers.append(("x-headgate-deadline-ms", str(max(1, round(left_s * 1000)))))
        return headers

    async def _send_on_live(self, request: httpx.Request, deadline: Deadline) -> httpx.Response:
        """Send a request, and once more on a new connection when it met one that the upstream had just closed.

        Only where the connection was kept from an earlier request and not a byte of an answer has come: the upstream
        closed it before it read the request, which is therefore not sent twice.
        """
        use = PoolUse()
        pool_use.set(use)
        try:
            return await self._in_time(self._transport.tls.handle_async_request(request), deadline)
        except AttemptError as failure:
            cause = failure.__cause__ and (failure.__cause__.__cause__ or failure.__cause__)
            was_closed = isinstance(cause, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError)
            if use.kept is None or use.kept.has_received or not was_closed:
                raise
        pool_use.set(PoolUse(only_new=True))
        return await self._in_time(self._transport.tls.handle_async_request(request), deadline)

    async def _in_time(self, sending: Awaitable[Answer], deadline: Deadline) -> Answer:
        try:
            with TimeLimit(self._first_left_s(deadline)):
                return await sending
        except (httpx.TransportError, aiohttp.ClientError, OSError) as problem:
            raise self._unanswered(problem, deadline) from problem

    def _first_left_s(self, deadline: Deadline) -> float | None:
        return deadline.remaining_s(self._clock, first_token_sent=False)

    def _unanswered(self, problem: Exception, deadline: Deadline) -> AttemptError:
        """Translate why no answer has begun."""
        if isinstance(problem, TimeoutError):
            return timed_out(deadline, self._clock, "no answer began within the deadline")
        return AttemptError(AttemptOutcome.FAILED, _connection_message(problem))

    async def _refused(self, answer: PlainAnswer | LibraryAnswer, deadline: Deadline) -> AttemptError:
        """Translate an error answer; the provider's own text is only kept where the request is at fault."""
        status = answer.status
        message = f"the deployment answered {status}"
        if status in REQUEST_AT_FAULT and (said := _upstream_message(await self._error_body(answer, deadline))):
            message = said
        return AttemptError(
            AttemptOutcome.REFUSED,
            message,
            http_status=status,
            retryable=status not in REQUEST_AT_FAULT,
            retry_after_s=_retry_after_s(answer.header("retry-after")),
        )

    async def _error_body(self, answer: PlainAnswer | LibraryAnswer, deadline: Deadline) -> bytes:
        """Read what comes of an error answer within the deadline; the status says enough without it."""
        body = b""
        limit_s = deadline.remaining_s(self._clock, first_token_sent=False)
        with suppress(AttemptError, OSError), TimeLimit(limit_s):
            pieces = _pieces_of(answer)
            while len(body) <= MAX_ERROR_BODY_BYTES and (piece := await pieces.next(None)) is not None:
                body += piece
        return body


class _Exchange:
    """One call of a backend and its answer."""

    def __init__(self, backend: RemoteBackend, call: UpstreamCall, deadline: Deadline) -> None:
        self._backend = backend
        self._call = call
        self._deadline = deadline

    async def __aenter__(self) -> UpstreamResponse:
        self._answer = await self._backend.answered(self._call, self._deadline)
        return self._backend.told(self._answer)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._answer.close()


def _pieces_of(answer: PlainAnswer | LibraryAnswer) -> Pieces:
    """Return the body of an answer as it arrives, decompressed when the upstream compressed it unasked."""
    pieces = answer.pieces()
    return pieces if isinstance(pieces, Exchange) else _Body(pieces)


class _Body:
    """What a library reads or decompresses, with its errors translated."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    def arrived(self) -> bytes | None:
        """Return what is there; see `Pieces.arrived`."""
        return self._pieces.arrived()

    async def next(self, limit_s: float | None) -> bytes | None:
        """Return the next piece; see `Pieces.next`."""
        try:
            return await self._pieces.next(limit_s)
        except TimeoutError:
            raise
        except (httpx.TransportError, httpx.DecodingError, aiohttp.ClientError, OSError) as problem:
            raise broken_off(problem) from problem


def _connection_message(problem: BaseException) -> str:
    cause = problem.__cause__ or problem  # httpx-aiohttp calls nearly all of them ConnectTimeout
    if isinstance(problem, CannotConnectError) or isinstance(cause, aiohttp.ClientConnectorError):
        return "the deployment cannot be reached"
    return f"the connection failed ({type(cause).__name__})"


@lru_cache(64)
def media_type(value: str) -> str:
    """Return the media type of a `content-type`, in lower case and without parameters."""
    return value.partition(";")[0].strip().lower()


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
