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
from collections.abc import Iterator

import uvicorn
import uvloop
from litestar.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from core.errors import ConfigurationError
from gateway.asgi import ABORT
from gateway.compose import Gateway, build
from gateway.settings import Address, Settings
from gateway.telemetry.log_line import configure_logging

logger = logging.getLogger("headgate.serve")
DRAIN_S = 10.0
CLOSE_S = 1
KEEPALIVE_S = 75
BACKLOG = 2048


class _Protocol(HttpToolsProtocol):
    """Lets a handler cut its connection, for a client that does not read: closing would wait for it to read."""

    def on_message_begin(self) -> None:
        """Begin a request whose scope says how to cut its connection."""
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}


class _Listener(uvicorn.Server):
    """One uvicorn server whose signals are handled by the process, not by itself."""

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
    configure_logging("warning" if demo else settings.log_level)
    with (
        _bound(settings.listen, settings, "listen") as public,
        _bound(settings.admin_listen, settings, "admin.listen") as admin,
    ):
        gateway = build(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(gateway, public, admin, demo=demo))


async def _serve(gateway: Gateway, public: socket.socket, admin: socket.socket, *, demo: bool) -> int:
    listeners = [(listener(gateway.public), public), (listener(gateway.admin), admin)]
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
        logger.info("listening", extra={"public": _url(public), "admin": _url(admin)})
        showing = asyncio.create_task(_show(gateway, _url(public))) if demo else None
        await stopping.wait()
        logger.info("stopping")
        if showing is not None:
            showing.cancel()
        await gateway.api.running.drain(DRAIN_S - CLOSE_S, hurrying)
        for server, _ in listeners:
            server.should_exit = True
        await asyncio.gather(*serving, *([showing] if showing else []), return_exceptions=True)
    return 0


def _reload(gateway: Gateway, running: set[asyncio.Task[object]]) -> None:
    """Read the policies again, as SIGHUP asks; the watcher keeps the last good ones and logs what is wrong."""
    task: asyncio.Task[object] = asyncio.create_task(gateway.watcher.reload())
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


def listener(app: ASGIApp) -> _Listener:
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
        )
    )


@contextlib.contextmanager
def _bound(address: Address, settings: Settings, key: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((address.host, address.port))
            bound.listen(BACKLOG)
        except OSError as problem:
            reason = problem.strerror or "cannot listen"
            raise ConfigurationError(
                str(settings.file),
                key,
                f"{address.host}:{address.port}: {reason}",
                "choose another port or stop its user",
            ) from problem
        bound.setblocking(False)
        yield bound


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
