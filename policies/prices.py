"""A deployment's `price:` becomes exact integers; without one, or with a guess in it, start-up refuses.

A price is written out, or taken from the price table: `price: table` takes the row of the deployment's `model`,
`price: {table: NAME}` another one. `Price.source` tells where the figures come from: `configuration`, what the file
says itself, or `table:WHERE@DATE`, or `measured TIME on ENGINE`: `price: measured` of a hosted deployment takes what
`headgate prices measure` found (`policies.measured_price`).
"""

import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from hashlib import blake2b

from msgspec import Struct

from core.errors import ConfigurationError
from core.money import Price, nano_usd, pico_usd_per_token
from policies.schema import convert, nearest

MAX_USD = 1_000_000
"""No price per million tokens or per request is larger; a figure above is a slip in the unit."""
TABLE = "table"
MEASURED = "measured"
_DATE = re.compile(r"@(\d{4}-\d{2}-\d{2})\Z")


class PriceEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """Prices as written: USD per million tokens and USD per request."""

    input_usd_per_m: Decimal
    output_usd_per_m: Decimal
    cached_input_usd_per_m: Decimal | None = None
    reasoning_usd_per_m: Decimal | None = None
    usd_per_request: Decimal = Decimal(0)
    source: str = "configuration"


class TableEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """A reference to a row of the price table."""

    table: str


def parse_price(
    raw: object, file: str, key: str, *, table: Mapping[str, Price] | None = None, model: str | None = None
) -> Price:
    """Turn what `load_yaml` returned for `price:` into a price.

    Args:
        raw: a mapping of figures, `table`, or `{table: NAME}`.
        file: the name used in errors.
        key: where the price stands, such as `deployments.a.price`.
        table: the price table, where references are allowed.
        model: the row that `table` alone means.

    Raises:
        ConfigurationError: the price is missing, negative, not finite, finer than a pico-USD per token, or refers to a
            row that the table does not have.
    """
    if raw is None:
        mend = 'add input_usd_per_m and output_usd_per_m (write "0" for a model that costs nothing)'
        raise ConfigurationError(file, key, "a deployment without a price cannot be budgeted", mend)
    if raw == MEASURED:
        problem, mend = "only a deployment with a recipe can be measured", "write the figures out, or `table`"
        raise ConfigurationError(file, key, problem, mend)
    if raw == TABLE:
        if model is None:
            raise ConfigurationError(file, key, "a recipe names no row of the price table", "write {table: NAME}")
        return _listed(model, file, key, table)
    if isinstance(raw, Mapping) and TABLE in raw:
        return _listed(convert(raw, TableEntry, file, key).table, file, f"{key}.{TABLE}", table)
    entry = convert(raw, PriceEntry, file, key)
    if (
        entry.source.startswith((f"{TABLE}:", f"{MEASURED} "))
        or not entry.source.isprintable()
        or len(entry.source) > 200
    ):
        raise ConfigurationError(file, f"{key}.source", "not a short note of your own", "name a page or a contract")
    return exact_price(entry, file, key)


def exact_price(entry: PriceEntry, file: str, key: str) -> Price:
    """Count `entry` in integers.

    Raises:
        ConfigurationError: a figure is negative, not finite, absurdly large or too fine.
    """

    def exact(name: str, usd: Decimal, unit: Callable[[Decimal], int]) -> int:
        if not usd.is_finite() or not 0 <= usd <= MAX_USD:
            raise ConfigurationError(file, f"{key}.{name}", f"{usd} is not a price", f"write 0 to {MAX_USD}")
        try:
            return unit(usd)
        except (ValueError, ArithmeticError) as problem:
            mend = "use at most six decimal places per million tokens, nine per request"
            raise ConfigurationError(file, f"{key}.{name}", f"{usd} is too fine", mend) from problem

    def per_token(name: str, usd: Decimal | None) -> int | None:
        return None if usd is None else exact(name, usd, pico_usd_per_token)

    return Price(
        input_pico_usd=exact("input_usd_per_m", entry.input_usd_per_m, pico_usd_per_token),
        output_pico_usd=exact("output_usd_per_m", entry.output_usd_per_m, pico_usd_per_token),
        cached_input_pico_usd=per_token("cached_input_usd_per_m", entry.cached_input_usd_per_m),
        reasoning_pico_usd=per_token("reasoning_usd_per_m", entry.reasoning_usd_per_m),
        request_nano_usd=exact("usd_per_request", entry.usd_per_request, nano_usd),
        source=entry.source,
    )


def price_version(prices: Mapping[str, Price]) -> str:
    """Return the version of the prices in force, for stamping on rows: the newest table date and a digest of all.

    The digest changes when a figure, a source or the set of deployments does; `undated` without a row of the table.
    """
    digest = blake2b(digest_size=6)
    for name, price in sorted(prices.items()):
        figures = (
            price.input_pico_usd,
            price.output_pico_usd,
            price.cached_input_pico_usd,
            price.reasoning_pico_usd,
            price.request_nano_usd,
            price.source,
        )
        digest.update(f"{name}={figures}\n".encode())
    dates = [as_of.isoformat() for price in prices.values() if (as_of := price_date(price)) is not None]
    return f"{max(dates, default='undated')}@{digest.hexdigest()}"


def price_date(price: Price) -> date | None:
    """Return the day on which a price of the table was known to hold, None for any other."""
    found = _DATE.search(price.source) if price.source.startswith(f"{TABLE}:") else None
    return None if found is None else date.fromisoformat(found.group(1))


def _listed(name: str, file: str, key: str, table: Mapping[str, Price] | None) -> Price:
    if table is None:
        raise ConfigurationError(file, key, "the price table cannot be used here", "write the figures out")
    price = table.get(name)
    if price is None:
        close = nearest(name, table)
        mend = f"did you mean {close!r}?" if close else "write its figures out, or add it with `headgate prices import`"
        raise ConfigurationError(file, key, f"the price table has no {name[:80]!r}", mend)
    return price
