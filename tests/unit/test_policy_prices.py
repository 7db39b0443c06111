"""Prices are exact integers or start-up refuses."""

import pytest

from core.errors import ConfigurationError
from core.money import Price
from policies.prices import parse_price
from policies.safe_yaml import parse_yaml


def price(yaml: str) -> Price:
    return parse_price(parse_yaml(yaml, "headgate.yaml"), "headgate.yaml", "deployments.cloud.price")


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
