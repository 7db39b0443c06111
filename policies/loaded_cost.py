"""What a hosted engine really costs: the hour that it holds, beside what its tokens were priced at, idle time apart.

Tokens are priced at their marginal cost, by which requests are routed and charged. The machine's hour is paid whether
or not anybody asks; an engine carries the share of it that its declared memory is of all engines' on the machine:

    held = hourly * share * up / 3600        idle = hourly * share * (up - busy) / 3600        ratio = held / marginal

so a token's fully loaded cost is its price times the ratio. That figure is for reports, never for routing: a tier that
is little used would look dear and be used even less.
"""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from core.money import NANO_PER_USD

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, slots=True)
class EngineUse:
    """What an engine did in some time: seconds up, seconds with a request under way, tokens, their price."""

    up_s: float = 0.0
    busy_s: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    marginal_nano_usd: int = 0

    def __add__(self, other: "EngineUse") -> "EngineUse":
        """Return both together."""
        return EngineUse(
            self.up_s + other.up_s,
            self.busy_s + other.busy_s,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.marginal_nano_usd + other.marginal_nano_usd,
        )


@dataclass(frozen=True, slots=True)
class LoadedCost:
    """What an engine's use cost fully loaded; `idle_nano_usd` is part of `held_nano_usd`.

    `ratio` is fully loaded / marginal: what a token's price is multiplied by; None while no token was served.
    """

    held_nano_usd: int
    idle_nano_usd: int
    ratio: float | None


def loaded_cost(use: EngineUse, hourly_usd: Decimal, share: Fraction) -> LoadedCost:
    """Return what a use cost at an hour's price of the machine.

    Args:
        use: what the engine did.
        hourly_usd: an hour of the whole machine.
        share: of the machine that is the engine's, in (0, 1].
    """
    per_s = Fraction(hourly_usd) * share * NANO_PER_USD / SECONDS_PER_HOUR
    held = round(per_s * Fraction(use.up_s))
    idle = round(per_s * Fraction(max(0.0, use.up_s - use.busy_s)))
    return LoadedCost(held, min(idle, held), held / use.marginal_nano_usd if use.marginal_nano_usd else None)
