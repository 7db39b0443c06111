"""The OpenVINO worker as a real process with the bundled small model: the API, cancelling, batching, life and death."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from backends.engines.bare_environment import SOURCE_ROOT
from backends.engines.engine_state import EngineState, Timings
from backends.engines.launcher import EngineSpec
from backends.engines.openvino import OpenVinoLauncher
from backends.engines.process import free_port
from backends.engines.recipes import load_recipe
from backends.engines.supervisor import Supervisor
from core.clock import SystemClock
from policies.safe_yaml import load_yaml

WEIGHTS = SOURCE_ROOT / "backends" / "bundled" / "small-int4"
PATIENCE_S = 60
QUICK = Timings(restart_base_s=0.05, poll_s=0.02, probe_interval_s=0.05)
SORT = [{"role": "user", "content": "Sort these numbers: 7 3 9"}]

pytestmark = [
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not (WEIGHTS / "openvino_model.bin").exists(), reason="the bundled weights are not here"),
]


def spec(**changes: Any) -> EngineSpec:
    """Return the bundled small recipe with room for long answers."""
    return replace(load_recipe("bundled-small-int4", load_yaml).spec, max_output_tokens=1000, **changes)


@asynccontextmanager
async def served(state_dir: Path, **changes: Any) -> AsyncIterator[Supervisor]:
    launcher = OpenVinoLauncher(spec(**changes), single_tenant=lambda: True)
    supervisor = Supervisor(launcher, SystemClock(), state_dir, timings=QUICK)
    supervisor.start()
    try:
        assert await supervisor.wait_ready(PATIENCE_S), (supervisor.last_error, supervisor.logs())
        yield supervisor
    finally:
        await supervisor.stop()


@asynccontextmanager
async def client_of(supervisor: Supervisor) -> AsyncIterator[httpx.AsyncClient]:
    url = (supervisor.base_url or "").removesuffix("/v1")
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE_S) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    async with served(tmp_path_factory.mktemp("state")) as supervisor, client_of(supervisor) as client:
        yield client


def body(**more: Any) -> dict[str, Any]:
    return {"model": spec().model, "messages": SORT} | more


async def chat(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    response = await client.post("/v1/chat/completions", json=body(**more))
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def frames(client: httpx.AsyncClient, **more: Any) -> list[str]:
    async with client.stream("POST", "/v1/chat/completions", json=body(stream=True, **more)) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        return [line.removeprefix("data: ") async for line in response.aiter_lines() if line]


async def metric(client: httpx.AsyncClient, name: str) -> float:
    text = (await client.get("/metrics")).text
    (value,) = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"headgate_engine_{name}")]
    return float(value)


async def eventually(fact: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await fact():  # noqa: ASYNC110 - another process cannot set an event of ours
            await asyncio.sleep(0.01)


async def test_an_easy_question_is_answered_and_counted(worker: httpx.AsyncClient) -> None:
    answer = await chat(worker)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "3 7 9", "refusal": None}
    assert answer["choices"][0]["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["prompt_tokens"] > 5
    assert usage["completion_tokens"] > 2
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_a_stream_carries_the_same_text_and_ends_with_done(worker: httpx.AsyncClient) -> None:
    *chunks, done = await frames(worker)
    assert done == "[DONE]"
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    assert choices[0]["delta"]["role"] == "assistant"
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "3 7 9"
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert all("usage" not in json.loads(chunk) for chunk in chunks)


async def test_a_stream_reports_usage_when_asked(worker: httpx.AsyncClient) -> None:
    *chunks, last, done = await frames(worker, stream_options={"include_usage": True})
    assert done == "[DONE]"
    assert json.loads(last)["choices"] == []
    assert json.loads(last)["usage"] == (await chat(worker))["usage"]
    assert all(json.loads(chunk)["usage"] is None for chunk in chunks)


async def test_the_chat_template_is_applied_once(worker: httpx.AsyncClient) -> None:
    short = await chat(worker, messages=[{"role": "user", "content": "7"}], max_tokens=1)
    assert short["usage"]["prompt_tokens"] <= 8


async def test_the_output_limit_ends_an_answer_with_length(worker: httpx.AsyncClient) -> None:
    answer = await chat(worker, max_completion_tokens=2)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


async def test_a_stop_string_is_cut_off(worker: httpx.AsyncClient) -> None:
    answer = await chat(worker, stop=["7 9"])
    assert answer["choices"][0]["message"]["content"] == "3 "
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_several_choices_are_numbered_and_share_the_prompt(worker: httpx.AsyncClient) -> None:
    answer = await chat(worker, n=3)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in answer["choices"]} == {"3 7 9"}
    assert answer["usage"]["completion_tokens"] == 3 * (await chat(worker))["usage"]["completion_tokens"]


async def test_a_seed_repeats_a_sample_and_no_seed_does_not(worker: httpx.AsyncClient) -> None:
    async def sample(**more: Any) -> str:
        answer = await chat(worker, temperature=2, max_tokens=40, ignore_eos=True, **more)
        text: str = answer["choices"][0]["message"]["content"]
        return text

    assert await sample(seed=5) == await sample(seed=5)
    assert len({await sample() for _ in range(4)}) > 1


async def test_every_character_arrives_whole_whatever_is_sampled(worker: httpx.AsyncClient) -> None:
    chunks = await frames(worker, temperature=2, seed=1, max_tokens=300, ignore_eos=True)
    streamed = "".join(json.loads(chunk)["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1])
    whole = await chat(worker, temperature=2, seed=1, max_tokens=300, ignore_eos=True)
    assert streamed == whole["choices"][0]["message"]["content"]


async def test_unknown_fields_and_text_parts_are_accepted(worker: httpx.AsyncClient) -> None:
    parts = [{"type": "text", "text": "Sort these numbers: 7 3 9"}]
    answer = await chat(worker, messages=[{"role": "user", "content": parts, "name": "x"}], frobnicate={"deep": [1]})
    assert answer["choices"][0]["message"]["content"] == "3 7 9"


@pytest.mark.parametrize(
    ("more", "status", "code", "param"),
    [
        ({"messages": [{"role": "user", "content": "7 " * 2000}]}, 400, "context_length_exceeded", "messages"),
        ({"model": "another"}, 404, "model_not_found", "model"),
        ({"temperature": 3}, 400, None, "temperature"),
        ({"max_tokens": 0}, 400, None, "max_tokens"),
        ({"messages": []}, 400, None, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, None, "messages"),
        ({"messages": "hello"}, 400, None, None),
    ],
)
async def test_a_request_that_cannot_be_served_gets_an_openai_error(
    worker: httpx.AsyncClient, more: dict[str, Any], status: int, code: str | None, param: str | None
) -> None:
    response = await worker.post("/v1/chat/completions", json=body(**more))
    assert response.status_code == status
    error = response.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
    assert error["message"]


async def test_the_official_sdk_is_content(worker: httpx.AsyncClient) -> None:
    async with openai.AsyncOpenAI(
        api_key="none",
        base_url=f"http://127.0.0.1:{worker.base_url.port}/v1",
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
    ) as sdk:
        assert [model.id async for model in sdk.models.list()] == [spec().model]
        stream = await sdk.chat.completions.create(
            model=spec().model, messages=[{"role": "user", "content": SORT[0]["content"]}], stream=True
        )
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "3 7 9"


async def test_concurrent_requests_share_the_steps(worker: httpx.AsyncClient) -> None:
    before = await metric(worker, "steps_total")
    await asyncio.gather(*(chat(worker, max_tokens=200, ignore_eos=True) for _ in range(4)))
    assert 200 <= await metric(worker, "steps_total") - before < 400


async def test_no_more_completions_share_a_step_than_the_recipe_allows(tmp_path: Path) -> None:
    options = dict(spec().options) | {"max_running": 1}
    async with served(tmp_path, options=options) as supervisor, client_of(supervisor) as client:
        before = await metric(client, "steps_total")
        await asyncio.gather(*(chat(client, max_tokens=50, ignore_eos=True) for _ in range(3)))
        assert await metric(client, "steps_total") - before >= 150
        streaming = [asyncio.create_task(frames(client, max_tokens=900, ignore_eos=True)) for _ in range(3)]
        await eventually(lambda: waits_for_room(client))
        for one in streaming:
            one.cancel()
        await asyncio.gather(*streaming, return_exceptions=True)
        assert (await chat(client, max_tokens=5))["usage"]["completion_tokens"] == 5


async def waits_for_room(client: httpx.AsyncClient) -> bool:
    return (await metric(client, "requests_running"), await metric(client, "requests_waiting")) == (1, 2)


async def test_a_client_that_leaves_a_stream_cancels_its_generation(worker: httpx.AsyncClient) -> None:
    outcome = 'requests_total{model="headgate-small-int4",outcome="cancelled"}'
    cancelled, tokens = await metric(worker, outcome), await metric(worker, "generation_tokens_total")
    long = body(stream=True, n=16, ignore_eos=True)
    async with worker.stream("POST", "/v1/chat/completions", json=long) as response:
        await anext(response.aiter_lines())

    async def counted() -> bool:
        return await metric(worker, outcome) == cancelled + 1

    await eventually(counted)
    assert await metric(worker, "requests_running") == 0
    assert await metric(worker, "generation_tokens_total") - tokens < 16 * 900


async def test_a_client_that_leaves_before_a_whole_answer_cancels_it(worker: httpx.AsyncClient) -> None:
    outcome = 'requests_total{model="headgate-small-int4",outcome="cancelled"}'
    cancelled = await metric(worker, outcome)
    payload = json.dumps(body(n=16, ignore_eos=True)).encode()
    _, writer = await asyncio.open_connection(worker.base_url.host, worker.base_url.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(payload) + payload
    )
    await eventually(lambda: _above(worker, "requests_running", 0))
    writer.close()

    async def counted() -> bool:
        return await metric(worker, outcome) == cancelled + 1

    await eventually(counted)
    assert (await chat(worker))["choices"][0]["message"]["content"] == "3 7 9"


async def _above(client: httpx.AsyncClient, name: str, least: float) -> bool:
    return await metric(client, name) > least


async def test_other_paths_are_not_found(worker: httpx.AsyncClient) -> None:
    response = await worker.get("/v1/files")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"
    assert (await worker.get("/health")).json() == {"status": "ok"}


@pytest.mark.parametrize("speculation", [{"draft_weights": "../small-int4"}, {"prompt_lookup": 2}], ids=str)
async def test_guessing_ahead_changes_no_greedy_answer_and_takes_fewer_steps(
    tmp_path: Path, speculation: dict[str, Any]
) -> None:
    """The model is its own draft here, so that every guess is right; its answers repeat what the prompt says."""
    options = dict(spec().options) | speculation
    words = [{"role": "user", "content": "Repeat: red green blue red green blue"}]
    steps, answers = [], []
    for number, chosen in enumerate((dict(spec().options), options)):
        async with served(tmp_path / str(number), options=chosen) as supervisor, client_of(supervisor) as client:
            before = await metric(client, "steps_total")
            answers.append((await chat(client, messages=words, max_tokens=60, ignore_eos=True))["choices"])
            steps.append(await metric(client, "steps_total") - before)
    assert answers[0] == answers[1]
    assert steps[1] < steps[0]


async def test_a_stop_lets_a_running_stream_finish(tmp_path: Path) -> None:
    async with served(tmp_path) as supervisor, client_of(supervisor) as client:
        long = body(stream=True, max_tokens=300, ignore_eos=True)
        async with client.stream("POST", "/v1/chat/completions", json=long) as response:
            lines = response.aiter_lines()
            await anext(lines)
            stopping = asyncio.create_task(supervisor.stop())
            rest = [line async for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        await stopping
        assert supervisor.state is EngineState.STOPPED


async def test_a_worker_killed_with_signal_9_answers_again(tmp_path: Path) -> None:
    async with served(tmp_path) as supervisor:
        os.kill(_group_of(tmp_path), signal.SIGKILL)
        await eventually(lambda: _restarted(supervisor))
        async with client_of(supervisor) as client:
            assert (await chat(client))["choices"][0]["message"]["content"] == "3 7 9"


async def _restarted(supervisor: Supervisor) -> bool:
    return supervisor.restarts == 1 and supervisor.state is EngineState.READY


def _group_of(state_dir: Path) -> int:
    group: int = json.loads((state_dir / "engines" / "bundled-small-int4.json").read_text())["group"]
    return group


async def test_a_worker_does_not_outlive_a_killed_gateway(tmp_path: Path) -> None:
    script = (
        "import asyncio, pathlib, sys\n"
        "from backends.engines.openvino import OpenVinoLauncher\n"
        "from backends.engines.recipes import load_recipe\n"
        "from backends.engines.supervisor import Supervisor\n"
        "from core.clock import SystemClock\n"
        "from policies.safe_yaml import load_yaml\n"
        "async def main():\n"
        "    launcher = OpenVinoLauncher(load_recipe('bundled-small-int4', load_yaml).spec)\n"
        "    supervisor = Supervisor(launcher, SystemClock(), pathlib.Path(sys.argv[1]))\n"
        "    supervisor.start()\n"
        "    print(await supervisor.wait_ready(60), flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    environment = os.environ | {"PYTHONPATH": str(SOURCE_ROOT)}
    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=subprocess.PIPE, env=environment
    )
    assert gateway.stdout is not None
    assert await gateway.stdout.readline() == b"True\n"
    group = _group_of(tmp_path)
    gateway.kill()
    await gateway.wait()
    await eventually(lambda: _is_gone(group))


async def _is_gone(pid: int) -> bool:
    try:
        return _state_of(pid) == "Z"
    except OSError:
        return True


def _state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def _run_worker(*arguments: str) -> tuple[int, str]:
    command = (sys.executable, "-m", "backends.engines.openvino_server", f"--model-dir={WEIGHTS}", "--name=x")
    process = await asyncio.create_subprocess_exec(
        *command, *arguments, stderr=subprocess.PIPE, env=OpenVinoLauncher(spec()).environment()
    )
    _, errors = await process.communicate()
    return process.returncode or 0, errors.decode()


async def test_a_taken_port_is_one_clear_line() -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, errors = await _run_worker(f"--port={taken.getsockname()[1]}")
    assert status == 2
    assert errors.count("\n") == 1
    assert "Address already in use; choose another port or stop its user" in errors


async def test_a_context_beyond_the_model_is_one_clear_line() -> None:
    status, errors = await _run_worker(f"--port={free_port()}", "--context-tokens=99999")
    assert status == 2
    assert errors.startswith("error: context_tokens is 99999, but the model was made for ")
    assert errors.endswith("; lower context_tokens\n")


async def test_weights_that_openvino_cannot_read_end_in_one_clear_line(tmp_path: Path) -> None:
    for file in WEIGHTS.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "openvino_model.xml").write_text("<net>this is no model</net>")
    status, errors = await _run_worker(f"--port={free_port()}", f"--model-dir={tmp_path}")
    assert status == 2
    assert errors.splitlines()[-1].startswith(f"error: OpenVINO cannot load {tmp_path}: ")
    assert errors.endswith("; convert the model again\n")


async def test_loading_openvino_starts_no_telemetry_and_writes_nothing_at_home(tmp_path: Path) -> None:
    script = (
        "import sys; from backends.engines.openvino_engine import import_openvino_genai\n"
        "import_openvino_genai()\n"
        "print([name for name, module in sys.modules.items() if 'openvino_telemetry' in name and module])"
    )
    environment = OpenVinoLauncher(spec()).environment() | {"HOME": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=subprocess.PIPE, env=environment
    )
    output, _ = await process.communicate()
    assert output.strip() == b"[]"
    assert os.listdir(tmp_path) == []
