"""Starts a real `headgate serve` process over a configuration folder of its own, and stops it by its pid."""

import json
import os
import signal
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.upstream.process import unused_port

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
HEADGATE = (sys.executable, "-m", "gateway")

REMOTE = """
listen: 127.0.0.1:8080
admin: {{listen: 127.0.0.1:8081, key_file: var/admin.key}}
state: sqlite:var/headgate.db
policies: tenants
router: {{pair: general}}
tiers: {{small: [one], large: [two]}}
deployments:
  one:
    {{backend: remote, base_url: {base_url}, model: "{small}", price: {{input_usd_per_m: 1, output_usd_per_m: 2}}}}
  two:
    {{backend: remote, base_url: {base_url}, model: "{large}", price: {{input_usd_per_m: 10, output_usd_per_m: 20}}}}
"""


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """A live gateway; `base_url` is what an OpenAI client takes."""

    url: str
    admin_url: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def base_url(self) -> str:
        return self.url + "/v1"

    def key(self, tenant: str, *options: str) -> str:
        """Create a key for `tenant` as an operator does."""
        return headgate("keys", "create", "--tenant", tenant, *options, folder=self.folder).stdout.strip()

    def metrics(self) -> str:
        key = (self.folder / "var" / "admin.key").read_text().strip()
        answer = httpx.get(f"{self.admin_url}/metrics", headers={"authorization": f"Bearer {key}"}, trust_env=False)
        return answer.raise_for_status().text

    def request_rows(self, least: int) -> list[dict[str, Any]]:
        """Return the request log's rows, oldest first, once there are at least `least` of them."""
        give_up_at_s = time.monotonic() + 10
        while True:
            rows = self._rows()
            if len(rows) >= least or time.monotonic() > give_up_at_s:
                return rows

    def row_of(self, request_id: str) -> dict[str, Any]:
        """Return the request log's row of one request, once it is written."""
        give_up_at_s = time.monotonic() + 10
        while time.monotonic() < give_up_at_s:
            for row in self._rows():
                if row["request_id"] == request_id:
                    return row
        raise AssertionError(f"no row of {request_id}")

    def log(self) -> str:
        return (self.folder / "gateway.log").read_text()

    def _rows(self) -> list[dict[str, Any]]:
        path = self.folder / "var" / "headgate-requests.db"
        if not path.exists():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute("SELECT * FROM requests ORDER BY received_at_ms, request_id").fetchall()
        return [dict(row) for row in rows]


def headgate(*arguments: str, folder: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one command of the command line in `folder`."""
    return subprocess.run(
        [*HEADGATE, *arguments],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=check,
    )


def write_configuration(folder: Path, operator: str, tenants: dict[str, str]) -> None:
    """Write `headgate.yaml` and one file per tenant."""
    (folder / "tenants").mkdir(parents=True, exist_ok=True)
    (folder / "headgate.yaml").write_text(operator)
    for name, text in tenants.items():
        (folder / "tenants" / f"{name}.yaml").write_text(text)


@contextmanager
def run_gateway(
    folder: Path,
    *,
    scheme: str = "http",
    verify: ssl.SSLContext | bool = True,
    until: str = "/readyz",
    log_to: int | None = None,
    command: Sequence[str] = HEADGATE,
) -> Iterator[RunningGateway]:
    """Serve the configuration in `folder` on free ports until the block ends; it must stop cleanly.

    It begins once the path `until` is answered 200. Its log goes to a file in the folder, or to `log_to`.
    """
    port, admin_port = unused_port(), unused_port()
    arguments = ["serve", "--port", str(port), "--admin-port", str(admin_port)]
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            env=_environment(),
            stdout=log,
            stderr=log_to or log,
            start_new_session=True,
        )
        running = RunningGateway(f"{scheme}://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}", folder, process)
        try:
            _wait_ready(running, verify, until)
            yield running
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> int:
    """Send SIGINT as Ctrl-C does, and return the exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """Return the OpenAI error object of an answer."""
    error: dict[str, Any] = json.loads(answer.content)["error"]
    return error


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1"}


def _wait_ready(running: RunningGateway, verify: ssl.SSLContext | bool, path: str) -> None:
    give_up_at_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at_s:
        if running.process.poll() is not None:
            break
        try:
            if httpx.get(f"{running.url}{path}", trust_env=False, verify=verify).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"the gateway did not become ready:\n{running.log()}")
