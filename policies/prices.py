"""A deployment's `price:` mapping becomes exact integers; without one, or with a guess in it, start-up refuses."""

from collections.abc import Callable
from decimal import Decimal

from msgspec import Struct

from core.errors import ConfigurationError
from core.money import Price, nano_usd, pico_usd_per_token
from policies.schema import convert

MAX_USD = 1_000_000
"""No price per million tokens or per request is larger; a figure above is a slip in the unit."""


class PriceEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """Prices as written: USD per million tokens and USD per request."""

    input_usd_per_m: Decimal
    output_usd_per_m: Decimal
    cached_input_usd_per_m: Decimal | None = None
    reasoning_usd_per_m: Decimal | None = None
    usd_per_request: Decimal = Decimal(0)
    source: str = "configuration"


def parse_price(raw: object, file: str, key: str) -> Price:
    """Turn what `load_yaml` returned for `price:` into a price; `key` says where, such as `deployments.a.price`.

    Raises:
        ConfigurationError: the price is missing, negative, not finite, or finer than a pico-USD per token.
    """
    if raw is None:
        mend = 'add input_usd_per_m and output_usd_per_m (write "0" for a model that costs nothing)'
        raise ConfigurationError(file, key, "a deployment without a price cannot be budgeted", mend)
    entry = convert(raw, PriceEntry, file, key)

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
