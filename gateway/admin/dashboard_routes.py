"""`/dashboard`: the page, its login, and nothing that comes from anywhere else.

The files lie in `gateway/dashboard`; they are read once, and the content policy lets the page load from here only.
"""

import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from litestar import Request, Response, Router, get, post
from litestar.datastructures import Cookie
from litestar.params import FromPath, JSONBody
from litestar.response import Redirect
from msgspec import Struct

from core.errors import InvalidApiKey, RouteNotFound
from gateway.admin.access import OPEN, address_of
from gateway.admin.session import COOKIE, LIFE, Sessions
from policies.access import AdminAuthenticator

PAGE = "/dashboard"
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",
}
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html; charset=utf-8"}


class Login(Struct, frozen=True, forbid_unknown_fields=True):
    """An administrator's key."""

    key: str


class WhoAmI(Struct, frozen=True):
    """Who is logged in, and what they may do."""

    name: str
    role: str


class Session(Struct, frozen=True):
    """Who is logged in; null for a stranger."""

    administrator: WhoAmI | None


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page."""

    body: bytes
    media_type: str
    etag: str


@dataclass(frozen=True, slots=True)
class Dashboard:
    """The page's files by path, and its login."""

    assets: Mapping[str, Asset]
    sessions: Sessions
    authenticator: AdminAuthenticator

    def asset(self, path: str) -> Asset:
        """Return a file of the page.

        Raises:
            RouteNotFound: there is none of that name.
        """
        asset = self.assets.get(path.strip("/") or "index.html")
        if asset is None:
            raise RouteNotFound("The dashboard has no such file.")
        return asset

    def who(self, cookie_header: str, address: str) -> WhoAmI | None:
        """Return who the cookie belongs to, None when it opens nothing."""
        key = self.sessions.key_in(cookie_header)
        if key is None:
            return None
        try:
            found = self.authenticator.authenticate(f"Bearer {key}", address)
        except InvalidApiKey:
            return None
        return WhoAmI(found.name, found.role.value)


def load_assets() -> Mapping[str, Asset]:
    """Read the page's files."""
    return dict(_assets(files("gateway") / "dashboard", ""))


def _assets(folder: Traversable, prefix: str) -> list[tuple[str, Asset]]:
    found = []
    for entry in folder.iterdir():
        path = f"{prefix}{entry.name}"
        if entry.is_dir():
            found += _assets(entry, f"{path}/")
            continue
        body = entry.read_bytes()
        kind = _TYPES.get("." + entry.name.rpartition(".")[2]) or mimetypes.guess_type(entry.name)[0] or "text/plain"
        found.append((path, Asset(body, kind, f'"{sha256(body).hexdigest()[:16]}"')))
    return found


def dashboard_router(dashboard: Dashboard) -> Router:
    """Return the routes of the page."""

    @get("/", opt=OPEN, include_in_schema=False, sync_to_thread=False)
    def root() -> Redirect:
        return Redirect(PAGE)

    @get([PAGE, PAGE + "/{path:path}"], opt=OPEN, include_in_schema=False, sync_to_thread=False)
    def asset(request: Request[Any, Any, Any], path: FromPath[str] = "") -> Response[bytes]:
        found = dashboard.asset(path)
        headers = {**HEADERS, "etag": found.etag}
        if request.headers.get("if-none-match") == found.etag:
            return Response(b"", status_code=304, headers=headers)
        return Response(found.body, media_type=found.media_type, headers=headers)

    @post("/admin/login", opt=OPEN, status_code=200, include_in_schema=False)
    async def login(request: Request[Any, Any, Any], data: JSONBody[Login]) -> Response[WhoAmI]:
        who = dashboard.authenticator.authenticate(f"Bearer {data.key}", address_of(request))
        cookie = Cookie(
            COOKIE,
            path="/",
            value=dashboard.sessions.seal(data.key),
            max_age=int(LIFE.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return Response(WhoAmI(who.name, who.role.value), cookies=[cookie])

    @post("/admin/logout", opt=OPEN, status_code=204, include_in_schema=False)
    async def logout() -> Response[None]:
        return Response(None, status_code=204, cookies=[Cookie(COOKIE, path="/", value="", max_age=0)])

    @get("/admin/session", opt=OPEN, sync_to_thread=False, include_in_schema=False)
    def session(request: Request[Any, Any, Any]) -> Session:
        return Session(dashboard.who(request.headers.get("cookie", ""), address_of(request)))

    return Router("/", route_handlers=[root, asset, login, logout, session], tags=["dashboard"])
