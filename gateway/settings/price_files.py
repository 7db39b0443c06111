"""The key `prices`: the operator's own price file, which lies over the shipped table."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from core.money import Price
from policies.price_table import load_price_table
from policies.prices import TABLE
from policies.safe_yaml import parse_yaml, read_text
from policies.schema import convert


def prices_path(path: Path) -> Path | None:
    """Return the operator's own price file as `prices` names it, whether or not it exists yet.

    Raises:
        ConfigurationError: the operator's file cannot be read, or the key is no text.
    """
    raw = parse_yaml(read_text(path), str(path))
    written = raw.get("prices") if isinstance(raw, dict) else None
    return None if written is None else path.resolve().parent / convert(written, str, str(path), "prices")


def referred_table(prices: Iterable[object], prices_file: Path | None) -> Mapping[str, Price]:
    """Return the price table where one of `prices` refers to it, or the operator has one, which must then be valid.

    Raises:
        ConfigurationError: the operator's price file cannot be used.
    """
    refers = any(price == TABLE or (isinstance(price, Mapping) and TABLE in price) for price in prices)
    return load_price_table(prices_file).prices() if refers or prices_file is not None else {}
