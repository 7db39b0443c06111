"""Measured prices: the arithmetic, the file, and what a file is refused for."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from core.errors import ConfigurationError
from core.money import Price
from policies.measured_price import (
    MeasuredPrice,
    Sample,
    check_hourly_usd,
    check_same,
    cpu_s_per_m,
    measured_text,
    parse_measured,
    usd_per_m,
)
from policies.safe_yaml import parse_yaml

MEND = "run `headgate prices measure tiny`"
MEASURED = MeasuredPrice(
    recipe="tiny",
    engine="engine 1.2",
    precision="int4",
    weights_digest="blake2b:00",
    measured_at=datetime(2026, 8, 1, 12, 30, 5, tzinfo=UTC),
    hourly_usd=Decimal("0.08"),
    cores=2,
    concurrency=8,
    cpu_s_per_m_input=Decimal("12.608"),
    cpu_s_per_m_output=Decimal("77.795"),
)


def sample(inputs: int, outputs: int, cpu_s: str) -> Sample:
    return Sample(inputs, outputs, Fraction(cpu_s))


def refusal(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_measured(parse_yaml(text, "tiny.yaml"), "tiny.yaml", MEND)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_two_workloads_tell_input_from_output() -> None:
    samples = (sample(1_000_000, 1_000, "20.2"), sample(1_000, 1_000_000, "200.02"))
    assert cpu_s_per_m(samples) == (Decimal("20.000"), Decimal("200.000"))


def test_noise_is_averaged_by_least_squares() -> None:
    samples = (sample(1_000_000, 0, "19"), sample(1_000_000, 0, "21"), sample(0, 1_000_000, "200"))
    assert cpu_s_per_m(samples) == (Decimal("20.000"), Decimal("200.000"))


def test_a_cost_is_rounded_up() -> None:
    assert cpu_s_per_m((sample(3_000_000, 0, "1"), sample(0, 1_000_000, "1"))) == (Decimal("0.334"), Decimal("1.000"))


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([sample(10, 10, "1"), sample(20, 20, "2")], "cannot tell input from output"),
        ([], "cannot tell input from output"),
        ([sample(1000, 10, "1"), sample(1000, 1000, "0.5")], "no CPU time is left for output"),
        ([sample(10, 1000, "1"), sample(1000, 1000, "0.5")], "no CPU time is left for input"),
        ([sample(1000, 1, "0"), sample(1, 1000, "0")], "no CPU time is left for input"),
    ],
)
def test_figures_that_would_make_a_token_free_are_refused(samples: list[Sample], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        cpu_s_per_m(samples)


@given(
    per_input=st.integers(1, 10**6),
    per_output=st.integers(1, 10**6),
    tokens=st.tuples(*[st.integers(1, 10**5)] * 4),
)
def test_exact_samples_give_back_their_costs(per_input: int, per_output: int, tokens: tuple[int, ...]) -> None:
    a, b, c, d = tokens
    assume(a * d != b * c)
    costs = [Sample(i, o, Fraction(i * per_input + o * per_output, 10**6)) for i, o in ((a, b), (c, d))]
    assert cpu_s_per_m(costs) == (Decimal(per_input), Decimal(per_output))


def test_a_price_is_the_machines_share_of_an_hour_rounded_up() -> None:
    assert usd_per_m(Decimal(90_000), Decimal("0.08"), 2) == Decimal(1)
    assert usd_per_m(Decimal("0.001"), Decimal("0.08"), 64) == Decimal("0.000001")
    assert MEASURED.price("f") == Price(141, 865, source="measured 2026-08-01T12:30:05Z on engine 1.2")


def test_a_file_is_read_back_as_it_was_measured() -> None:
    assert parse_measured(parse_yaml(measured_text(MEASURED), "f"), "f", MEND) == MEASURED


def test_text_in_a_file_cannot_add_keys() -> None:
    odd = replace(MEASURED, recipe='tiny"\ncores: 1', engine="a: [b] # é")
    assert parse_measured(parse_yaml(measured_text(odd), "f"), "f", MEND) == odd


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("cores: 2", "cores: 2\nflavour: mint", "flavour"),
        ("cores: 2\n", "", "cores"),
        ("cores: 2", "cores: 0", "cores"),
        ("cores: 2", "cores: 1", f"input_usd_per_m: does not follow from the other figures; {MEND}"),
        ('"0.000865"', '"0.000001"', f"output_usd_per_m: does not follow from the other figures; {MEND}"),
        ("source: ", "source: our contract #", f"source: does not follow from the other figures; {MEND}"),
        ('"0.08"', '"0"', "hourly_usd: 0 is not an hour's price; write for example 0.08"),
        ('"0.08"', '"1E-999999999"', "hourly_usd: 1E-999999999 is not an hour's price"),
        ('"0.08"', '"1E+999999999"', "hourly_usd: 1E+999999999 is not an hour's price"),
        ('"12.608"', '"NaN"', f"cpu_s_per_m_input: NaN is not a measured cost; {MEND}"),
        ('"77.795"', '"-1"', f"cpu_s_per_m_output: -1 is not a measured cost; {MEND}"),
        ("05Z", "05", f"measured_at: the time is not in UTC; {MEND}"),
        ("2026-08-01T12:30:05Z", "0001-01-01T00:00:00+14:00", "measured_at: the time is not in UTC"),
    ],
)
def test_a_changed_file_is_refused_with_file_key_and_mend(old: str, new: str, words: str) -> None:
    message = refusal(measured_text(MEASURED).replace(old, new, 1))
    assert message.startswith("tiny.yaml: ")
    assert words in message


@pytest.mark.parametrize("text", ["", "- 1", "text"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    assert refusal(text).startswith("tiny.yaml")


@pytest.mark.parametrize(
    ("own", "key"),
    [
        (("other", "int4", "blake2b:00"), "recipe"),
        (("tiny", "fp16", "blake2b:00"), "precision"),
        (("tiny", "int4", "blake2b:01"), "weights_digest"),
    ],
)
def test_a_measurement_of_something_else_is_refused(own: tuple[str, str, str], key: str) -> None:
    check_same(MEASURED, "tiny", "int4", "blake2b:00", "f", MEND)
    with pytest.raises(
        ConfigurationError, match=f"^f: {key}: was measured for .*; run `headgate prices measure tiny`$"
    ):
        check_same(MEASURED, *own, "f", MEND)


@pytest.mark.parametrize("hour", ["0", "-1", "NaN", "Infinity", "1000001"])
def test_an_hour_without_a_price_is_refused(hour: str) -> None:
    with pytest.raises(ConfigurationError, match="is not an hour's price"):
        check_hourly_usd(Decimal(hour), "recipe tiny", "hourly_usd")


def test_the_published_measurements_follow_from_their_figures() -> None:
    rows = parse_yaml((Path(__file__).parents[2] / "benchmarks/results/measured_prices.json").read_text(), "f")
    assert isinstance(rows, dict)
    for row in rows["rows"]:
        assert all(one["cpu_s"] > 0 for one in row.pop("samples"))
        assert parse_measured(row, "f", MEND).recipe.startswith("bundled-")
