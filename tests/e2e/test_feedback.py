"""`/v1/feedback` and `/admin/feedback` on a real gateway: about one's own requests only, kept, and acted on."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.e2e.gateway_process import REMOTE, RunningGateway, error_of, run_gateway, write_configuration
from tests.e2e.test_chat_api import ask, post
from tests.upstream.process import RunningUpstream


@pytest.fixture(scope="module")
def gateway(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("feedback")
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
    write_configuration(folder, operator, {"acme": "tenant: acme\n", "other": "tenant: other\n"})
    with run_gateway(folder) as running:
        yield running


@pytest.fixture(scope="module")
def keys(gateway: RunningGateway) -> dict[str, str]:
    return {tenant: gateway.key(tenant) for tenant in ("acme", "other")}


def say(gateway: RunningGateway, key: str, content: bytes | None = None, **said: object) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    body: dict[str, Any] = {"json": said} if content is None else {"content": content}
    return httpx.post(f"{gateway.base_url}/feedback", headers=headers, trust_env=False, **body)


def outcomes(gateway: RunningGateway) -> list[tuple[str, str, str, float]]:
    path = gateway.folder / "var" / "headgate-requests.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT request_id, tenant, kind, score FROM outcomes ORDER BY n").fetchall()


def test_a_word_on_an_answer_is_kept_and_the_last_one_counts(gateway: RunningGateway, keys: dict[str, str]) -> None:
    request_id = post(gateway, keys["acme"], ask("how do I boil an egg")).headers["x-request-id"]
    taken = say(gateway, keys["acme"], request_id=request_id, kind="answer", thumb="up")
    assert taken.status_code == 200
    assert taken.json() == {"request_id": request_id, "kind": "answer", "score": 1.0, "object": "feedback"}
    assert say(gateway, keys["acme"], request_id=request_id, kind="answer", score=0.25).status_code == 200
    assert outcomes(gateway)[-1] == (request_id, "acme", "answer", 0.25)
    assert [row[0] for row in outcomes(gateway)].count(request_id) == 1


def test_a_wrong_hit_is_removed_and_judged_once(gateway: RunningGateway, keys: dict[str, str]) -> None:
    key = keys["acme"]
    post(gateway, key, ask("why do owls hunt at night"))
    hit = post(gateway, key, ask("why do owls hunt at night"))
    assert hit.headers["x-headgate-cache"] == "exact"
    request_id = hit.headers["x-request-id"]
    assert say(gateway, key, request_id=request_id, kind="cache", thumb="down").status_code == 200
    assert post(gateway, key, ask("why do owls hunt at night")).headers["x-headgate-cache"] == "miss"
    again = say(gateway, key, request_id=request_id, kind="cache", thumb="down")
    assert (again.status_code, error_of(again)["code"]) == (404, "not_found")
    assert outcomes(gateway)[-1] == (request_id, "acme", "cache", 0.0)


def test_a_request_of_another_tenant_looks_like_one_that_never_was(
    gateway: RunningGateway, keys: dict[str, str]
) -> None:
    before = outcomes(gateway)
    theirs = post(gateway, keys["acme"], ask("a question of acme")).headers["x-request-id"]
    answers = [say(gateway, keys["other"], request_id=name, kind="answer", thumb="up") for name in (theirs, "req_0")]
    assert [answer.status_code for answer in answers] == [404, 404]
    told = [error_of(answer)["message"].replace(theirs, "").replace("req_0", "") for answer in answers]
    assert told[0] == told[1]
    hits = [post(gateway, keys["acme"], ask("a question of acme")).headers["x-request-id"]]
    assert say(gateway, keys["other"], request_id=hits[0], kind="cache", thumb="down").status_code == 404
    assert post(gateway, keys["acme"], ask("a question of acme")).headers["x-headgate-cache"] == "exact"
    assert outcomes(gateway) == before


@pytest.mark.parametrize(
    ("said", "names"),
    [
        (b"{", "cannot be used"),
        (b'{"kind": "answer", "thumb": "up"}', "request_id"),
        (b'{"request_id": "r", "kind": "taste", "thumb": "up"}', "kind"),
        (b'{"request_id": "r", "kind": "answer", "thumb": "sideways"}', "thumb"),
        (b'{"request_id": "r", "kind": "answer", "score": 1.5}', "score"),
        (b'{"request_id": "r", "kind": "answer", "score": 1, "thumb": "up"}', "exactly one"),
        (b'{"request_id": "r", "kind": "answer"}', "exactly one"),
        (b'{"request_id": "r", "kind": "answer", "thumb": "up", "tenant": "acme"}', "tenant"),
    ],
)
def test_feedback_that_cannot_be_used_is_400_and_says_why(
    gateway: RunningGateway, keys: dict[str, str], said: bytes, names: str
) -> None:
    answer = say(gateway, keys["acme"], said)
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_request_error")
    assert names in error_of(answer)["message"]


def test_feedback_needs_a_key_a_post_and_a_small_body(gateway: RunningGateway, keys: dict[str, str]) -> None:
    assert say(gateway, "hg_wrong", request_id="r", kind="answer", thumb="up").status_code == 401
    headers = {"authorization": f"Bearer {keys['acme']}"}
    assert httpx.get(f"{gateway.base_url}/feedback", headers=headers, trust_env=False).status_code == 404
    assert say(gateway, keys["acme"], b" " * 5_000).status_code == 413


def test_an_administrator_may_speak_for_any_tenant(gateway: RunningGateway, keys: dict[str, str]) -> None:
    request_id = post(gateway, keys["other"], ask("a question of other")).headers["x-request-id"]
    key = (gateway.folder / "var" / "admin.key").read_text().strip()
    with httpx.Client(
        base_url=gateway.admin_url, headers={"authorization": f"Bearer {key}"}, trust_env=False
    ) as client:
        said = {"request_id": request_id, "kind": "answer", "thumb": "down"}
        assert client.post("/admin/feedback", json=said).json()["score"] == 0.0
        assert client.post("/admin/feedback", json=said | {"request_id": "req_0"}).status_code == 404
        assert client.post("/admin/feedback", json=said | {"stars": 5}).status_code == 400
        actions = [one["action"] for one in client.get("/admin/audit").json()["entries"]]
    assert "feedback.answer" in actions
    assert outcomes(gateway)[-1] == (request_id, "other", "answer", 0.0)
