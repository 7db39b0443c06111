"""Prices are exact integers or start-up refuses."""

from datetime import date

import pytest

from core.errors import ConfigurationError
from core.money import Price
from policies.prices import parse_price, price_date, price_version
from policies.safe_yaml import parse_yaml

TABLE = {"gpt-4o": Price(2_500_000, 10_000_000, source="table:openai.com@2025-07-04")}


def price(yaml: str, table: dict[str, Price] | None = None, model: str | None = None) -> Price:
    raw = parse_yaml(yaml, "headgate.yaml")
    return parse_price(raw, "headgate.yaml", "deployments.cloud.price", table=table, model=model)


def test_all_parts_become_integers() -> None:
    assert price(
        '{input_usd_per_m: "0.15", output_usd_per_m: 0.60, cached_input_usd_per_m: 0.075, '
        'reasoning_usd_per_m: 1, usd_per_request: "0.0001", source: "list of May"}'
    ) == Price(150_000, 600_000, 75_000, 1_000_000, 100_000, "list of May")


def test_unquoted_decimals_are_read_through_their_text() -> None:
    assert price("{input_usd_per_m: 0.1, output_usd_per_m: 0.3}") == Price(100_000, 300_000)
    assert 0.1 * 3 != 0.3  # what binary floats would have made of it


def test_zero_is_a_price_and_nothing_is_not() -> None:
    assert price('{input_usd_per_m: "0", output_usd_per_m: 0}').input_pico_usd == 0
    with pytest.raises(ConfigurationError, match=r"deployments\.cloud\.price: a deployment without a price cannot"):
        price("")


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        ("{input_usd_per_m: 1}", "the key 'output_usd_per_m' is missing"),
        (
            "{input_usd_per_m: -1, output_usd_per_m: 1}",
            r"price\.input_usd_per_m: -1 is not a price; write 0 to 1000000",
        ),
        ("{input_usd_per_m: '0.0000001', output_usd_per_m: 1}", "1E-7 is too fine"),
        ("{input_usd_per_m: 2000000, output_usd_per_m: 1}", "2000000 is not a price"),
        ("{input_usd_per_m: 1, output_usd_per_m: nan}", "NaN is not a price"),
        ("{input: 1, output_usd_per_m: 1}", "unknown key 'input'; did you mean 'input_usd_per_m'"),
    ],
)
def test_a_price_that_is_not_one_is_refused(yaml: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        price(yaml)


def test_a_price_may_refer_to_the_table_by_the_deployments_model_or_by_name() -> None:
    assert price("table", TABLE, "gpt-4o") == TABLE["gpt-4o"]
    assert price("{table: gpt-4o}", TABLE, "another") == TABLE["gpt-4o"]


@pytest.mark.parametrize(
    ("yaml", "table", "model", "says"),
    [
        ("table", TABLE, "gpt-4", r"price: the price table has no 'gpt-4'; did you mean 'gpt-4o'"),
        ("table", TABLE, "llama", r"price: the price table has no 'llama'; write its figures out, or add it with"),
        ("{table: llama}", TABLE, "gpt-4o", r"price\.table: the price table has no 'llama'"),
        ("table", TABLE, None, "a recipe names no row of the price table; write {table: NAME}"),
        ("table", None, "gpt-4o", "the price table cannot be used here; write the figures out"),
        ("{table: gpt-4o, input_usd_per_m: 1}", TABLE, None, "price: unknown key 'input_usd_per_m'"),
        ("tabel", TABLE, "gpt-4o", "price: expected object, got str; write a mapping"),
        (
            "{input_usd_per_m: 1, output_usd_per_m: 1, source: 'table:x@2025-13-01'}",
            None,
            None,
            "source: not a short note",
        ),
    ],
)
def test_an_unknown_row_is_never_a_price_of_zero(
    yaml: str, table: dict[str, Price] | None, model: str | None, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        price(yaml, table, model)


def test_the_version_of_prices_follows_figures_sources_and_the_set() -> None:
    own = Price(1, 2)
    version = price_version({"a": TABLE["gpt-4o"], "b": own})
    assert version.startswith("2025-07-04@")
    assert version == price_version({"b": own, "a": TABLE["gpt-4o"]})
    others = [
        {"a": own},
        {"a": TABLE["gpt-4o"], "b": Price(1, 3)},
        {"a": TABLE["gpt-4o"], "b": Price(1, 2, source="x")},
    ]
    assert len({version, *(price_version(prices) for prices in others)}) == 4
    assert price_version({"a": own}).startswith("undated@")


def test_only_prices_of_the_table_have_a_date() -> None:
    assert price_date(TABLE["gpt-4o"]) == date(2025, 7, 4)
    assert price_date(Price(1, 2, source="mail of@2025-07-04")) is None
