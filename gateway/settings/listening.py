"""Where the listeners listen and whom they believe: addresses, Unix sockets, TLS files, proxies, CORS."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from core.errors import ConfigurationError
from policies.schema import says

UNIX = "unix:"
BACKLOG = 2048
OTHERS_CONNECT = 0o660
ADDRESS = "127.0.0.1:8080"
Seconds = Annotated[int, Meta(ge=0, le=86_400)]
Network = IPv4Network | IPv6Network


class TlsEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """The certificate that a listener shows."""

    certificate: Annotated[str, says("File of the certificate and its chain (PEM); read again when it changes.")]
    key: Annotated[str, says("File of its private key (PEM), without a password.")]


class CorsEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """Which pages of other origins may call the public listener from a browser."""

    origins: Annotated[list[str], says("Origins such as https://app.example; `*` means every one.")]
    max_age_s: Annotated[Seconds, says("How long a browser may remember the answer to its question.")] = 600


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The PEM files of one listener."""

    certificate: Path
    key: Path

    def load_into(self, context: ssl.SSLContext) -> None:
        """Load the files; connections from now on see them.

        Raises:
            OSError: a file cannot be read, or the two do not belong together (`ssl.SSLError`).
        """
        context.load_cert_chain(self.certificate, self.key, password=_no_password)

    def versions(self) -> tuple[int, ...]:
        """Return what changes when one of the files does; 0 for one that is away."""
        return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in (self.certificate, self.key))


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port to listen on (port 0 takes any free one), or the path of a Unix socket."""

    host: str
    port: int
    unix: Path | None = None
    tls: TlsFiles | None = None

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"{self.host}:{self.port}" if self.unix is None else f"{UNIX}{self.unix}"


@dataclass(frozen=True, slots=True)
class Cors:
    """Origins that browsers may call from, and how long they remember it."""

    origins: tuple[str, ...]
    max_age_s: int


@dataclass(frozen=True, slots=True)
class Edge:
    """What stands before the gateway: proxies whose forwarded headers are believed, pages that may call it."""

    proxies: tuple[Network, ...] = ()
    unix_proxy: bool = False
    cors: Cors | None = None


def _no_password() -> str:
    """Give no password, so that OpenSSL refuses a locked key instead of asking at the terminal."""
    return ""


def parse_address(value: str, file: str, key: str, base: Path, tls: TlsEntry | None = None) -> Address:
    """Read `HOST:PORT` or `unix:PATH`; relative paths start at `base`.

    Raises:
        ConfigurationError: it is neither, or the TLS files cannot be used.
    """
    files = None if tls is None else _tls_files(tls, file, f"{key.removesuffix('listen')}tls", base)
    if value.startswith(UNIX) and len(value) > len(UNIX):
        path = base / value.removeprefix(UNIX)
        if len(str(path).encode()) > 100:
            problem = "the path of the socket is longer than 100 bytes"
            raise ConfigurationError(file, key, problem, "choose a shorter one")
        return Address("", 0, path, files)
    host, separator, port = value.rpartition(":")
    if not separator or not host or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        mend = f"write for example {ADDRESS} or unix:headgate.sock"
        raise ConfigurationError(file, key, f"{value!r} is not HOST:PORT", mend)
    return Address(host.strip("[]"), int(port), None, files)


def family_of(address: Address) -> socket.AddressFamily:
    """Return the family of an address that is no path."""
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


@contextmanager
def bound_socket(address: Address, mode: int = OTHERS_CONNECT) -> Iterator[socket.socket]:
    """Listen on an address; a Unix socket that nobody answers any more is replaced, and ours is removed at the end.

    By its `mode` its group may connect, so that a proxy of another user can.

    Raises:
        OSError: the address is taken or cannot be used.
    """
    if address.unix is None:
        with socket.socket(family_of(address), socket.SOCK_STREAM) as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((address.host, address.port))
            bound.listen(BACKLOG)
            yield bound
        return
    _remove_dead(address.unix)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        bound.bind(str(address.unix))
        address.unix.chmod(mode)
        bound.listen(BACKLOG)
        try:
            yield bound
        finally:
            address.unix.unlink(missing_ok=True)


def _remove_dead(path: Path) -> None:
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


def _tls_files(entry: TlsEntry, file: str, key: str, base: Path) -> TlsFiles:
    files = TlsFiles(base / entry.certificate, base / entry.key)
    try:
        files.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    except OSError as problem:
        reason = problem.strerror if not isinstance(problem, ssl.SSLError) else problem.reason or "unusable"
        mend = "name a certificate and its key without a password, both PEM"
        raise ConfigurationError(file, key, f"the certificate cannot be used ({reason})", mend) from problem
    return files


def parse_edge(proxies: list[str], cors: CorsEntry | None, file: str) -> Edge:
    """Read the trusted proxies and the origins.

    Raises:
        ConfigurationError: one is no address, network or origin.
    """
    networks = tuple(_network(text, file, at) for at, text in enumerate(proxies) if text != "unix")
    return Edge(networks, "unix" in proxies, None if cors is None else _cors(cors, file))


def _network(text: str, file: str, at: int) -> Network:
    try:
        return ip_network(text)
    except ValueError as problem:
        mend = "write an address (10.0.0.7), a network (10.0.0.0/8) or `unix`"
        raise ConfigurationError(file, f"trusted_proxies[{at}]", f"{text[:60]!r} is none", mend) from problem


def _cors(entry: CorsEntry, file: str) -> Cors:
    for at, origin in enumerate(entry.origins):
        url = urlsplit(origin)
        is_origin = url.scheme in ("http", "https") and bool(url.netloc) and not (url.path or url.query or url.username)
        if origin != "*" and not is_origin:
            mend = "write scheme and host alone, such as https://app.example"
            raise ConfigurationError(file, f"cors.origins[{at}]", f"{origin[:60]!r} is no origin", mend)
    return Cors(tuple(entry.origins), entry.max_age_s)
