"""The key, budget and audit commands on a folder without a running gateway, and wrong keys against one that runs."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.e2e.gateway_process import REMOTE, RunningGateway, headgate, write_configuration

GOOD = REMOTE.format(base_url="http://127.0.0.1:9/v1", small="a", large="b")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_configuration(tmp_path, GOOD, {"acme": "tenant: acme\n"})
    return tmp_path


def listed(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(headgate("keys", "list", "--json", folder=folder).stdout)
    return found


def test_a_key_is_made_with_its_scopes_and_listed_without_its_secret(folder: Path) -> None:
    scopes = ("--model", "auto", "--tier", "small", "--user", "ada")
    text = headgate("keys", "create", "--tenant", "acme", *scopes, folder=folder).stdout.strip()
    (row,) = listed(folder)
    assert text.split("_")[:2] == ["hg", row["key_id"]]
    assert (row["models"], row["tiers"], row["users"]) == (["auto"], ["small"], ["ada"])
    assert text.split("_")[2] not in headgate("keys", "list", folder=folder).stdout


def test_rotation_prints_the_new_key_alone_and_lets_the_old_one_end(folder: Path) -> None:
    old = headgate("keys", "create", "--tenant", "acme", folder=folder).stdout.strip().split("_")[1]
    rotated = headgate("keys", "rotate", old, "--overlap-hours", "1", folder=folder)
    assert len(rotated.stdout.splitlines()) == 1
    new = rotated.stdout.split("_")[1]
    first, second = listed(folder)
    assert (first["key_id"], first["replaced_by"], second["key_id"]) == (old, new, new)
    assert first["expires_at"] is not None
    assert second["expires_at"] is None
    again = headgate("keys", "rotate", old, folder=folder, check=False)
    assert (again.returncode, again.stdout) == (1, "")
    assert len(again.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("create", "--tenant", "nobody"), 2, "has no policy"),
        (("create", "--tenant", "acme", "--tier", "huge"), 2, "unknown tier"),
        (("create", "--admin", "viewer", "--model", "auto"), 2, "no scopes"),
        (("create", "--admin", "root"), 2, "invalid choice"),
        (("create",), 2, "required"),
        (("create", "--tenant", "acme", "--expires-days", "0"), 2, "not between"),
        (("rotate", "0123456789abcdef"), 1, "no key"),
        (("revoke", "0123456789abcdef"), 1, "no key"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_makes_no_key(
    folder: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    refused = headgate("keys", *arguments, folder=folder, check=False)
    assert (refused.returncode, refused.stdout) == (code, "")
    assert says in refused.stderr.strip().splitlines()[-1]
    assert listed(folder) == []


def test_the_record_of_changes_is_shown_and_verified(folder: Path) -> None:
    headgate("keys", "create", "--tenant", "acme", folder=folder)
    head = json.loads(headgate("audit", "verify", "--json", folder=folder).stdout)["head"]
    headgate("keys", "create", "--admin", "viewer", folder=folder)
    rows = json.loads(headgate("audit", "show", "--json", folder=folder).stdout)
    assert [row["action"] for row in rows] == ["key.create", "key.create"]
    assert rows[0]["source"] == "command line"
    assert "key.create" in headgate("audit", "show", folder=folder).stdout
    assert headgate("audit", "verify", "--expect", head, folder=folder).returncode == 0
    with closing(sqlite3.connect(folder / "var" / "headgate-audit.db")) as connection, connection:
        connection.execute("DROP TRIGGER audit_never_changes")
        connection.execute("UPDATE audit SET actor = 'nobody' WHERE seq = 1")
    broken = headgate("audit", "verify", folder=folder, check=False)
    assert broken.returncode == 1
    assert "entry 1 is not what was written" in broken.stderr


def test_budget_commands_say_when_no_gateway_runs(folder: Path) -> None:
    missing = headgate("budget", "show", folder=folder, check=False)
    assert missing.returncode == 2
    assert "admin key cannot be read" in missing.stderr
    (folder / "var").mkdir(exist_ok=True)
    (folder / "var" / "admin.key").write_text("hga_" + "0" * 64)
    away = headgate("budget", "show", "--admin-url", "http://127.0.0.1:9", folder=folder, check=False)
    assert away.returncode == 1
    (line,) = away.stderr.strip().splitlines()
    assert "headgate serve" in line
    bare = headgate("budget", "show", "--admin-url", "http://gateway.example", folder=folder, check=False)
    assert bare.returncode == 2
    assert "unprotected" in bare.stderr


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, trust_env=False, timeout=30) as client:
        yield client


def test_wrong_keys_beyond_the_allowance_wait_and_a_known_key_goes_on_working(client: httpx.Client, key: str) -> None:
    right = {"authorization": f"Bearer {key}"}
    assert client.get("/v1/models", headers=right).status_code == 200
    first = client.get("/v1/models", headers={"authorization": f"Bearer hg_{'1' * 16}_{'0' * 64}"})
    assert first.status_code == 401
    for number in range(5000):
        wrong = {"authorization": f"Bearer hg_{number:016x}_{'0' * 64}"}
        if client.get("/v1/models", headers=wrong).status_code != 401:
            break
    limited = client.get("/v1/models")
    assert limited.status_code == 429
    assert int(limited.headers["retry-after"]) >= 1
    assert client.get("/v1/models", headers=right).status_code == 200
