"""The admin gate on routes of our own making: what declares no role is closed, and nothing else opens it."""

from collections.abc import Iterator

import pytest
from litestar import Litestar, Response, get, post
from litestar.params import JSONBody
from litestar.testing import TestClient

from core.clock import ManualClock
from core.errors import HeadgateError
from gateway.admin.access import OPEN, OPERATOR, OWNER, VIEWER, AdminGate, AdminRequest, actor_of
from gateway.admin.api import render_error
from gateway.admin.session import Sessions
from policies.access import AdminAuthenticator
from policies.keys import MemoryKeyStore, Role, create_admin_key, revoke_key

PEPPER = bytes(32)
OWNER_KEY = "hga_" + "f" * 64


@get("/open", opt=OPEN)
async def open_() -> str:
    return "open"


@get("/forgotten")
async def forgotten() -> str:
    return "forgotten"


@get("/misspelt", opt={"least_role": "viewer"})
async def misspelt() -> str:
    return "misspelt"


@get("/viewer", opt=VIEWER)
async def viewer() -> str:
    return "viewer"


@post("/operator", opt=OPERATOR)
async def operator(data: JSONBody[dict[str, int]]) -> str:
    return "operator"


@get("/owner", opt=OWNER)
async def owner(request: AdminRequest) -> Response[dict[str, str]]:
    actor = actor_of(request)
    return Response({"name": actor.name, "role": actor.role, "source": actor.source})


STORE = MemoryKeyStore()
CLOCK = ManualClock()


@pytest.fixture
def client() -> Iterator[TestClient[Litestar]]:
    gate = AdminGate(AdminAuthenticator(OWNER_KEY, STORE, PEPPER, CLOCK), Sessions(PEPPER, CLOCK))
    app = Litestar(
        [open_, forgotten, misspelt, viewer, operator, owner],
        guards=[gate],
        exception_handlers={HeadgateError: render_error},
        openapi_config=None,
        logging_config=None,
    )
    with TestClient(app) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize("path", ["/forgotten", "/misspelt"])
def test_a_route_without_a_role_is_closed_even_to_owners(client: TestClient[Litestar], path: str) -> None:
    assert client.get(path, headers=bearer(OWNER_KEY)).status_code == 403
    assert client.get(path).status_code == 401


def test_what_is_open_needs_no_key(client: TestClient[Litestar]) -> None:
    assert client.get("/open").status_code == 200
    assert client.get("/open", headers=bearer("wrong")).status_code == 200


def test_a_role_opens_what_is_declared_for_it_and_below(client: TestClient[Litestar]) -> None:
    text, record = create_admin_key(Role.OPERATOR, PEPPER, ManualClock())
    STORE.put(record)
    assert client.get("/viewer", headers=bearer(text)).status_code == 200
    assert client.post("/operator", headers=bearer(text), json={}).status_code == 201
    refused = client.get("/owner", headers=bearer(text))
    assert refused.status_code == 403
    assert "'owner'" in refused.json()["error"]["message"]


def test_who_is_refused_does_not_learn_what_the_body_should_be(client: TestClient[Litestar]) -> None:
    assert client.post("/operator", content=b"{").status_code == 401


def test_a_revoked_administrator_is_a_stranger(client: TestClient[Litestar]) -> None:
    text, record = create_admin_key(Role.OWNER, PEPPER, ManualClock())
    STORE.put(record)
    revoke_key(STORE, record.key_id, ManualClock().now())
    assert client.get("/viewer", headers=bearer(text)).status_code == 401


def test_the_actor_is_the_key_and_the_address_that_connected(client: TestClient[Litestar]) -> None:
    forwarded = {"x-forwarded-for": "192.0.2.7", "forwarded": "for=192.0.2.7"}
    told = client.get("/owner", headers=bearer(OWNER_KEY) | forwarded).json()
    assert (told["name"], told["role"]) == ("key_file", "owner")
    assert told["source"] != "192.0.2.7"
