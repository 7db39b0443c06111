"""The section `rescue`: how much may be spent on retries and hedges."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from backends.rescue_budget import RescueRules
from policies.schema import says

Share = Annotated[float, Meta(ge=0, le=1)]


class RescueEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """How much may be spent on rescuing requests from slow and failing deployments."""

    retry_ratio: Annotated[Share, says("Retries of the same deployment, as a share of requests; 0 for none.")] = 0.1
    max_retries: Annotated[int, Meta(ge=0, le=10), says("Retries of one request.")] = 2
    hedge_ratio: Annotated[Share, says("Hedges, as a share of requests; 0 for none.")] = 0.05
    hedge_cost_ratio: Annotated[Share, says("What hedges may cost, as a share of what everything costs.")] = 0.05


def rescue_rules(entry: RescueEntry) -> RescueRules:
    """Return what `entry` allows."""
    return RescueRules(**msgspec.structs.asdict(entry))
