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
from collections.abc import Iterator, Sequence

import uvicorn
import uvloop
from litestar.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from core.errors import ConfigurationError
from gateway.compose import build
from gateway.heap import collect_rarely, keep_loaded
from gateway.running import Gateway
from gateway.settings.listening import BACKLOG, Address, TlsFiles, bound_socket
from gateway.settings.operator import Settings
from gateway.telemetry.log_line import configure_logging
from gateway.wire.asgi import ABORT
from gateway.wire.forwarded import ForwardedFor

logger = logging.getLogger("headgate.serve")
DRAIN_S = 10.0
CLOSE_S = 1
CERTIFICATE_EVERY_S = 5.0
KEEPALIVE_S = 75
SWITCH_S = 0.001
"""How long a writer thread may keep the interpreter from the event loop; Python's own 5 ms would be felt in streams."""


class _Protocol(HttpToolsProtocol):
    """Lets a handler cut its connection, for a client that does not read: closing would wait for it to read."""

    def on_message_begin(self) -> None:
        """Begin a request whose scope says how to cut its connection."""
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}


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
    configure_logging("warning" if demo else settings.telemetry.log_level)
    with (
        _bound(settings.listen, settings, "listen") as public,
        _bound(settings.admin_listen, settings, "admin.listen") as admin,
    ):
        gateway = build(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(gateway, public, admin, demo=demo))


async def _serve(gateway: Gateway, public: socket.socket, admin: socket.socket, *, demo: bool) -> int:
    settings = gateway.ground.settings
    edge = settings.edge
    is_behind = bool(edge.proxies or edge.unix_proxy)
    apps = ((gateway.public, public, settings.listen), (gateway.admin.app, admin, settings.admin_listen))
    listeners = [
        (listener(ForwardedFor(app, edge) if is_behind else app, address.tls), bound) for app, bound, address in apps
    ]
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
        url, admin_url = _url(public, settings.listen), _url(admin, settings.admin_listen)
        logger.info("listening", extra={"public": url, "admin": admin_url})
        certificates = renew_certificates([server for server, _ in listeners])
        beside: list[asyncio.Task[object]] = [
            asyncio.create_task(certificates),
            asyncio.create_task(keep_loaded(gateway.caching.embedder.is_ready)),
            asyncio.create_task(gateway.admin.app.built()),
        ]
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


@contextlib.contextmanager
def _bound(address: Address, settings: Settings, key: str) -> Iterator[socket.socket]:
    with contextlib.ExitStack() as stack:
        try:
            bound = stack.enter_context(bound_socket(address))
        except OSError as problem:
            reason, mend = problem.strerror or "cannot listen", "choose another address or stop its user"
            raise ConfigurationError(str(settings.file), key, f"{address}: {reason}", mend) from problem
        bound.setblocking(False)
        yield bound


def _url(bound: socket.socket, address: Address) -> str:
    scheme = "http" if address.tls is None else "https"
    if address.unix is not None:
        return str(address)
    host, port = bound.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
