"""The image without Docker: the Dockerfile's steps in a clean folder, then the composition's own commands over it.

Opt in with HEADGATE_LAB_IMAGE=1 (`make image-steps`): it installs torch, which takes minutes. As root, everything after
the build runs as the image's user, which may write nowhere but in `var` and the folder for temporary files.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.redis_server import BINARY
from tests.upstream.process import unused_port

ROOT = Path(__file__).resolve().parents[2]
USER = 10001
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif("HEADGATE_LAB_IMAGE" not in os.environ, reason="`make image-steps` runs it: it installs torch"),
]


def instructions() -> list[list[tuple[str, str]]]:
    """Return the stages of the Dockerfile as pairs of instruction and text."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    stages: list[list[tuple[str, str]]] = []
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest.strip()))
    return stages


def copy(rest: str, source: Path, app: Path) -> None:
    *names, target = [part for part in shlex.split(rest) if not part.startswith("--")]
    for name in names:
        found = source / Path(name).relative_to("/app") if name.startswith("/app") else source / name
        to = app / target / (found.name if target.endswith("/") else "")
        to.parent.mkdir(parents=True, exist_ok=True)
        if found.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(found, to, symlinks=True, ignore=ignore, dirs_exist_ok=True)
        else:
            shutil.copy2(found, to)


def build(folder: Path) -> Path:
    """Carry out both stages; return what would be /app. The virtual environment keeps its path, as in the image."""
    first, second = instructions()
    app, built = folder / "app", folder / "built"
    app.mkdir()
    environ = {"PATH": SYSTEM_PATH, "HOME": str(folder)}
    environ |= {name: value for name, value in os.environ.items() if name.startswith("PIP_") or "CERT" in name}
    for word, rest in first:
        if word == "COPY":
            copy(rest, ROOT, app)
        elif word == "RUN":
            command = rest if os.geteuid() == 0 else rest.replace(f"install -d -o {USER} -g {USER}", "install -d")
            subprocess.run(
                ["/bin/sh", "-ec", command], cwd=app, env=environ, check=True, timeout=3000, stdout=subprocess.DEVNULL
            )
    app.rename(built)
    app.mkdir()
    for word, rest in second:
        if word == "COPY":
            copy(rest, built if "--from=build" in rest else ROOT, app)
            if "--chown" in rest and os.geteuid() == 0:
                os.chown(app / shlex.split(rest)[-1], USER, USER)
    shutil.rmtree(built)
    return app


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][name]
    return found


@contextmanager
def running(command: list[str], environ: dict[str, str], cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    as_user: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}
    with (cwd.parent / "log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=cwd, env=environ, stdout=log, stderr=log, start_new_session=True, **as_user
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def prepared(folder: Path) -> None:
    """Lay out what the composition mounts: secrets, a folder for temporary files, Redis' data."""
    for name in ("secrets", "tmp", "data"):
        (folder / name).mkdir()
        if os.geteuid() == 0:
            os.chown(folder / name, USER, USER)
    for name in ("admin_key", "redis_password"):
        (folder / "secrets" / name).write_text("0" * 31 + name)


def start_redis(folder: Path, environ: dict[str, str], port: int, stack: ExitStack) -> None:
    *shell, script = service("redis")["command"]
    script = script.replace("$$", "$").replace("/tmp/", f"{folder}/tmp/").replace("/run/secrets", f"{folder}/secrets")
    script = script.replace("dir /data", f"dir {folder}/data").rstrip() + f" --port {port} --bind 127.0.0.1"
    stack.enter_context(running([*shell, script], environ, folder / "app"))


def wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at_s = time.monotonic() + 120
    while time.monotonic() < give_up_at_s and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text()[-4000:])


def ask(port: int, key: str) -> httpx.Response:
    return httpx.post(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        headers={"authorization": f"Bearer {key}"},
        json={"model": "auto", "messages": [{"role": "user", "content": "Sort these numbers: 7 3 9"}]},
        timeout=60,
        trust_env=False,
    )


@pytest.mark.skipif(BINARY is None, reason="no redis-server on this machine")
def test_the_built_image_serves_as_the_composition_runs_it() -> None:
    folder = Path(tempfile.mkdtemp(prefix="headgate-image-"))
    folder.chmod(0o755)
    try:
        app = build(folder)
        prepared(folder)
        port, admin_port, redis_port = unused_port(), unused_port(), unused_port()
        text = (ROOT / "headgate.compose.yaml").read_text().replace("/run/secrets", f"{folder}/secrets")
        text = text.replace("@redis:6379", f"@127.0.0.1:{redis_port}").replace("0.0.0.0", "127.0.0.1")
        (app / "headgate.yaml").write_text(text)
        environ = {
            "PATH": f"{app}/.venv/bin:{SYSTEM_PATH}", "HOME": f"{folder}/tmp", "TMPDIR": f"{folder}/tmp",
            "HEADGATE_CONFIG": f"{app}/headgate.yaml", "HEADGATE_MODELS": f"{folder}/models", "HF_HUB_OFFLINE": "1",
            "HEADGATE_REDIS_PASSWORD_FILE": f"{folder}/secrets/redis_password",
        }  # fmt: skip
        with ExitStack() as stack:
            start_redis(folder, environ, redis_port, stack)
            command = [part.replace("/app/", f"{app}/") for part in service("gateway")["command"]]
            command = [*command, "--port", str(port), "--admin-port", str(admin_port)]
            process = stack.enter_context(running([f"{app}/.venv/bin/{command[0]}", *command[1:]], environ, app))
            wait_ready(f"http://127.0.0.1:{port}", process, folder / "log")
            creating = [f"{app}/.venv/bin/headgate", "keys", "create", "--tenant", "demo"]
            key = subprocess.run(creating, cwd=app, env=environ, capture_output=True, text=True, check=True).stdout
            give_up_at_s = time.monotonic() + 5
            answer = ask(port, key.strip())
            while answer.status_code == httpx.codes.UNAUTHORIZED and time.monotonic() < give_up_at_s:
                time.sleep(0.1)  # a new key is known to every gateway on Redis within a second
                answer = ask(port, key.strip())
        assert answer.headers["x-headgate-tier"] == "small"
        assert json.loads(answer.content)["choices"][0]["message"]["content"] == "3 7 9"
        writable = [path for path in app.rglob("*") if path.stat().st_uid == USER and "var" not in path.parts]
        assert os.geteuid() != 0 or writable == []
    finally:
        shutil.rmtree(folder)
