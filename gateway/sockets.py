"""What a process of the gateway listens on, opened before anything else starts, with one line where that fails."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from core.errors import ConfigurationError
from gateway.settings.listening import OTHERS_CONNECT, Address, bound_socket
from gateway.settings.operator import Settings


@dataclass(frozen=True, slots=True)
class Sockets:
    """The listening sockets of one process; of several workers, the first alone has `admin`, and all `private`."""

    public: socket.socket
    admin: socket.socket | None
    private: socket.socket | None = None


@contextmanager
def bound(settings: Settings, address: Address, key: str, mode: int = OTHERS_CONNECT) -> Iterator[socket.socket]:
    """Listen on an address until the block ends; `mode` is that of a Unix socket.

    Raises:
        ConfigurationError: the address is taken or cannot be used; it names `key`.
    """
    with ExitStack() as stack:
        with telling(settings, address, key):
            listening = stack.enter_context(bound_socket(address, mode))
        listening.setblocking(False)
        yield listening


@contextmanager
def telling(settings: Settings, address: Address, key: str) -> Iterator[None]:
    """Say which of the operator's addresses cannot be used.

    Raises:
        ConfigurationError: the block could not listen.
    """
    try:
        yield
    except OSError as problem:
        reason, mend = problem.strerror or str(problem), "choose another address or stop its user"
        raise ConfigurationError(str(settings.file), key, f"{address}: {reason}", mend) from problem
