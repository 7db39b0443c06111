"""Amounts are whole nano-USD, prices whole pico-USD per token, and nothing is lost between."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.money import NANO_PER_USD, Price, Usage, nano_usd, pico_usd_per_token, usd_text


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (1_500_000_000, "1.5"),
        (2 * NANO_PER_USD, "2"),
        (10 * NANO_PER_USD, "10"),
        (-1, "-0.000000001"),
        (-1_500_000_000, "-1.5"),
        (123_456_789_012_345_678_901, "123456789012.345678901"),
    ],
)
def test_nano_usd_is_written_as_a_plain_decimal(nano: int, text: str) -> None:
    assert usd_text(nano) == text


@settings(deadline=None)
@given(st.integers(-(10**24), 10**24) | st.integers(-1, NANO_PER_USD))
def test_a_written_amount_reads_back_as_the_same_amount(nano: int) -> None:
    assert nano_usd(Decimal(usd_text(nano))) == nano


@pytest.mark.parametrize(("usd", "nano"), [("500", 500 * NANO_PER_USD), ("0.000000001", 1), ("1E3", 10**12), ("0", 0)])
def test_usd_becomes_nano_usd(usd: str, nano: int) -> None:
    assert nano_usd(Decimal(usd)) == nano


@pytest.mark.parametrize(("per_m", "pico"), [("0.15", 150_000), ("0.000001", 1), ("60", 60_000_000), ("0", 0)])
def test_usd_per_million_becomes_pico_usd_per_token(per_m: str, pico: int) -> None:
    assert pico_usd_per_token(Decimal(per_m)) == pico


@pytest.mark.parametrize(
    "usd", ["0.0000000001", "NaN", "Infinity", "-Infinity", "1E+999999999", "1.00000000000000000000000000000001"]
)
def test_an_amount_that_is_not_whole_nano_usd_is_refused(usd: str) -> None:
    with pytest.raises(ValueError, match="not a finite amount"):
        nano_usd(Decimal(usd))


@pytest.mark.parametrize("per_m", ["0.0000001", "NaN", "Infinity"])
def test_a_price_that_is_not_whole_pico_usd_is_refused(per_m: str) -> None:
    with pytest.raises(ValueError, match="not a finite amount"):
        pico_usd_per_token(Decimal(per_m))


@pytest.mark.parametrize(
    ("price", "usage", "nano"),
    [
        (Price(150_000, 600_000), Usage(1000, 1000), 750_000),
        (Price(150_000, 600_000), Usage(0, 0), 0),
        (Price(1, 0), Usage(1, 0), 1),
        (Price(1, 0), Usage(1000, 0), 1),
        (Price(1, 0), Usage(1001, 0), 2),
        (Price(1, 1), Usage(500, 500), 1),
        (Price(0, 0, request_nano_usd=7), Usage(0, 0), 7),
        (Price(1, 0, request_nano_usd=7), Usage(1, 0), 8),
        (Price(1000, 0, cached_input_pico_usd=100), Usage(100, 0, cached_input_tokens=40), 64),
        (Price(1000, 0), Usage(100, 0, cached_input_tokens=40), 100),
        (Price(0, 1000, reasoning_pico_usd=3000), Usage(0, 100, reasoning_tokens=10), 120),
        (Price(0, 1000), Usage(0, 100, reasoning_tokens=10), 100),
        (Price(1000, 0, cached_input_pico_usd=0), Usage(100, 0, cached_input_tokens=100), 0),
    ],
)
def test_usage_is_priced_by_kind_and_rounded_up_once(price: Price, usage: Usage, nano: int) -> None:
    assert price.cost_nano_usd(usage) == nano


tokens = st.integers(0, 10**9)
prices = st.integers(0, 10**12)


@settings(deadline=None)
@given(tokens, tokens, prices, prices)
def test_a_cost_is_the_exact_price_rounded_up_to_the_next_nano_usd(
    given_tokens: int, made_tokens: int, given_price: int, made_price: int
) -> None:
    exact_pico = given_tokens * given_price + made_tokens * made_price
    cost = Price(given_price, made_price).cost_nano_usd(Usage(given_tokens, made_tokens))
    assert 0 <= cost * 1000 - exact_pico < 1000


@pytest.mark.parametrize("price", [Price(150, 601), Price(7, 3, 2, 5, request_nano_usd=9)])
def test_tokens_alone_cost_what_a_usage_of_them_costs(price: Price) -> None:
    for tokens in ((0, 0), (1, 0), (999, 1), (12_345, 6_789)):
        assert price.tokens_nano_usd(*tokens) == price.cost_nano_usd(Usage(*tokens))
    dearer = Price(price.input_pico_usd, price.output_pico_usd, price.input_pico_usd, price.output_pico_usd)
    assert dearer.cost_nano_usd(Usage(999, 77, 500, 70)) == dearer.tokens_nano_usd(999, 77)
