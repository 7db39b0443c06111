"""Money as integers: nano-USD for amounts, pico-USD per token for prices.

A pico-USD per token is numerically a micro-USD per million tokens, so `0.15` USD per million is the integer 150_000.
"""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import msgspec

NANO_PER_USD = 1_000_000_000
PICO_PER_NANO = 1_000
MAX_EXPONENT = 30
"""No amount from configuration is larger; spelling out `1E+999999999` would take all memory."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Token counts of one call; `input_tokens` includes `cached_input_tokens`, `output_tokens` includes reasoning."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Price:
    """What one deployment costs: pico-USD per token by kind, nano-USD per request, and where the figures come from."""

    input_pico_usd: int
    output_pico_usd: int
    cached_input_pico_usd: int | None = None
    reasoning_pico_usd: int | None = None
    request_nano_usd: int = 0
    source: str = "configuration"

    def cost_nano_usd(self, usage: Usage) -> int:
        """Price `usage`, rounded up once per call to a whole nano-USD."""
        if not (usage.cached_input_tokens or usage.reasoning_tokens):
            return self.tokens_nano_usd(usage.input_tokens, usage.output_tokens)
        cached = usage.cached_input_tokens if self.cached_input_pico_usd is not None else 0
        reasoning = usage.reasoning_tokens if self.reasoning_pico_usd is not None else 0
        pico = (usage.input_tokens - cached) * self.input_pico_usd
        pico += cached * (self.cached_input_pico_usd or 0)
        pico += (usage.output_tokens - reasoning) * self.output_pico_usd
        pico += reasoning * (self.reasoning_pico_usd or 0)
        return self.request_nano_usd - (-pico // PICO_PER_NANO)

    def tokens_nano_usd(self, input_tokens: int, output_tokens: int) -> int:
        """Price tokens of which none were cached and none spent on reasoning, rounded up to a whole nano-USD."""
        pico = input_tokens * self.input_pico_usd + output_tokens * self.output_pico_usd
        return self.request_nano_usd - (-pico // PICO_PER_NANO)


def usd_text(nano_usd: int) -> str:
    """Write nano-USD as a plain decimal number of USD without trailing zeros, for headers, logs and tables."""
    if 0 < nano_usd < NANO_PER_USD:
        return ("0.%09d" % nano_usd).rstrip("0")  # noqa: UP031  a third of an f-string's time; each request needs two
    sign, whole = ("-", -nano_usd) if nano_usd < 0 else ("", nano_usd)
    units, fraction = divmod(whole, NANO_PER_USD)
    digits = f"{fraction:09d}".rstrip("0")
    return f"{sign}{units}.{digits}" if digits else f"{sign}{units}"


def nano_usd(usd: Decimal) -> int:
    """Turn a decimal number of USD from configuration into nano-USD.

    Raises:
        ValueError: `usd` is not finite or has more than nine decimal places.
    """
    return _whole(usd, 9)


def pico_usd_per_token(usd_per_m: Decimal) -> int:
    """Turn USD per million tokens from configuration into pico-USD per token.

    Raises:
        ValueError: the price is not finite or has more than six decimal places.
    """
    return _whole(usd_per_m, 6)


def _whole(amount: Decimal, places: int) -> int:
    if amount.is_finite() and abs(amount.adjusted()) <= MAX_EXPONENT:
        exact = Fraction(amount) * Fraction(10) ** places
        if exact.denominator == 1:
            return int(exact)
    raise ValueError(f"{amount} is not a finite amount in whole units")
