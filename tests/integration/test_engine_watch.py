"""Looks at a running worker, and what is told of it afterwards."""

from pathlib import Path

import httpx
import pytest

from backends.engines.engine_watch import EngineWatch
from core.clock import SystemClock
from gateway.telemetry.engine_work import EngineWork
from tests.integration.test_hosting import PATIENCE_S, hosting_of, settings_of
from tests.integration.test_supervisor import FakeLauncher, running


@pytest.mark.engine
async def test_a_worker_tells_its_work_in_our_words(tmp_path: Path) -> None:
    hosting = hosting_of(settings_of(tmp_path, "bundled-small-int4"), alone=True)
    engine, watch = hosting.supervisors["engine"], hosting.watch
    async with hosting.running(), httpx.AsyncClient(trust_env=False) as client:
        assert await engine.wait_ready(PATIENCE_S)
        await watch.look(client, "engine")
        body = {"model": engine.model, "messages": [{"role": "user", "content": "Sort these numbers: 7 3 9"}]}
        answer = await client.post(f"{engine.base_url}/chat/completions", json=body)
        told: list[tuple[str, float, float]] = []
        await watch.look(client, "engine", lambda *load: told.append(load))
        assert told == [("engine", 0.0, 0.0)]
        look = watch.last("engine")
        assert look is not None
        assert look.figures.output_tokens is not None
        assert look.figures.output_tokens >= answer.json()["usage"]["completion_tokens"]
        assert look.rates.ttft_ms is not None
        assert look.figures.prefix_hit_tokens is None
        names = {
            sample.name
            for metric in EngineWork(lambda: ["engine"], watch, lambda: ()).collect()
            for sample in metric.samples
        }
        assert {"headgate_engine_queue_depth", "headgate_engine_output_tokens_total"} <= names
        assert "headgate_engine_prefix_hit_tokens_total" not in names
    assert watch.last("engine") is None


async def test_an_engine_without_metrics_has_no_figures(tmp_path: Path) -> None:
    async with running(FakeLauncher(), tmp_path) as watched, httpx.AsyncClient(trust_env=False) as client:
        assert await watched.supervisor.wait_ready(30)
        watch = EngineWatch({"fake": watched.supervisor}, {"fake": "command"}, SystemClock())
        await watch.look(client, "fake")
        look = watch.last("fake")
        assert look is not None
        assert look.figures.running is None
