"""`headgate models pull` and `check --digests` against a small hub on loopback that speaks the real client's wire."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

COMMIT = "a" * 40
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights" * 1000,
    "tokenizer_config.json": b"{}",
    "training.pth": b"nobody wants this",
}
LARGE = "model.safetensors"
RECIPE = """
engine: transformers
weights: weights
precision: bf16
model: tiny
hub: {repo: lab/tiny}
memory_bytes: 100000000
context_tokens: 100
max_output_tokens: 10
price: {input_usd_per_m: 1, output_usd_per_m: 1}
"""


class Hub(BaseHTTPRequestHandler):
    """Describes one repository, and sends its files."""

    protocol_version = "HTTP/1.1"
    status: ClassVar[int] = 200
    spoils: ClassVar[bool] = False

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if self.status != 200 or "/lab/tiny" not in path:
            self._send(b'{"error": "no"}', status=self.status if self.status != 200 else 404)
        elif path.startswith("/api/models/lab/tiny/tree/"):
            self._send(json.dumps([self._entry(name) for name in FILES]).encode())
        elif path.startswith("/api/models/lab/tiny"):
            siblings = [{"rfilename": name, **self._large(name)} for name in FILES]
            self._send(json.dumps({"id": "lab/tiny", "sha": COMMIT, "siblings": siblings}).encode())
        else:
            name = path.rpartition("/")[2]
            content = b"spoiled" * 1000 if self.spoils and name == LARGE else FILES[name]
            etag = hashlib.sha256(FILES[name]).hexdigest()
            self._send(content, {"etag": f'"{etag}"', "x-repo-commit": COMMIT})

    def _entry(self, name: str) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(FILES[name]), "oid": "0" * 40, **self._large(name)}

    def _large(self, name: str) -> dict[str, Any]:
        if name != LARGE:
            return {}
        digest = hashlib.sha256(FILES[name]).hexdigest()
        return {"lfs": {"sha256": digest, "oid": digest, "size": len(FILES[name]), "pointerSize": 100}}

    def _send(self, body: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.status, Hub.spoils = 200, False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(RECIPE)
    return file


def models(action: str, recipe: Path, *more: str, endpoint: str = "http://127.0.0.1:9") -> tuple[int, str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(recipe.parent / "home"), "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "models", action, str(recipe), *more],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_pull_brings_the_wanted_files_with_a_note_and_check_finds_a_changed_byte(hub: str, recipe: Path) -> None:
    code, told, errors = models("pull", recipe, "--json", endpoint=hub)
    assert code == 0, errors
    pulled = json.loads(told)
    weights = recipe.parent / "weights"
    assert pulled["commit"] == COMMIT
    assert {file["path"] for file in pulled["files"]} == set(FILES) - {"training.pth"}
    assert (weights / LARGE).read_bytes() == FILES[LARGE]
    assert sorted(path.name for path in weights.iterdir()) == sorted({*FILES, "pulled.json"} - {"training.pth"})
    assert json.loads((weights / "pulled.json").read_text()) == pulled
    again, _, refusal = models("pull", recipe, endpoint=hub)
    assert (again, "exists already; remove it to fetch it anew" in refusal) == (2, True)


def test_what_the_hub_did_not_describe_is_thrown_away(hub: str, recipe: Path) -> None:
    Hub.spoils = True
    code, _, errors = models("pull", recipe, endpoint=hub)
    assert code == 1
    assert errors.splitlines()[-1] == (
        "headgate: model.safetensors of lab/tiny is not what the hub describes; it was removed, pull again"
    )
    assert not (recipe.parent / "weights").exists()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "the hub has no lab/tiny, or not that revision; correct the recipe's hub.repo and hub.revision"),
        (403, "the hub refuses lab/tiny (status 403); accept its licence there and set HF_TOKEN"),
    ],
)
def test_a_refusal_is_one_line_with_the_mend(hub: str, recipe: Path, status: int, words: str) -> None:
    Hub.status = status
    code, _, errors = models("pull", recipe, endpoint=hub)
    assert code == 1
    assert errors.splitlines()[-1] == f"headgate: {words}"


def test_a_hub_that_cannot_be_reached_is_one_line_with_the_mend(recipe: Path) -> None:
    code, _, errors = models("pull", recipe)
    assert code == 1
    (line,) = errors.splitlines()
    assert line.startswith("headgate: lab/tiny cannot be fetched (")
    assert line.endswith("check the network, set HF_ENDPOINT to a mirror, or copy the files there yourself")
