"""Hosted deployments: whose prefixes are kept apart and how, also when a second tenant joins a running gateway."""

import asyncio
from pathlib import Path

import pytest

from backends.engines.engine_state import EngineState
from core.clock import SystemClock
from gateway.hosting.deployments import Hosting, build_hosting
from gateway.settings.deployments import HostedDeployment
from gateway.settings.operator import Settings, load_settings

PATIENCE_S = 60
OPERATOR = """
tiers: {{small: [{first}]}}
deployments:
  {first}: {{recipe: {recipe}}}
"""


def settings_of(folder: Path, recipe: str) -> Settings:
    file = folder / "headgate.yaml"
    file.write_text(OPERATOR.format(first="engine", recipe=recipe))
    return load_settings(file)


def hosting_of(settings: Settings, *, alone: bool = False) -> Hosting:
    return build_hosting(settings, SystemClock(), lambda: alone)


def hosted(settings: Settings) -> HostedDeployment:
    found = settings.deployments["engine"]
    assert isinstance(found, HostedDeployment)
    return found


@pytest.mark.parametrize(
    ("recipe", "salted"), [("qwen3-8b-awq-vllm", True), ("bundled-small-int4", False), ("qwen3-8b-sglang", False)]
)
def test_tenants_are_salted_on_engines_that_keep_them_apart(tmp_path: Path, recipe: str, salted: bool) -> None:
    settings = settings_of(tmp_path, recipe)
    salt = hosting_of(settings).deployment(hosted(settings), lambda tenant: f"salt of {tenant}").salt
    assert (salt is not None and salt("acme")) == ("salt of acme" if salted else False)


@pytest.mark.engine
async def test_a_second_tenant_ends_the_prefix_cache_of_an_engine_that_mixes_tenants(tmp_path: Path) -> None:
    tenants = ["one"]
    hosting = build_hosting(settings_of(tmp_path, "bundled-small-int4"), SystemClock(), lambda: len(tenants) <= 1)
    engine = hosting.supervisors["engine"]
    async with hosting.running():
        assert await engine.wait_ready(PATIENCE_S)
        before = engine.group
        assert b"--prefix-caching" in command_line(before)
        tenants.append("two")
        async with asyncio.timeout(PATIENCE_S):
            while engine.state is not EngineState.READY or engine.group == before:  # noqa: ASYNC110 - two facts at once
                await asyncio.sleep(0.02)
        assert b"--prefix-caching" not in command_line(engine.group)
        assert engine.failures == 0


def command_line(pid: int | None) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
