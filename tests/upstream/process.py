"""Starts the scripted upstream as a child process of its own, and stops it by its pid."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

REPOSITORY = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0


class UpstreamNotStarted(RuntimeError):
    """The child process ended or stayed silent before it listened."""


@dataclass(frozen=True, slots=True)
class RunningUpstream:
    """A live upstream; `url` has no trailing slash, `base_url` is what an OpenAI client takes."""

    url: str
    pid: int

    @property
    def base_url(self) -> str:
        """The URL with `/v1`."""
        return self.url + "/v1"

    def seen(self, settle_s: float = 5.0) -> list[dict[str, Any]]:
        """What it saw, oldest first, once no request is open or `settle_s` seconds have passed.

        Blocks: in an async test whose client lives on the same loop, call it through `asyncio.to_thread`.
        """
        answer = _call("GET", f"{self.url}/seen?settle_s={settle_s}", timeout_s=settle_s + 10)
        sightings: list[dict[str, Any]] = answer.json()
        return sightings

    def reset(self) -> None:
        """Forget what was seen, the `times` counts, and the server's own script."""
        _call("POST", f"{self.url}/reset")

    def obey(self, script: str) -> None:
        """Make every later request obey `script`, under whatever its model name or header says."""
        _call("POST", f"{self.url}/script", content=script)

    def busy(self, running: int, waiting: int) -> None:
        """Tell in `/metrics` of so many requests from others, in the batch and before it."""
        _call("POST", f"{self.url}/load", content=f"{running} {waiting}")


@contextmanager
def run_upstream(script: str = "", port: int = 0) -> Iterator[RunningUpstream]:
    """Run the upstream on a loopback port (0: a free one) for as long as the block lasts.

    Raises:
        UpstreamNotStarted: with the child's exit status, when it does not listen within 20 s.
    """
    command = [
        sys.executable,
        "-m",
        "gateway.faults.upstream",
        "--port",
        str(port),
        "--script",
        script,
        "--until-stdin-closes",
    ]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    child = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        running = RunningUpstream(_address(child), child.pid)
        _call("GET", f"{running.url}/healthz", timeout_s=START_TIMEOUT_S)
        yield running
    finally:
        _stop(child)


def unused_port() -> int:
    """A loopback port on which nothing listens, for refused connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _call(method: str, url: str, content: str = "", timeout_s: float = 10.0) -> httpx.Response:
    # verify=False: the URL is plain http, and loading the certificate store would cost more than the call
    answer = httpx.request(method, url, content=content, timeout=timeout_s, trust_env=False, verify=False)
    return answer.raise_for_status()


def _address(child: subprocess.Popen[str]) -> str:
    silence = threading.Timer(START_TIMEOUT_S, child.kill)
    silence.start()
    try:
        line = child.stdout.readline() if child.stdout else ""
    finally:
        silence.cancel()
    if not line.startswith("listening on "):
        raise UpstreamNotStarted(f"the scripted upstream ended with status {child.wait()} before it listened")
    return line.removeprefix("listening on ").strip()


def _stop(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
