"""The admin listener as administrators and strangers see it: a real gateway process."""

import json
import re
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.gateway_process import RunningGateway, error_of, headgate

ROLES = ("viewer", "operator", "owner")
ROUTES = {
    ("GET", "/metrics"): "viewer",
    ("GET", "/admin/keys"): "viewer",
    ("POST", "/admin/keys"): "operator",
    ("POST", "/admin/keys/0000000000000000/rotate"): "operator",
    ("POST", "/admin/keys/0000000000000000/revoke"): "operator",
    ("GET", "/admin/policies"): "viewer",
    ("GET", "/admin/policies/acme"): "viewer",
    ("POST", "/admin/policies/reload"): "operator",
    ("GET", "/admin/budgets"): "viewer",
    ("GET", "/admin/budgets/acme"): "viewer",
    ("POST", "/admin/budgets/acme/grant"): "operator",
    ("POST", "/admin/budgets/acme/reset"): "operator",
    ("GET", "/admin/cache/stats"): "viewer",
    ("GET", "/admin/cache/report"): "viewer",
    ("GET", "/admin/cache/near-hits"): "viewer",
    ("POST", "/admin/cache/invalidate"): "operator",
    ("POST", "/admin/cache/flush"): "operator",
    ("POST", "/admin/cache/feedback"): "operator",
    ("POST", "/admin/cache/forget"): "owner",
    ("POST", "/admin/feedback"): "operator",
    ("GET", "/admin/decisions/req_0"): "viewer",
    ("GET", "/admin/cache/export"): "owner",
    ("POST", "/admin/cache/import"): "owner",
    ("POST", "/admin/policies/acme/compare"): "viewer",
    ("GET", "/admin/overview"): "viewer",
    ("GET", "/admin/deployments"): "viewer",
    ("GET", "/admin/sla"): "viewer",
    ("GET", "/admin/requests"): "viewer",
    ("GET", "/admin/requests/req_0"): "viewer",
    ("GET", "/admin/engines"): "viewer",
    ("GET", "/admin/engines/none/logs"): "operator",
    ("POST", "/admin/engines/none/sleep"): "operator",
    ("POST", "/admin/engines/none/wake"): "operator",
    ("POST", "/admin/policies/acme/simulate"): "viewer",
    ("GET", "/admin/learning"): "viewer",
    ("POST", "/admin/learning/promote"): "operator",
    ("POST", "/admin/learning/rollback"): "operator",
    ("GET", "/admin/report/acme"): "viewer",
    ("GET", "/admin/report/acme/page"): "viewer",
    ("GET", "/admin/savings"): "viewer",
    ("POST", "/admin/engines/none/reload"): "operator",
    ("GET", "/admin/store"): "viewer",
    ("GET", "/admin/audit"): "operator",
    ("GET", "/admin/audit/verify"): "operator",
    ("GET", "/admin/openapi/openapi.json"): "viewer",
}


def owner_key(gateway: RunningGateway) -> str:
    return (gateway.folder / "var" / "admin.key").read_text().strip()


def admin(gateway: RunningGateway, key: str) -> httpx.Client:
    return httpx.Client(
        base_url=gateway.admin_url, headers={"authorization": f"Bearer {key}"}, trust_env=False, timeout=30
    )


def models(gateway: RunningGateway, key: str) -> int:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.get(f"{gateway.base_url}/models", headers=headers, trust_env=False).status_code


def wait_for(gateway: RunningGateway, key: str, status: int) -> float:
    """Return how many seconds it took until the public listener answers `status` to the key."""
    start_s = time.monotonic()
    while models(gateway, key) != status:
        assert time.monotonic() < start_s + 10
    return time.monotonic() - start_s


@pytest.fixture
def owner(gateway: RunningGateway) -> Iterator[httpx.Client]:
    with admin(gateway, owner_key(gateway)) as client:
        yield client


@pytest.fixture(scope="module")
def keys(gateway: RunningGateway) -> dict[str, str]:
    """One administrator's key for each role, and a tenant's."""
    with admin(gateway, owner_key(gateway)) as owner:
        made = {role: owner.post("/admin/keys", json={"role": role}).json()["key"] for role in ROLES}
    tenant = gateway.key("acme")
    wait_for(gateway, tenant, 200)
    return made | {"tenant": tenant}


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_strangers_and_tenants_are_refused_everywhere(
    gateway: RunningGateway, keys: dict[str, str], method: str, path: str
) -> None:
    tenant = keys["tenant"]
    for authorization in (None, "Bearer wrong", f"Bearer {tenant}", f"Bearer {tenant.replace('hg_', 'hga_')}",
                          f"Basic {owner_key(gateway)}", owner_key(gateway)):  # fmt: skip
        headers = {} if authorization is None else {"authorization": authorization}
        answer = httpx.request(method, gateway.admin_url + path, headers=headers, trust_env=False)
        assert answer.status_code == 401, authorization
        assert error_of(answer)["code"] == "invalid_api_key"


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_is_open_from_its_role_upwards_only(
    gateway: RunningGateway, keys: dict[str, str], method: str, path: str
) -> None:
    least = ROLES.index(ROUTES[method, path])
    for role in ROLES:
        with admin(gateway, keys[role]) as client:
            answer = client.request(method, path, content=b"{" if method == "POST" else None)
        if ROLES.index(role) < least:
            assert answer.status_code == 403, role
            assert error_of(answer)["code"] == "permission_denied"
        else:
            assert answer.status_code not in (401, 403, 500), role


def test_every_route_of_the_api_is_among_those_tested(owner: httpx.Client) -> None:
    paths = owner.get("/admin/openapi/openapi.json").json()["paths"]
    described = {
        (
            method.upper(),
            path.replace("{key_id}", "0" * 16)
            .replace("{tenant}", "acme")
            .replace("{request_id}", "req_0")
            .replace("{name}", "none"),
        )
        for path, item in paths.items()
        for method in item
        if method in ("get", "post", "put", "patch", "delete")
    }
    assert described == set(ROUTES) - {("GET", "/metrics"), ("GET", "/admin/openapi/openapi.json")}


def test_a_method_that_nobody_declared_is_open_to_nobody(gateway: RunningGateway, owner: httpx.Client) -> None:
    assert owner.options("/admin/keys").status_code == 403
    assert httpx.options(f"{gateway.admin_url}/admin/keys", trust_env=False).status_code == 401
    assert owner.delete("/admin/keys").status_code == 404


def test_an_administrators_key_is_no_key_of_the_public_listener(gateway: RunningGateway, keys: dict[str, str]) -> None:
    for role in ROLES:
        assert models(gateway, keys[role]) == 401
        assert models(gateway, keys[role].replace("hga_", "hg_")) == 401


def test_an_operator_can_neither_make_nor_take_over_an_administrators_key(
    gateway: RunningGateway, keys: dict[str, str]
) -> None:
    owners_id = keys["owner"].split("_")[1]
    with admin(gateway, keys["operator"]) as operator:
        for path, body in (
            ("/admin/keys", {"role": "viewer"}),
            ("/admin/keys", {"role": "owner"}),
            (f"/admin/keys/{owners_id}/rotate", {}),
            (f"/admin/keys/{owners_id}/revoke", None),
        ):
            assert operator.post(path, json=body).status_code == 403, path
    with admin(gateway, keys["owner"]) as client:
        assert client.get("/admin/store").status_code == 200


def test_two_authorization_headers_are_refused(gateway: RunningGateway) -> None:
    header = ("authorization", f"Bearer {owner_key(gateway)}")
    answer = httpx.get(f"{gateway.admin_url}/admin/store", headers=[header, header], trust_env=False)
    assert answer.status_code == 401


@pytest.mark.parametrize("host", ["good.example/healthz?", "127.0.0.1/healthz", "x@y", "healthz#", "", "a b"])
def test_a_malformed_host_opens_nothing(gateway: RunningGateway, host: str) -> None:
    name, port = gateway.admin_url.removeprefix("http://").split(":")
    with socket.create_connection((name, int(port)), timeout=5) as connection:
        connection.sendall(f"GET /admin/keys HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        status = connection.recv(65536).split(b" ", 2)[1]
    assert status in (b"400", b"401")


@pytest.mark.parametrize(
    "path", ["/healthz/../admin/keys", "//admin/keys", "/admin/keys/", "/admin%2fkeys", "/ADMIN/keys"]
)
def test_another_way_to_write_a_path_is_no_way_around(gateway: RunningGateway, path: str) -> None:
    name, port = gateway.admin_url.removeprefix("http://").split(":")
    with socket.create_connection((name, int(port)), timeout=5) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        status = connection.recv(65536).split(b" ", 2)[1]
    assert status in (b"400", b"401", b"404")


def test_a_stranger_is_refused_before_the_body_is_read(gateway: RunningGateway) -> None:
    host, port = gateway.admin_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        head = f"POST /admin/keys HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(head.encode())
        assert b" 401 " in connection.recv(65536).split(b"\r\n")[0]


def test_a_body_beyond_the_limit_is_413(owner: httpx.Client) -> None:
    assert owner.post("/admin/keys", content=b" " * 100_000).status_code == 413


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "exactly one"),
        ({"tenant": "acme", "role": "viewer"}, "exactly one"),
        ({"tenant": "nobody"}, "no policy"),
        ({"tenant": "acme", "tiers": ["huge"]}, "Unknown tier"),
        ({"tenant": "acme", "expires_days": -1}, "Expected"),
        ({"tenant": "acme", "allowed_routes": ["*"]}, "unknown field"),
        ({"role": "root"}, "Invalid"),
        ({"role": "viewer", "models": ["auto"]}, "no scopes"),
        ([], "Expected"),
    ],
)
def test_a_key_that_cannot_be_is_refused_with_the_reason(owner: httpx.Client, body: object, says: str) -> None:
    answer = owner.post("/admin/keys", json=body)
    assert answer.status_code == 400
    assert says in error_of(answer)["message"]


def test_a_new_key_works_and_a_revoked_one_ends_within_a_second(gateway: RunningGateway, owner: httpx.Client) -> None:
    created = owner.post("/admin/keys", json={"tenant": "acme", "expires_days": 1})
    assert created.status_code == 201
    assert created.headers["cache-control"] == "no-store"
    key, key_id = created.json()["key"], created.json()["record"]["key_id"]
    assert wait_for(gateway, key, 200) < 1.5
    revoked = owner.post(f"/admin/keys/{key_id}/revoke")
    assert revoked.json()["revoked_at"] is not None
    assert wait_for(gateway, key, 401) < 1.5
    assert owner.post(f"/admin/keys/{key_id}/revoke").json() == revoked.json()


def test_rotation_keeps_the_scopes_and_both_keys_work_meanwhile(gateway: RunningGateway, owner: httpx.Client) -> None:
    scopes = {"models": ["auto"], "tiers": ["small"], "users": ["ada"]}
    old = owner.post("/admin/keys", json={"tenant": "acme", **scopes}).json()
    new = owner.post(f"/admin/keys/{old['record']['key_id']}/rotate", json={"overlap_hours": 1}).json()
    assert {name: new["record"][name] for name in scopes} == scopes
    wait_for(gateway, new["key"], 200)
    assert models(gateway, old["key"]) == 200
    again = owner.post(f"/admin/keys/{old['record']['key_id']}/rotate", json={})
    assert again.status_code == 400
    assert new["record"]["key_id"] in error_of(again)["message"]
    widened = owner.post(f"/admin/keys/{new['record']['key_id']}/rotate", json={"tiers": []})
    assert widened.status_code == 400


def test_an_unknown_key_is_404(owner: httpx.Client) -> None:
    assert owner.post("/admin/keys/0123456789abcdef/revoke").status_code == 404
    assert owner.post("/admin/keys/x%27%20OR%201=1/rotate", json={}).status_code == 404


def test_keys_are_listed_in_pages_without_their_secrets(owner: httpx.Client, keys: dict[str, str]) -> None:
    listed = owner.get("/admin/keys", params={"limit": 1000})
    ids = [one["key_id"] for one in listed.json()["keys"]]
    assert listed.json()["total"] == len(ids)
    second = owner.get("/admin/keys", params={"limit": 1, "offset": 1}).json()["keys"]
    assert [one["key_id"] for one in second] == ids[1:2]
    assert {one["tenant"] for one in owner.get("/admin/keys", params={"tenant": "acme"}).json()["keys"]} == {"acme"}
    assert not any(text.split("_")[2] in listed.text for text in keys.values())
    assert re.search("[0-9a-f]{64}", listed.text) is None
    assert owner.get("/admin/keys", params={"limit": 0}).status_code == 400


def test_a_tenants_policy_is_shown_as_it_is_in_force(owner: httpx.Client) -> None:
    shown = owner.get("/admin/policies/acme").json()
    assert shown["models"] == {"gpt-4o": "auto", "large-only": "large"}
    assert shown["budgets"][0]["limit_nano_usd"] == 100 * 10**9
    listed = {one["tenant"]: one["version"] for one in owner.get("/admin/policies").json()["tenants"]}
    assert listed["acme"] == shown["version"]
    assert owner.get("/admin/policies/nobody").status_code == 404


def test_reload_takes_up_a_new_tenant_and_refuses_a_broken_one(gateway: RunningGateway, owner: httpx.Client) -> None:
    path = gateway.folder / "tenants" / "late.yaml"
    path.write_text("tenant: late\n")
    assert owner.post("/admin/policies/reload").json()["changed"] in (["late"], [])
    assert owner.get("/admin/policies/late").status_code == 200
    path.write_text("tenant: late\nbugdets: []\n")
    broken = owner.post("/admin/policies/reload")
    assert broken.status_code == 422
    assert "late.yaml" in error_of(broken)["message"]
    assert owner.get("/admin/policies/late").status_code == 200
    assert "late.yaml" in owner.get("/admin/store").json()["policies_problem"]
    path.unlink()
    assert owner.post("/admin/policies/reload").status_code == 200
    assert owner.get("/admin/policies/late").status_code == 404


def test_a_grant_adds_to_the_limit_once_per_id(owner: httpx.Client) -> None:
    (before,) = owner.get("/admin/budgets/acme").json()["budgets"]
    grant = {"amount_usd": "5.000000001", "grant_id": "g1"}
    for _ in range(2):
        (after,) = owner.post("/admin/budgets/acme/grant", json=grant).json()["budgets"]
        assert after["granted_usd"] == "5.000000001"
        assert after["limit_usd"] == "105.000000001"
    assert before["limit_usd"] == "100"


@pytest.mark.parametrize("amount", ["1e3", "0.0000000001", "five", "", "1_0", "٣", "99999999999"])
def test_an_amount_that_is_none_is_refused(owner: httpx.Client, amount: str) -> None:
    assert owner.post("/admin/budgets/acme/grant", json={"amount_usd": amount}).status_code == 400


def test_a_budget_that_does_not_exist_is_named_with_those_that_do(owner: httpx.Client) -> None:
    answer = owner.post("/admin/budgets/acme/reset", json={"window": "day"})
    assert answer.status_code == 400
    assert "month" in error_of(answer)["message"]
    assert owner.post("/admin/budgets/nobody/reset", json={}).status_code == 404


def test_the_store_is_reported_as_reachable(owner: httpx.Client) -> None:
    state = owner.get("/admin/store").json()
    assert (state["kind"], state["keys_reachable"], state["ledger_reachable"]) == ("sqlite", True, True)


def test_every_change_is_on_record_without_a_secret(
    gateway: RunningGateway, owner: httpx.Client, keys: dict[str, str]
) -> None:
    with admin(gateway, keys["operator"]) as operator:
        created = operator.post("/admin/keys", json={"tenant": "acme"}).json()
        operator.post("/admin/budgets/acme/reset", json={})
    listed = owner.get("/admin/audit", params={"limit": 2})
    first, second = listed.json()["entries"]
    assert (first["action"], first["target"]) == ("key.create", created["record"]["key_id"])
    assert (first["before"], second["action"]) == (None, "budget.reset")
    assert first["actor"] == keys["operator"].split("_")[1]
    assert (first["role"], first["source"], first["outcome"]) == ("operator", "127.0.0.1", "done")
    assert owner.get("/admin/audit/verify").json()["valid"] is True
    files = b"".join(path.read_bytes() for path in (gateway.folder / "var").glob("headgate*"))
    for text in (*keys.values(), created["key"], owner_key(gateway)):
        assert text.rpartition("_")[2].encode() not in files
        assert text not in gateway.log()


def test_the_commands_speak_to_the_running_gateway(gateway: RunningGateway) -> None:
    url = ("--admin-url", gateway.admin_url)
    granted = headgate("budget", "grant", "--tenant", "poor", "--usd", "7", "--json", *url, folder=gateway.folder)
    (line,) = json.loads(granted.stdout)
    assert line["granted_usd"] == "7"
    shown = headgate("budget", "show", "--tenant", "poor", "--json", *url, folder=gateway.folder)
    assert json.loads(shown.stdout) == [line]
    assert "poor: month" in headgate("budget", "show", *url, folder=gateway.folder).stdout
    reset = headgate("budget", "reset", "--tenant", "poor", "--window", "month", *url, folder=gateway.folder)
    assert reset.returncode == 0
    report = headgate("sla", "report", "--tenant", "acme", "--json", *url, folder=gateway.folder)
    assert json.loads(report.stdout)["end_s"] > 0
    wrong = headgate("budget", "show", "--tenant", "nobody", *url, folder=gateway.folder, check=False)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "no policy" in wrong.stderr
