"""What workers tell each other, over Unix sockets that nobody else may open: their metrics, and the engines' state."""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import httpx
import msgspec
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from gateway.hosting.elsewhere import Report
from gateway.workers.engine_desk import EngineDesk
from gateway.workers.exposition import together

METRICS_URL = "http://worker/metrics"
TIMEOUT_S = 2.0
MAX_REPORT_BYTES = 1 << 20
Exposition = Callable[[], tuple[bytes, str]]
_reports = msgspec.json.Decoder(Report)


def private_app(exposition: Exposition, desk: EngineDesk) -> ASGIApp:
    """Return what a worker answers to the others: GET /metrics, and POST /engines, which concerns the first."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if cast(HTTPScope, scope)["path"] == "/metrics":
            body, _ = await asyncio.to_thread(exposition)
        else:
            body = msgspec.json.encode(desk.tell(_reports.decode(await _body(receive))))
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return app


def exposition_of_all(own: Exposition, sockets: Iterable[Path]) -> Exposition:
    """Return what asks the other workers, numbered from 1, and makes one page of all; call it in a thread."""
    others = tuple(sockets)

    def exposition() -> tuple[bytes, str]:
        with ThreadPoolExecutor(len(others)) as pool:
            asked = [pool.submit(_page, socket) for socket in others]
            body, content_type = own()
            pages = {0: body.decode(), **{number: one.result() for number, one in enumerate(asked, 1)}}
        return together(pages).encode(), content_type

    return exposition


def _page(socket: Path) -> str | None:
    """Return a worker's metrics, None while it is away."""
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=TIMEOUT_S) as client:
            return client.get(METRICS_URL).raise_for_status().text
    except (httpx.HTTPError, OSError):
        return None


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += message["body"]
        if not message["more_body"] or len(body) > MAX_REPORT_BYTES:
            return body
