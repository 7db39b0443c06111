"""Run the two listeners and the engines in one event loop, in the foreground, and leave nothing behind.

The first SIGINT or SIGTERM drains: requests under way may finish, new ones get 503, and what still runs near the end of
`DRAIN_S` is ended with an error its client can read. The second ends them at once.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence

import uvicorn
import uvloop
from litestar.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.compose import build
from gateway.heap import Heap, collect_rarely
from gateway.running import Gateway
from gateway.settings.listening import BACKLOG, Address, TlsFiles
from gateway.settings.operator import Settings, as_worker
from gateway.sockets import Sockets, bound
from gateway.telemetry.log_line import configure_logging, configure_parent_logging
from gateway.wire.forwarded import ForwardedFor
from gateway.wire.line import CONNECTION, Line
from gateway.workers.engine_desk import EngineDesk
from gateway.workers.private import private_app

logger = logging.getLogger("headgate.serve")
DRAIN_S = 10.0
CLOSE_S = 1
CERTIFICATE_EVERY_S = 5.0
KEEPALIVE_S = 75
SWITCH_S = 0.001
"""How long a writer thread may keep the interpreter from the event loop; Python's own 5 ms would be felt in streams."""


class _Protocol(HttpToolsProtocol):
    """Gives a handler the line to its client, and tells it when the connection was lost."""

    _on_lost: Callable[[], None] | None = None

    def on_headers_complete(self) -> None:
        """Begin a request whose scope knows its line; its task runs in the next turn of the loop."""
        super().on_headers_complete()
        self.scope["extensions"] = {CONNECTION: Line(self, self.cycle, self._call_when_lost)}  # type: ignore[dict-item]  # an object, not a dict

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the handler at once, without a task that waits for it; what leads in circles is cut here."""
        super().connection_lost(exc)
        if self._on_lost is not None:
            self._on_lost()
        self.scope = self.cycle = None  # type: ignore[assignment]  # both hold this protocol, as does what waits
        self.pipeline.clear()

    def _call_when_lost(self, call: Callable[[], None] | None) -> None:
        self._on_lost = call
        if call is not None and self.transport.is_closing():
            call()


class _Listener(uvicorn.Server):
    """One uvicorn server whose signals are handled by the process, not by itself."""

    def __init__(self, config: uvicorn.Config, tls: TlsFiles | None) -> None:
        super().__init__(config)
        self._tls = tls
        self._loaded: tuple[int, ...] = ()
        config.load()
        if tls is not None:
            config.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
            self.renew_certificate()

    def renew_certificate(self) -> None:
        """Show the certificate as its files now are; a pair that cannot be used leaves the one before in place."""
        tls, context = self._tls, self.config.ssl
        if tls is None or context is None or tls.versions() == self._loaded:
            return
        versions = tls.versions()
        try:
            tls.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # a failure halfway must not harm the one in use
            tls.load_into(context)
        except OSError as problem:
            logger.warning("the certificate was not renewed", extra={"problem": str(problem)[:200]})
        else:
            if self._loaded:
                logger.info("the certificate was renewed", extra={"file": str(tls.certificate)})
        self._loaded = versions

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `_serve`."""
        yield


def serve(settings: Settings, *, demo: bool) -> int:
    """Bind both addresses, then serve until SIGINT or SIGTERM; returns the exit code.

    With `demo` the terminal belongs to the demonstration: only warnings are logged. Files that the process makes, and
    those of the engines it starts, are its user's alone: they hold requests' metadata and cached answers.

    Raises:
        ConfigurationError: an address is taken, or the configuration cannot be used.
    """
    os.umask(0o077)
    sys.setswitchinterval(SWITCH_S)
    collect_rarely()
    level = "warning" if demo else settings.telemetry.log_level
    if settings.workers > 1:
        return _serve_together(settings, level, demo=demo)
    configure_logging(level)
    with (
        bound(settings, settings.listen, "listen") as public,
        bound(settings, settings.admin_listen, "admin.listen") as admin,
    ):
        return _run(settings, Sockets(public, admin), demo=demo)


def _serve_together(settings: Settings, level: str, *, demo: bool) -> int:
    """Serve with several workers, of which this process is the parent; see `gateway.workers.parent`."""
    from gateway.workers.parent import Parent, tell_ready
    from gateway.workers.shared_sockets import SharedSockets

    configure_parent_logging(level)
    with SharedSockets(settings, settings.workers) as sockets:

        def work(number: int) -> int:
            configure_logging(level)
            sockets.keep_only(number)
            own = as_worker(settings, number)
            return _run(own, sockets.of(number), demo=demo and number == 0, on_listening=tell_ready)

        return Parent(settings.workers, work, sockets.reopen, sockets.drop).run()


def _run(settings: Settings, sockets: Sockets, *, demo: bool, on_listening: Callable[[], None] = lambda: None) -> int:
    gateway = build(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(gateway, sockets, on_listening, demo=demo))


async def _serve(gateway: Gateway, sockets: Sockets, on_listening: Callable[[], None], *, demo: bool) -> int:
    listeners = _listeners(gateway, sockets)
    stopping, hurrying = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (hurrying if stopping.is_set() else stopping).set()
        for server, _ in listeners:
            server.force_exit = hurrying.is_set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, signalled)
    reloads: set[asyncio.Task[object]] = set()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: _reload(gateway, reloads))
    async with gateway.running():
        serving = [asyncio.create_task(server.serve(sockets=[bound])) for server, bound in listeners]
        url = _url(sockets.public, gateway.ground.settings.listen)
        logger.info("listening", extra=_told(gateway.ground.settings, sockets))
        on_listening()
        certificates = renew_certificates([server for server, _ in listeners])
        beside: list[asyncio.Task[object]] = [
            asyncio.create_task(certificates),
            asyncio.create_task(Heap(gateway.api.running.is_idle).run(gateway.caching.embedder.is_ready)),
        ]
        if sockets.admin is not None:
            beside.append(asyncio.create_task(gateway.admin.app.built()))
        if demo:
            beside.append(asyncio.create_task(_show(gateway, url)))
        await stopping.wait()
        logger.info("stopping")
        for task in beside:
            task.cancel()
        await gateway.api.running.drain(DRAIN_S - CLOSE_S, hurrying)
        for server, _ in listeners:
            server.should_exit = True
        await asyncio.gather(*serving, *beside, return_exceptions=True)
    return 0


def _listeners(gateway: Gateway, sockets: Sockets) -> list[tuple[_Listener, socket.socket]]:
    """Return the servers of this process, each with its socket."""
    settings = gateway.ground.settings
    edge = settings.edge
    is_behind = bool(edge.proxies or edge.unix_proxy)
    faces: list[tuple[ASGIApp, socket.socket, Address]] = [(gateway.public, sockets.public, settings.listen)]
    if sockets.admin is not None:
        faces.append((gateway.admin.app, sockets.admin, settings.admin_listen))
    listeners = [
        (listener(ForwardedFor(app, edge) if is_behind else app, address.tls), bound) for app, bound, address in faces
    ]
    if sockets.private is not None:
        app = private_app(gateway.monitoring.exposition, EngineDesk(gateway.upstreams.hosting))
        listeners.append((listener(app), sockets.private))
    return listeners


def _told(settings: Settings, sockets: Sockets) -> dict[str, object]:
    """Return what the log says of what this process listens on."""
    told: dict[str, object] = {"public": _url(sockets.public, settings.listen)}
    if sockets.admin is not None:
        told["admin"] = _url(sockets.admin, settings.admin_listen)
    if settings.workers > 1:
        told["worker"] = settings.worker.number
    return told


def _reload(gateway: Gateway, running: set[asyncio.Task[object]]) -> None:
    """Read the policies again, as SIGHUP asks; the watcher keeps the last good ones and logs what is wrong."""
    task: asyncio.Task[object] = asyncio.create_task(gateway.ground.watcher.reload())
    running.add(task)
    task.add_done_callback(running.discard)


async def _show(gateway: Gateway, url: str) -> None:
    """Wait for the tiers, run the demonstration against this very server, and print how to go on."""
    from gateway.demonstration import show

    try:
        await show(gateway, url)
    except asyncio.CancelledError:
        raise
    except Exception:
        logger.exception("the demonstration failed; the gateway goes on serving")


async def renew_certificates(servers: Sequence[_Listener]) -> None:
    """Look at the certificates' files from time to time; who connects after a change sees the new one."""
    while True:
        await asyncio.sleep(CERTIFICATE_EVERY_S)
        for server in servers:
            server.renew_certificate()


def listener(app: ASGIApp, tls: TlsFiles | None = None) -> _Listener:
    """Return the server of one application, as both of ours run."""
    return _Listener(
        uvicorn.Config(
            app,
            loop="uvloop",
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEPALIVE_S,
            timeout_graceful_shutdown=CLOSE_S,
            backlog=BACKLOG,
        ),
        tls,
    )


def _url(bound: socket.socket, address: Address) -> str:
    scheme = "http" if address.tls is None else "https"
    if address.unix is not None:
        return str(address)
    host, port = bound.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
