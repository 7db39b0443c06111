"""The sockets of several workers: the parent opens them, so that they stay open while a worker is started again.

Every worker has a socket of its own on the public port (SO_REUSEPORT), among which the kernel spreads connections. The
socket of a worker that does not come back at once is closed, so that its share goes to the others.
"""

import socket
from contextlib import ExitStack

from gateway.settings.listening import BACKLOG, Address, bound_socket, family_of
from gateway.settings.operator import Settings
from gateway.sockets import Sockets, bound, telling

OWN_ALONE = 0o600


class SharedSockets:
    """The sockets of every worker; a context manager that closes them."""

    def __init__(self, settings: Settings, workers: int) -> None:
        """Open them.

        Raises:
            ConfigurationError: an address is taken or cannot be used.
        """
        self._settings = settings
        self._public: dict[int, socket.socket] = {}
        self._port = settings.listen.port
        settings.state_file.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opening:
            self._shared = self._open_public(opening)
            for number in range(workers):
                self._public[number] = self._shared or self._another()
                opening.callback(self.drop, number)
            self._admin = opening.enter_context(bound(settings, settings.admin_listen, "admin.listen"))
            private = (Address("", 0, settings.worker_socket(number)) for number in range(workers))
            self._private = [opening.enter_context(bound(settings, one, "workers", OWN_ALONE)) for one in private]
            self._kept = opening.pop_all()

    def __enter__(self) -> "SharedSockets":
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()

    def of(self, number: int) -> Sockets:
        """Return what a worker listens on."""
        return Sockets(self._public[number], self._admin if number == 0 else None, self._private[number])

    def reopen(self, number: int) -> None:
        """Open the public socket of a worker anew where it was dropped.

        Raises:
            ConfigurationError: the port cannot be used.
        """
        if number not in self._public:
            self._public[number] = self._shared or self._another()

    def drop(self, number: int) -> None:
        """Close the public socket of a worker that is down, unless all share it."""
        dropped = self._public.pop(number, None)
        if dropped is not None and dropped is not self._shared:
            dropped.close()

    def keep_only(self, number: int) -> None:
        """Close what belongs to other workers; called in a worker, where an open copy would keep a port alive."""
        others = [other for other in range(len(self._private)) if other != number]
        for other in others:
            self.drop(other)
            self._private[other].close()
        if number != 0:
            self._admin.close()

    def _open_public(self, opening: ExitStack) -> socket.socket | None:
        """Return the Unix socket that all share; of a port, make sure that nobody else has it."""
        address = self._settings.listen
        if address.unix is not None:
            return opening.enter_context(bound(self._settings, address, "listen"))
        with telling(self._settings, address, "listen"), bound_socket(address) as alone:
            self._port = alone.getsockname()[1]
        return None

    def _another(self) -> socket.socket:
        """Return one more socket on the public port."""
        address = self._settings.listen
        one = socket.socket(family_of(address), socket.SOCK_STREAM)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with telling(self._settings, address, "listen"):
                one.bind((address.host, self._port))
                one.listen(BACKLOG)
        except BaseException:
            one.close()
            raise
        one.setblocking(False)
        return one
