"""The transformers engine on a CUDA device: both halves, and the memory that it declares."""

import shutil
from pathlib import Path

import httpx
import pytest

from backends.engines.devices import device_bytes
from backends.engines.engine_state import Timings
from backends.engines.launcher import EngineSpec
from backends.engines.supervisor import Supervisor
from backends.engines.transformers import TransformersLauncher
from core.clock import SystemClock
from tests.tiny_llama import CONTEXT_TOKENS, write_tiny_llama

PATIENCE_S = 300

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.engine,
    pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="there is no CUDA device"),
]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
async def test_a_model_on_the_gpu_answers_and_streams(tmp_path: Path, precision: str) -> None:
    assert device_bytes("cuda:0") > 1 << 30
    spec = EngineSpec(
        name="cuda",
        model="tiny",
        model_dir=write_tiny_llama(tmp_path / "weights"),
        precision=precision,  # type: ignore[arg-type]
        memory_bytes=1 << 30,
        context_tokens=CONTEXT_TOKENS,
        max_output_tokens=256,
        start_timeout_s=PATIENCE_S,
        devices=("cuda:0",),
        options={"page_tokens": 256},
    )
    supervisor = Supervisor(TransformersLauncher(spec), SystemClock(), tmp_path, timings=Timings())
    supervisor.start()
    try:
        assert await supervisor.wait_ready(PATIENCE_S), (supervisor.last_error, supervisor.logs()[-20:])
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64, "temperature": 0}
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
            url = f"{supervisor.base_url}/chat/completions"
            whole = (await client.post(url, json=body | {"ignore_eos": True})).json()
            streamed = (await client.post(url, json=body | {"ignore_eos": True, "stream": True})).text
        assert whole["usage"]["completion_tokens"] == 64
        assert streamed.endswith("data: [DONE]\n\n")
    finally:
        await supervisor.stop()
