"""Where a request's saving comes from, and the sums of both paths of the comparison with the baseline.

Per request, in nano-USD, with the baseline of `gateway.counterfactual` and every attempt's cost:

    cache    a hit or a followed answer: baseline - cost
    hedging  - cost of attempts that were outrun
    tries    - cost of other attempts that did not answer: failures, retries, the first step of a cascade
    prefix   - what leaving a conversation's deployment lost of its cached prompt
    judging  - cost of what the gateway asked by itself, to verify or to learn
    routing  baseline - cost, less all others: what the choice of tier and its price per token gave

So the sources of a window add up to its baseline less its cost, to the nano-dollar.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from core.trace import Attempt, AttemptKind, AttemptOutcome, RequestTrace

Source = Literal["cache", "routing", "prefix", "hedging", "tries", "judging"]
HITS = frozenset({"exact", "semantic", "joined"})


def sources_of(trace: RequestTrace) -> Mapping[Source, int]:
    """Return what each source saved (negative: cost) of one request; sources without a part are left out."""
    if trace.is_shadow:
        return {"judging": -trace.cost_nano_usd} if trace.cost_nano_usd else {}
    baseline = trace.cost_nano_usd if trace.baseline_nano_usd is None else trace.baseline_nano_usd
    saved = baseline - trace.cost_nano_usd
    if trace.cache in HITS:
        return {"cache": saved}
    if len(trace.attempts) < 2 and not trace.lost_prefix_nano_usd:
        return {"routing": saved} if saved else {}
    winner = answering(trace.attempts)
    parts: dict[Source, int] = {"hedging": 0, "tries": 0, "prefix": -trace.lost_prefix_nano_usd}
    for attempt in trace.attempts:
        if attempt is not winner:
            parts["hedging" if was_hedged(attempt) else "tries"] -= attempt.cost_nano_usd
    parts["routing"] = saved - sum(parts.values())
    return {source: part for source, part in parts.items() if part}


def answering(attempts: tuple[Attempt, ...]) -> Attempt | None:
    """Return the attempt that gave the answer, or would have: the last whole one, else the last."""
    whole = [attempt for attempt in attempts if attempt.outcome is AttemptOutcome.COMPLETE]
    return whole[-1] if whole else attempts[-1] if attempts else None


def was_hedged(attempt: Attempt) -> bool:
    """Tell whether an attempt that did not answer was one side of a hedge."""
    return attempt.outcome is AttemptOutcome.OUTRUN or attempt.kind is AttemptKind.HEDGE


@dataclass(slots=True)
class Saved:
    """What one source saved within a span."""

    requests: int = 0
    saved_nano_usd: int = 0

    def add(self, part_nano_usd: int) -> None:
        """Add the source's part of one request."""
        self.requests += 1
        self.saved_nano_usd += part_nano_usd

    def values(self) -> tuple[int, ...]:
        """Return the sums in the order of the table."""
        return self.requests, self.saved_nano_usd


@dataclass(slots=True)
class Trials:
    """One path of the comparison: its requests, and the sum and the sum of squares of what they cost."""

    requests: int = 0
    cost_nano_usd: int = 0
    cost_squared: float = 0.0
    baseline_nano_usd: int = 0
    late: int = 0

    def add(self, trace: RequestTrace) -> None:
        """Count one request."""
        self.requests += 1
        self.cost_nano_usd += trace.cost_nano_usd
        self.cost_squared += float(trace.cost_nano_usd) ** 2
        self.baseline_nano_usd += trace.baseline_nano_usd or 0
        self.late += trace.sla_violated

    def values(self) -> tuple[int | float, ...]:
        """Return the sums in the order of the table."""
        return self.requests, self.cost_nano_usd, self.cost_squared, self.baseline_nano_usd, self.late
