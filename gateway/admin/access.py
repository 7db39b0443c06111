"""Who may call the admin API: every route declares its least role, and what declares none is closed to everyone.

The key comes in the `Authorization` header, or from the dashboard in a sealed cookie; a cookie changes nothing without
the header that only the dashboard's own page can add.
"""

from typing import Any

from litestar.connection import ASGIConnection, Request
from litestar.handlers import BaseRouteHandler

from core.errors import InvalidApiKey, PermissionRefused
from gateway.admin.session import DASHBOARD_HEADER, Sessions
from policies.access import AdminAuthenticator, Administrator
from policies.audit import Actor
from policies.keys import Role

LEAST_ROLE = "least_role"
OPEN = {LEAST_ROLE: "open"}
"""For what anybody may know: that the process answers."""
VIEWER = {LEAST_ROLE: Role.VIEWER}
OPERATOR = {LEAST_ROLE: Role.OPERATOR}
OWNER = {LEAST_ROLE: Role.OWNER}

AdminRequest = Request[Administrator, Any, Any]


class AdminGate:
    """The guard of the whole listener; it decides by header and route handler alone, before any body is read."""

    def __init__(self, authenticator: AdminAuthenticator, sessions: Sessions) -> None:
        self._authenticator = authenticator
        self._sessions = sessions

    def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Let the caller in and keep its name with the request.

        Raises:
            InvalidApiKey: no administrator's key, or more than one header with keys.
            PermissionRefused: the route is for a higher role, or declares none.
        """
        least = handler.opt.get(LEAST_ROLE)
        if least == "open":
            return
        administrator = self._authenticator.authenticate(self._authorization(connection), address_of(connection))
        if not isinstance(least, Role):
            raise PermissionRefused("This route is open to nobody.")
        require(administrator, least)
        connection.scope["user"] = administrator

    def _authorization(self, connection: ASGIConnection[Any, Any, Any, Any]) -> str:
        sent = connection.headers.getall("authorization", [])
        if len(sent) == 1:
            return sent[0]
        key = None if sent else self._sessions.key_in(connection.headers.get("cookie", ""))
        reads = connection.scope.get("method") in ("GET", "HEAD")
        if key is None or not (reads or connection.headers.get(DASHBOARD_HEADER) == "1"):
            raise InvalidApiKey
        return f"Bearer {key}"


def require(administrator: Administrator, least: Role) -> None:
    """Refuse an administrator of a lower role.

    Raises:
        PermissionRefused: says which role it takes.
    """
    if not administrator.role.includes(least):
        raise PermissionRefused(f"This takes the role {least.value!r}; this key has {administrator.role.value!r}.")


def actor_of(request: AdminRequest) -> Actor:
    """Return who makes the change that this request asks for."""
    return Actor(request.user.name, request.user.role.value, address_of(request))


def address_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """Return the address of whoever connected, empty on a unix socket; forwarded headers are never believed."""
    client = connection.scope["client"]
    return client[0] if client else ""
