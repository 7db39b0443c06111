"""What a plan was weighed with and against what: how control steers it, and every candidate with its forecasts."""

from typing import Literal

import msgspec

from core.rules import DEFAULT_GIVE_WAY, Wish

Knob = Literal["quality", "share", "cost"]
Exclusion = Literal["not_asked", "guard", "session", "loading", "down", "budget", "quality", "latency", "cost"]


class Steering(msgspec.Struct, frozen=True, gc=False):
    """What control asks of one plan.

    Attributes:
        floor: the least predicted quality in [0, 1]; None leaves it to the policy.
        knob: which of the tenant's knobs set the floor.
        shadow_price_per_usd: the gain in predicted quality that one more USD must bring; 0 while money is no concern.
    """

    floor: float | None = None
    knob: Knob = "quality"
    shadow_price_per_usd: float = 0.0


UNSTEERED = Steering()


class Pin(msgspec.Struct, frozen=True, gc=False):
    """The deployment that a session used last, and the tokens of this prompt that its prefix cache likely holds.

    `held_tier` is the tier that the session keeps on this turn; None where the turn is weighed like any other.
    """

    deployment: str
    cached_tokens: int = 0
    held_tier: str | None = None


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """One deployment as this request would use it.

    Attributes:
        predicted_quality: in [0, 1]; None where nothing was judged.
        ttft_ms: predicted time to the first token, None without a forecast; `total_ms` likewise to the last.
        late_ratio: by how much the worse of both passes its limit, as a share of it; 0 within the SLA.
        expected_nano_usd: price of the input and of the expected output, and what leaving a session's cache costs.
        worst_case_nano_usd: what is held for it.
        excluded_by: what speaks against it, the first of the list in `Exclusion`; None for what could have been chosen.
    """

    deployment: str
    tier: str
    predicted_quality: float | None
    ttft_ms: float | None
    total_ms: float | None
    late_ratio: float
    expected_nano_usd: int
    worst_case_nano_usd: int
    excluded_by: Exclusion | None = None


class Weighing(msgspec.Struct, frozen=True, gc=False):
    """All candidates of one plan, cheapest tier first, and what they were held against."""

    candidates: tuple[Candidate, ...]
    floor: float
    shadow_price_per_usd: float = 0.0
    give_way: tuple[Wish, ...] = DEFAULT_GIVE_WAY

    def of(self, deployment: str, tier: str) -> Candidate:
        """Return what was weighed of a deployment in a tier's name; every step of the plan has it."""
        for one in self.candidates:
            if one.deployment == deployment and one.tier == tier:
                return one
        raise LookupError(f"{deployment!r} was not weighed for {tier!r}")
