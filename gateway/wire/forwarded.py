"""Believe `X-Forwarded-For` from listed proxies alone, so that limits per address count clients, not the proxy.

The list is read from its end: the first address that is no trusted proxy is the client. Whoever connects directly, or
through a proxy that is not listed, is taken for what the connection says.
"""

from ipaddress import ip_address
from typing import cast

from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from gateway.settings.listening import Edge

HEADER = b"x-forwarded-for"
MAX_HOPS = 32


class ForwardedFor:
    """Sets the client of a scope to whom the trusted proxies say it is."""

    def __init__(self, app: ASGIApp, edge: Edge) -> None:
        self._app = app
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if "client" in scope:
            client = self.client_of(cast(HTTPScope, scope))
            if client is not None:
                scope["client"] = (client, 0)
        await self._app(scope, receive, send)

    def client_of(self, scope: HTTPScope) -> str | None:
        """Return the address that trusted proxies vouch for, None without one."""
        peer = scope["client"]
        if not (self._edge.unix_proxy if peer is None or not peer[0] else self._is_trusted(peer[0])):
            return None
        named = b",".join(value for name, value in scope["headers"] if name == HEADER).decode("latin-1")
        client = None
        for hop in [part.strip() for part in named.split(",")][: -MAX_HOPS - 1 : -1]:
            if not _is_address(hop):
                break
            client = hop
            if not self._is_trusted(hop):
                break
        return client

    def _is_trusted(self, address: str) -> bool:
        if not _is_address(address):
            return False
        parsed = ip_address(address)
        return any(parsed in network for network in self._edge.proxies if network.version == parsed.version)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
