"""What every kind of engine promises: ready, chat, stream, usage, cancel on disconnect, recovery, drain, no orphans.

Run for real on `openvino`, `transformers` and `command`. With HEADGATE_LAB_VLLM (vLLM's program) and
HEADGATE_LAB_LLAMA_SERVER (its program) with HEADGATE_LAB_GGUF (a small model) also on those; see docs/hosting.md.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from backends.engines.bare_environment import SOURCE_ROOT
from backends.engines.devices import device_bytes
from backends.engines.engine_state import EngineState, Timings
from backends.engines.kinds import launcher_of
from backends.engines.launcher import EngineLauncher
from backends.engines.orphans import MARKER
from backends.engines.recipes import load_recipe
from backends.engines.supervisor import Supervisor
from core.clock import SystemClock
from policies.safe_yaml import load_yaml
from tests.tiny_llama import CONTEXT_TOKENS, write_tiny_llama

BUNDLED = SOURCE_ROOT / "backends" / "bundled" / "small-int4"
PATIENCE_S = 60
LAB_PATIENCE_S = 600
QUICK = Timings(restart_base_s=0.05, poll_s=0.05, probe_interval_s=0.5)
LONG = 800
RECIPE = """
engine: {engine}
weights: {weights}
precision: {precision}
model: lab-model
memory_bytes: {memory_bytes}
context_tokens: {context}
max_output_tokens: {output}
price: {{input_usd_per_m: 1, output_usd_per_m: 1}}
start_timeout_s: {patience}
drain_timeout_s: 20
options: {options}
"""
WORKER = ["{python}", "-m", "backends.engines.openvino_server", "--model-dir={weights}", "--name={model}"]


@dataclass(frozen=True)
class Kind:
    """One kind under test: its recipe's engine, options and weights, and the metric that counts running requests."""

    engine: str
    precision: str
    options: Callable[[], dict[str, Any]]
    running: str = "headgate_engine_requests_running"
    memory_bytes: int = 256 << 20
    lab: str | None = None

    @property
    def patience_s(self) -> int:
        return LAB_PATIENCE_S if self.lab else PATIENCE_S

    def weights(self, folder: Path) -> Path:
        if self.engine == "llama-server":
            return Path(os.environ["HEADGATE_LAB_GGUF"])
        if self.engine in ("transformers", "vllm"):
            return write_tiny_llama(folder / "weights")
        return BUNDLED


def _worker_command() -> dict[str, Any]:
    python = sys.executable
    command = [part.replace("{python}", python) for part in WORKER]
    more = ["--port={port}", "--context-tokens={context_tokens}", "--max-output-tokens={max_output_tokens}"]
    environment = {"PYTHONPATH": str(SOURCE_ROOT), "PYTHONSAFEPATH": "1"}
    return {
        "command": [*command, *more],
        "environment": environment,
        "prefix_caching_off": [],
        "drains_on_sigterm": True,
    }


KINDS = {
    "openvino": Kind("openvino", "int4", dict),
    "transformers": Kind("transformers", "bf16", dict),
    "command": Kind("command", "int4", _worker_command),
    "vllm": Kind(
        "vllm",
        "bf16",
        lambda: {"executable": os.environ["HEADGATE_LAB_VLLM"], "eager": True, "max_running": 8},
        running="vllm:num_requests_running",
        memory_bytes=2 << 30,
        lab="HEADGATE_LAB_VLLM",
    ),
    "llama-server": Kind(
        "llama-server",
        "fp16",
        lambda: {"executable": os.environ["HEADGATE_LAB_LLAMA_SERVER"]},
        running="llamacpp:requests_processing",
        lab="HEADGATE_LAB_LLAMA_SERVER",
    ),
}

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module", params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    found = KINDS[request.param]
    if found.lab is not None and not os.environ.get(found.lab):
        pytest.skip(f"{found.engine} is a laboratory test: set {found.lab} to its program")
    return found


@pytest.fixture(scope="module")
def launcher(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> EngineLauncher:
    folder = tmp_path_factory.mktemp("recipe")
    file = folder / "lab.yaml"
    file.write_text(
        RECIPE.format(
            engine=kind.engine,
            weights=kind.weights(folder),
            precision=kind.precision,
            memory_bytes=kind.memory_bytes,
            context=CONTEXT_TOKENS,
            output=CONTEXT_TOKENS - 64,
            patience=kind.patience_s,
            options=json.dumps(kind.options()),
        )
    )
    return launcher_of(load_recipe(file, load_yaml), device_bytes)


@asynccontextmanager
async def served(launcher: EngineLauncher, kind: Kind, state_dir: Path) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(launcher, SystemClock(), state_dir, timings=QUICK)
    supervisor.start()
    try:
        assert await supervisor.wait_ready(kind.patience_s), (supervisor.last_error, supervisor.logs()[-20:])
        yield supervisor
    finally:
        await supervisor.stop()


@asynccontextmanager
async def client_of(supervisor: Supervisor) -> AsyncIterator[httpx.AsyncClient]:
    url = (supervisor.base_url or "").removesuffix("/v1")
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=LAB_PATIENCE_S) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(
    launcher: EngineLauncher, kind: Kind, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    async with served(launcher, kind, tmp_path_factory.mktemp("state")) as supervisor, client_of(supervisor) as client:
        yield client


def body(max_tokens: int, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Sort these numbers: 7 3 9"}]
    fixed = {"model": "lab-model", "messages": messages, "temperature": 0, "ignore_eos": True}
    return fixed | {"max_tokens": max_tokens} | more


async def answered(engine: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    response = await engine.post("/v1/chat/completions", json=body(12, **more))
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def frames(engine: httpx.AsyncClient, max_tokens: int, **more: Any) -> list[str]:
    async with engine.stream("POST", "/v1/chat/completions", json=body(max_tokens, stream=True, **more)) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return [line.removeprefix("data: ") async for line in response.aiter_lines() if line.startswith("data: ")]


async def eventually(fact: Callable[[], Awaitable[bool]], patience_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(patience_s):
        while not await fact():  # noqa: ASYNC110 - another process cannot set an event of ours
            await asyncio.sleep(0.02)


async def test_a_ready_engine_lists_its_model_and_is_healthy(
    engine: httpx.AsyncClient, launcher: EngineLauncher
) -> None:
    listed = (await engine.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["lab-model"]
    assert (await engine.get(launcher.capabilities().health_path)).status_code == 200


async def test_a_chat_is_answered_and_counted(engine: httpx.AsyncClient) -> None:
    answer = await answered(engine)
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    assert choice["finish_reason"] == "length"
    usage = answer["usage"]
    assert usage["completion_tokens"] == 12
    assert usage["prompt_tokens"] > 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + 12


async def test_a_stream_says_the_same_as_a_whole_answer(engine: httpx.AsyncClient) -> None:
    whole = await answered(engine)
    *chunks, done = await frames(engine, 12, stream_options={"include_usage": True})
    assert done == "[DONE]"
    parsed = [json.loads(chunk) for chunk in chunks]
    choices = [chunk["choices"][0] for chunk in parsed if chunk["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    assert whole_characters(text) == whole_characters(whole["choices"][0]["message"]["content"])
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["length"]
    assert parsed[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert len(choices) > 3


async def test_an_unknown_model_is_refused(engine: httpx.AsyncClient, kind: Kind) -> None:
    if kind.engine == "llama-server":
        pytest.skip("llama-server answers whatever name it is asked for")
    response = await engine.post("/v1/chat/completions", json=body(1, model="another"))
    assert response.status_code == 404
    assert response.json()["error"]["message"]


async def test_several_streams_run_at_once_and_none_mixes_with_another(engine: httpx.AsyncClient) -> None:
    alone = (await answered(engine))["choices"][0]["message"]["content"]
    together = await asyncio.gather(*(frames(engine, 12) for _ in range(6)))
    texts = ["".join((json.loads(c)["choices"][0]["delta"].get("content") or "") for c in one[:-1]) for one in together]
    assert list(map(whole_characters, texts)) == [whole_characters(alone)] * 6


def whole_characters(text: str) -> str:
    """Leave out a last character that the limit cut through, which llama-server leaves out of streams alone."""
    return text.rstrip("\ufffd")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_client_that_leaves_frees_its_place(engine: httpx.AsyncClient, kind: Kind, stream: bool) -> None:
    """vLLM 0.32 counts what runs only when it has something to send, so there a stream runs beside whole answers."""

    async def running() -> float:
        lines = (await engine.get("/metrics")).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(kind.running))

    beside = [await _sent(engine, stream=True)] if kind.engine == "vllm" and not stream else []
    writers = [await _sent(engine, stream=stream) for _ in range(4)]
    await eventually(lambda: _is(running, lambda count: count > len(beside)), kind.patience_s)
    for writer in writers:
        writer.close()
    await eventually(lambda: _is(running, lambda count: count == len(beside)), kind.patience_s)
    for writer in beside:
        writer.close()
    assert (await answered(engine))["usage"]["completion_tokens"] == 12


async def _sent(engine: httpx.AsyncClient, *, stream: bool) -> asyncio.StreamWriter:
    """Ask for a long answer, and read nothing of it."""
    payload = json.dumps(body(LONG, stream=stream, n=1)).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    _, writer = await asyncio.open_connection(engine.base_url.host, engine.base_url.port)
    writer.write(request + b"content-length: %d\r\n\r\n" % len(payload) + payload)
    return writer


async def _is(measure: Callable[[], Awaitable[float]], fact: Callable[[float], bool]) -> bool:
    return fact(await measure())


async def test_an_engine_recovers_from_signal_9_then_drains_and_leaves_no_process(
    launcher: EngineLauncher, kind: Kind, tmp_path: Path
) -> None:
    async with served(launcher, kind, tmp_path) as supervisor:
        first = supervisor.group
        assert first is not None
        marker = marker_of(first)
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: _restarted(supervisor), kind.patience_s)
        assert processes_with(marker) == []
        assert supervisor.group is not None
        marker = marker_of(supervisor.group)
        async with client_of(supervisor) as client, asyncio.timeout(kind.patience_s):
            sent = body(200, stream=True)
            async with client.stream("POST", "/v1/chat/completions", json=sent) as response:
                lines = response.aiter_lines()
                await anext(lines)
                stopping = asyncio.create_task(supervisor.stop())
                rest = await _read_to_the_end(lines, may_be_cut=not launcher.capabilities().drains_on_sigterm)
            await stopping
        if launcher.capabilities().drains_on_sigterm:
            assert rest[-1] == "data: [DONE]"
        assert supervisor.state is EngineState.STOPPED
        assert processes_with(marker) == []


async def _read_to_the_end(lines: AsyncIterator[str], *, may_be_cut: bool) -> list[str]:
    """Read what is left; the supervisor drains engines that do not by the gateway's own count, which is 0 here."""
    rest: list[str] = []
    try:
        async for line in lines:
            rest += [line] if line else []
    except httpx.RemoteProtocolError:
        assert may_be_cut
    return rest


async def _restarted(supervisor: Supervisor) -> bool:
    return supervisor.restarts == 1 and supervisor.state is EngineState.READY


def marker_of(pid: int) -> bytes:
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(entry for entry in environment if entry.startswith(MARKER.encode()))


def processes_with(marker: bytes) -> list[int]:
    """Return the living processes that were started with this engine's marker, children of children included."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if marker in (entry / "environ").read_bytes().split(b"\0") and _state_of(entry) != "Z":
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _state_of(process: Path) -> str:
    return (process / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
