"""What operators get wrong about engines: each is one clear line with the recipe and the mend, while others serve."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backends.engines.bare_environment import SOURCE_ROOT
from backends.engines.devices import device_bytes
from backends.engines.engine_state import EngineState, Timings
from backends.engines.kinds import launcher_of
from backends.engines.memory import MemoryBudget
from backends.engines.recipes import load_recipe
from backends.engines.supervisor import Supervisor
from core.clock import SystemClock
from policies.safe_yaml import load_yaml
from tests.weights_files import write_weights

BUNDLED = SOURCE_ROOT / "backends" / "bundled" / "small-int4"
PATIENCE_S = 60
QUICK = Timings(restart_base_s=60, poll_s=0.02, probe_interval_s=0.1)
GARBAGE = "import os, time; os.write(1, bytes(range(256)) * 20); os.write(2, b'\\xff\\xfe\\x1b[31m'); time.sleep(600)"
WRONG_SERVER = "import http.server, sys; http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]))"

pytestmark = pytest.mark.engine


def write_recipe(folder: Path, **changes: Any) -> Path:
    fields = {
        "engine": "openvino",
        "weights": str(BUNDLED),
        "precision": "int4",
        "model": "broken-model",
        "memory_bytes": 256 << 20,
        "context_tokens": 512,
        "max_output_tokens": 64,
        "price": {"input_usd_per_m": 1, "output_usd_per_m": 1},
        "start_timeout_s": 30.0,
    }
    file = folder / "broken.yaml"
    file.write_text(json.dumps(fields | changes))
    return file


def runs(script: str) -> dict[str, Any]:
    """Return a recipe's fields for a command that is no engine."""
    command = [sys.executable, "-c", script, "{port}"]
    return {"engine": "command", "prefix_caching": False, "options": {"command": command}, "start_timeout_s": 1.0}


CASES: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "a missing model directory": (
        lambda folder: {"weights": str(folder / "gone")},
        "weights: the folder {folder}/gone does not exist; correct the path, or make it with `headgate models convert`",
    ),
    "a missing directory for transformers": (
        lambda folder: {"engine": "transformers", "weights": str(folder / "gone"), "precision": "bf16"},
        "weights: the folder {folder}/gone does not exist; correct the path, or fetch it with `headgate models pull`",
    ),
    "a wrong precision": (
        lambda folder: {"precision": "fp16"},
        "precision: says fp16, but {bundled} holds int4 weights; write `precision: int4`, or convert the model again",
    ),
    "a wrong precision for transformers": (
        lambda folder: {"engine": "transformers", "weights": str(write_weights(folder / "w", {}))},
        "precision: says int4, but {folder}/w holds bf16 weights; write `precision: bf16`, or use other weights",
    ),
    "weights that transformers cannot load": (
        lambda folder: {
            "engine": "transformers",
            "weights": str(write_weights(folder / "w", {"model_type": "nonesuch"})),
            "precision": "bf16",
        },
        "the engine exited with status 2 before it was ready (error: transformers cannot load {folder}/w: ",
    ),
    "not enough memory": (
        lambda folder: {"memory_bytes": 1 << 50},
        "declares 1073741824 MiB on cpu, but only ",
    ),
    "a device that is not there": (
        lambda folder: {"devices": ["cuda:63"], "engine": "command", **runs("pass")},
        "device cuda:63: is not in this machine; name one of: cpu",
    ),
    "garbage before readiness": (
        lambda folder: runs(GARBAGE),
        "the engine did not answer within 1 s (",
    ),
    "a hang before readiness": (
        lambda folder: runs("import time; time.sleep(600)"),
        "the engine did not answer within 1 s; raise start_timeout_s in the recipe, or see the engine's log",
    ),
    "a server of something else": (
        lambda folder: runs(WRONG_SERVER),
        "the engine did not answer within 1 s",
    ),
    "a program that is not there": (
        lambda folder: {"engine": "llama-server"},
        "options.executable: llama-server is not there; install llama.cpp, or name its program",
    ),
}


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[Supervisor]:
    """The other tier, which must not notice anything."""
    launcher = launcher_of(load_recipe("bundled-small-int4", load_yaml), device_bytes)
    supervisor = Supervisor(launcher, SystemClock(), tmp_path / "state", timings=QUICK)
    supervisor.start()
    assert await supervisor.wait_ready(PATIENCE_S)
    yield supervisor
    assert (supervisor.state, supervisor.failures, supervisor.restarts) == (EngineState.READY, 0, 0)
    await supervisor.stop()


async def failure_of(recipe: Path, state_dir: Path, memory: MemoryBudget) -> str:
    """Start the recipe's engine, and return what its first failure says."""
    failed = asyncio.Event()
    supervisor = Supervisor(
        launcher_of(load_recipe(recipe, load_yaml), device_bytes),
        SystemClock(),
        state_dir,
        timings=QUICK,
        memory=memory,
        on_change=lambda state: failed.set() if state is EngineState.FAILED else None,
    )
    supervisor.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await failed.wait()
        return supervisor.last_error or ""
    finally:
        await supervisor.stop()


async def test_each_mistake_is_one_line_with_recipe_and_mend_while_the_other_tier_serves(
    tmp_path: Path, serving: Supervisor
) -> None:
    memory = MemoryBudget(device_bytes)
    for case, (changes, words) in CASES.items():
        folder = tmp_path / case.replace(" ", "-")
        folder.mkdir()
        line = await failure_of(write_recipe(folder, **changes(folder)), tmp_path / "state", memory)
        expected = words.replace("{folder}", str(folder)).replace("{bundled}", str(BUNDLED))
        assert line.startswith(f"recipe broken: {expected}") or f": {expected}" in line, (case, line)
        assert line.startswith("recipe broken: "), case
        assert "; " in line, case
        assert line.isprintable(), case
        assert serving.state is EngineState.READY, case
        assert memory.claims("cpu") == {}, case


async def test_a_port_in_use_is_one_line(tmp_path: Path, serving: Supervisor) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = await failure_of(write_recipe(tmp_path, port=port), tmp_path / "state", MemoryBudget(device_bytes))
    assert line == f"recipe broken: port {port} is in use; stop its user, or leave `port` out of the recipe"
