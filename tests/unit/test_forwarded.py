"""Whom the gateway takes for its client when proxies stand before it."""

from ipaddress import ip_network
from typing import Any

import pytest

from gateway.settings.listening import Edge
from gateway.wire.forwarded import ForwardedFor

EDGE = Edge((ip_network("10.0.0.0/8"), ip_network("fd00::/8")))


def client_of(peer: str | None, *headers: str, edge: Edge = EDGE) -> str | None:
    scope: Any = {
        "type": "http",
        "client": None if peer is None else (peer, 1),
        "headers": [(b"x-forwarded-for", header.encode()) for header in headers],
    }
    nothing: Any = None
    return ForwardedFor(nothing, edge).client_of(scope)


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.7, 10.2.3.4"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.7"], "203.0.113.7"),
        ("fd00::1", ["2001:db8::9"], "2001:db8::9"),
        ("10.0.0.1", ["10.9.9.9"], "10.9.9.9"),
        ("10.0.0.1", ["203.0.113.7, nonsense"], None),
        ("10.0.0.1", [], None),
        ("192.0.2.1", ["203.0.113.7"], None),
        (None, ["203.0.113.7"], None),
    ],
)
def test_the_last_address_that_is_no_trusted_proxy_is_the_client(
    peer: str | None, headers: list[str], client: str | None
) -> None:
    assert client_of(peer, *headers) == client


def test_a_unix_sockets_peer_is_believed_only_where_it_is_listed() -> None:
    assert client_of(None, "203.0.113.7", edge=Edge(unix_proxy=True)) == "203.0.113.7"
    assert client_of("192.0.2.1", "203.0.113.7", edge=Edge(unix_proxy=True)) is None
