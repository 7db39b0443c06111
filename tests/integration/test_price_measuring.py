"""A measured price from the bundled small model's real engine, taken over by the operator's file."""

from decimal import Decimal
from pathlib import Path

import pytest

from backends.engines.bare_environment import SOURCE_ROOT
from backends.engines.recipes import load_recipe
from core.clock import SystemClock
from core.errors import ConfigurationError
from gateway.hosting.deployments import build_hosting
from gateway.hosting.price_measuring import Effort, measure
from gateway.settings.deployments import HostedDeployment
from gateway.settings.measured_prices import measured_file
from gateway.settings.operator import load_settings
from gateway.settings.state import state_folder
from policies.measured_price import measured_text
from policies.safe_yaml import load_yaml

NAME = "bundled-small-int4"
WEIGHTS = SOURCE_ROOT / "backends" / "bundled" / "small-int4"
CONFIG = "tiers: {small: [tiny]}\ndeployments: {tiny: {recipe: bundled-small-int4, price: measured}}\n"

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not (WEIGHTS / "openvino_model.bin").exists(), reason="the bundled weights are not here"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="CPU time is read from /proc"),
]


async def test_an_engine_is_measured_and_its_deployment_costs_that(tmp_path: Path) -> None:
    config = tmp_path / "headgate.yaml"
    config.write_text(CONFIG)
    with pytest.raises(ConfigurationError, match=r"run `headgate prices measure bundled-small-int4`$"):
        load_settings(config)
    scratch = tmp_path / "scratch"

    measured, samples = await measure(
        load_recipe(NAME, load_yaml), Decimal("0.08"), Effort(concurrency=4, cpu_s=0.3), scratch, SystemClock()
    )

    assert measured.cpu_s_per_m_output > measured.cpu_s_per_m_input > 0
    long_prompt, long_answer = samples[:2]
    assert long_prompt.input_tokens > 500 * long_prompt.output_tokens
    assert long_answer.output_tokens > 2 * long_answer.input_tokens
    assert all(one.cpu_s > 0 for one in samples)
    assert not list(scratch.glob("engines/*.json")), "the engine was stopped and forgotten"

    file = measured_file(state_folder(config), NAME)
    file.parent.mkdir(parents=True)
    file.write_text(measured_text(measured))
    settings = load_settings(config)
    hosted = settings.deployments["tiny"]
    assert isinstance(hosted, HostedDeployment)
    price = build_hosting(settings, SystemClock(), lambda: True).deployment(hosted, str).price
    assert price == measured.price("f")
    assert 0 < price.input_pico_usd < price.output_pico_usd
    assert price.source == f"measured {measured.measured_at:%Y-%m-%dT%H:%M:%SZ} on {measured.engine}"


async def test_an_engine_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    text = (SOURCE_ROOT / "backends" / "recipes" / f"{NAME}.yaml").read_text()
    recipe = tmp_path / "wide.yaml"
    recipe.write_text(
        text.replace("../bundled/small-int4", str(WEIGHTS))
        .replace("context_tokens: 1024", "context_tokens: 999999")
        .replace("cache_tokens: 32768", "cache_tokens: 999999")
    )
    with pytest.raises(ConfigurationError, match=r"^recipe wide: .*lower context_tokens.*try again$") as caught:
        await measure(load_recipe(recipe, load_yaml), Decimal(1), Effort(), tmp_path / "scratch", SystemClock())
    assert "\n" not in caught.value.message
