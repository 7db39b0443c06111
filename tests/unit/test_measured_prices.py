"""`price: measured` in the operator's file, and the command's refusals that need no engine."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from backends.engines.weights_digest import weights_digest
from core.errors import ConfigurationError
from core.money import Price
from gateway.cli import build_parser
from gateway.commands.prices import run_measure
from gateway.settings.deployments import HostedDeployment
from gateway.settings.measured_prices import measured_file
from gateway.settings.operator import load_settings
from gateway.settings.state import state_folder
from policies.measured_price import MeasuredPrice, measured_text

RECIPE = """\
engine: openvino
weights: weights
precision: int8
model: tiny
memory_bytes: 1000
context_tokens: 100
max_output_tokens: 50
price: {input_usd_per_m: "1", output_usd_per_m: "2"}
"""
CONFIG = """\
state: sqlite:state/h.db
tiers: {{small: [tiny]}}
deployments: {{tiny: {{recipe: "{recipe}", price: measured}}}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An operator's file whose one deployment takes its price from a measurement that is not there yet."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.bin").write_bytes(b"weights")
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    file = tmp_path / "headgate.yaml"
    file.write_text(CONFIG.format(recipe=tmp_path / "tiny.yaml"))
    return file


def measured(config: Path) -> MeasuredPrice:
    return MeasuredPrice(
        recipe="tiny",
        engine="engine 1.2",
        precision="int8",
        weights_digest=weights_digest(config.parent / "weights", "tiny"),
        measured_at=datetime(2026, 8, 1, tzinfo=UTC),
        hourly_usd=Decimal("3.6"),
        cores=1,
        concurrency=1,
        cpu_s_per_m_input=Decimal(2),
        cpu_s_per_m_output=Decimal(3),
    )


def write(config: Path, content: MeasuredPrice) -> Path:
    file = measured_file(state_folder(config), "tiny")
    file.parent.mkdir(parents=True)
    file.write_text(measured_text(content))
    return file


def refusal(config: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(config)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_deployment_takes_the_measured_price_and_says_so(config: Path) -> None:
    file = write(config, measured(config))
    assert file == config.parent / "state/prices/tiny.yaml"
    price = Price(2_000, 3_000, source="measured 2026-08-01T00:00:00Z on engine 1.2")
    recipe = str(config.parent / "tiny.yaml")
    assert load_settings(config).deployments["tiny"] == HostedDeployment("tiny", recipe, price)


def test_without_a_measurement_nothing_starts(config: Path) -> None:
    message = refusal(config)
    assert message.startswith(f"{config}: deployments.tiny.price: there is no measurement of ")
    assert message.endswith(f"; run `headgate prices measure {config.parent / 'tiny.yaml'}`")


@pytest.mark.parametrize("changes", [{"recipe": "other"}, {"precision": "int4"}, {"weights_digest": "blake2b:00"}])
def test_a_foreign_measurement_is_refused_with_the_mend(config: Path, changes: dict[str, str]) -> None:
    file = write(config, replace(measured(config), **changes))  # type: ignore[arg-type]
    message = refusal(config)
    assert message.startswith(f"{file}: {next(iter(changes))}: was measured for ")
    assert "; run `headgate prices measure " in message


def test_new_weights_need_a_new_measurement(config: Path) -> None:
    write(config, measured(config))
    (config.parent / "weights" / "model.bin").write_bytes(b"retrained")
    assert ": weights_digest: was measured for " in refusal(config)


def test_what_is_not_hosted_cannot_be_measured(config: Path) -> None:
    config.write_text(
        'tiers: {a: [b]}\ndeployments: {b: {backend: remote, base_url: "https://host/v1", model: m, price: measured}}'
    )
    assert "deployments.b.price: only a deployment with a recipe can be measured; write the figures" in refusal(config)


def test_written_figures_cannot_claim_to_be_measured(config: Path) -> None:
    price = '{input_usd_per_m: "1", output_usd_per_m: "1", source: "measured 2026-08-01 on x"}'
    config.write_text(f"tiers: {{a: [b]}}\ndeployments: {{b: {{recipe: r, price: {price}}}}}")
    assert "deployments.b.price.source: not a short note of your own" in refusal(config)


def test_the_states_folder_is_known_before_the_rest_of_the_file_is_right(tmp_path: Path) -> None:
    file = tmp_path / "headgate.yaml"
    for state, folder in (("sqlite:a/b.db", "a"), ("redis://127.0.0.1:1/0", "var"), ("sqlite:${WHERE}/b.db", "there")):
        file.write_text(f'environment: [WHERE]\nstate: "{state}"\ntiers: {{}}\n')
        assert state_folder(file, {"WHERE": "there"}) == tmp_path / folder


def measure(*arguments: str) -> int:
    return run_measure(build_parser().parse_args(["prices", "measure", *arguments]))


def test_the_command_refuses_without_the_price_of_an_hour(config: Path) -> None:
    with pytest.raises(ConfigurationError, match="recipe tiny: hourly_usd: nobody says what an hour costs"):
        measure(str(config.parent / "tiny.yaml"), "--config", str(config))


def test_the_command_says_what_the_weights_lack_and_writes_nothing(config: Path) -> None:
    out = config.parent / "out.yaml"
    with pytest.raises(ConfigurationError, match=r"^recipe tiny: "):
        measure(str(config.parent / "tiny.yaml"), "--hourly-usd", "0.08", "--out", str(out))
    assert not out.exists()


@pytest.mark.parametrize("option", [("--hourly-usd", "much"), ("--concurrency", "0"), ("--concurrency", "65")])
def test_the_command_refuses_options_that_say_nothing(
    option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        measure("bundled-small-int4", *option)
    assert option[1] in capsys.readouterr().err
