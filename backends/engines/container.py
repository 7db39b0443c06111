"""Runs an engine inside a container, such that nothing of it is left: `python -m backends.engines.container ...`.

This small process stands in the engine's process group for the container, which is a child of the container runtime's
own service. It removes a container of the same name first, stops it on SIGTERM, and when the gateway is gone.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from types import FrameType
from typing import ClassVar

from backends.engines.bare_environment import INHERITED, worker_environment
from backends.engines.launcher import EngineSpec

POLL_S = 1.0
RUNTIME_VARIABLES = ("HOME", "XDG_RUNTIME_DIR", "DOCKER_HOST", "DOCKER_CONTEXT", "CONTAINER_HOST")
MARGIN_S = 2.0
"""The runtime kills what has not ended in time; the supervisor waits this much longer."""


@dataclass(frozen=True, slots=True)
class Container:
    """An image that serves the OpenAI API; the weights are mounted read-only."""

    MODEL: ClassVar[str] = "/weights"
    image: str
    runtime: str
    spec: EngineSpec

    def command(self, port: int, environment: Mapping[str, str], arguments: tuple[str, ...]) -> tuple[str, ...]:
        """Return the argument vector of the process that holds the container."""
        spec = self.spec
        stop_s = max(1, round(spec.drain_timeout_s - MARGIN_S))
        passed = {
            name: value for name, value in environment.items() if name not in (*INHERITED, "CUDA_VISIBLE_DEVICES")
        }
        gpus = [device.partition(":")[2] or "0" for device in spec.devices if device != "cpu"]
        run = (
            *("--rm", "--init", f"--publish=127.0.0.1:{port}:{port}", "--ipc=host"),
            *("--cap-drop=ALL", "--security-opt=no-new-privileges"),
            *((f'--gpus="device={",".join(gpus)}"',) if gpus else ()),
            *(f"--env={key}={value}" for key, value in passed.items()),
            f"--volume={spec.model_dir}:{self.MODEL}:ro",
            self.image,
            *arguments,
        )
        own = (f"--runtime={self.runtime}", f"--stop-s={stop_s}", f"--parent-pid={os.getpid()}")
        return (sys.executable, "-m", "backends.engines.container", *own, "--", *run)

    def environment(self) -> dict[str, str]:
        """Return what the holding process needs, which reaches the runtime's service as its user does."""
        return worker_environment() | {name: os.environ[name] for name in RUNTIME_VARIABLES if name in os.environ}


class _Asked(Exception):
    """SIGTERM arrived."""


def main() -> None:
    """Run the container until it ends, a signal arrives, or the gateway is gone; exit with its status."""
    parser = argparse.ArgumentParser(prog="container", description=__doc__)
    parser.add_argument("--runtime", required=True, help="docker or podman")
    parser.add_argument("--stop-s", type=int, required=True, help="seconds to end after SIGTERM")
    parser.add_argument("--parent-pid", type=int, required=True, help="stop when this process is gone")
    parser.add_argument("run", nargs="+", help="arguments of the runtime's `run`")
    options = parser.parse_args()
    name = container_name(os.getcwd())
    remove = (options.runtime, "rm", "--force", name)
    early: list[int] = []  # raised while the runtime is being started, the exception would lose it
    signal.signal(signal.SIGTERM, lambda number, frame: early.append(number))
    try:
        _run(remove)
        running = subprocess.Popen((options.runtime, "run", f"--name={name}", *options.run))  # noqa: S603 - an argument list, no shell
    except FileNotFoundError:
        problem = f"{options.runtime} is not installed; install it, or run the engine from its own environment"
        print(f"error: {problem}", file=sys.stderr)  # noqa: T201 - the supervisor reads this line
        raise SystemExit(2) from None
    try:
        signal.signal(signal.SIGTERM, _raise)
        if early:
            raise _Asked
        raise SystemExit(_wait(running, options.parent_pid))
    except _Asked:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _run((options.runtime, "stop", "-t", str(options.stop_s), name))
        running.wait()
    finally:
        _run(remove)


def container_name(working_directory: str) -> str:
    """Return a name that is the same at each start of one engine, and another's for every other gateway and engine."""
    return f"headgate-{blake2b(working_directory.encode(), digest_size=8).hexdigest()}"


def _run(command: tuple[str, ...]) -> None:
    subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - an argument list, no shell


def _wait(running: "subprocess.Popen[bytes]", parent_pid: int) -> int:
    """Return the container's status, or 1 when the gateway is gone."""
    while os.getppid() == parent_pid:
        try:
            return running.wait(POLL_S)
        except subprocess.TimeoutExpired:
            continue
    return 1


def _raise(number: int, frame: FrameType | None) -> None:
    raise _Asked


if __name__ == "__main__":
    main()
