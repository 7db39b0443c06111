"""Which requests are held to an SLA, which of them missed it, and what it cost to rescue requests.

A request is judged when its plan promised a first token or a whole answer in time, and it was not refused or left by
its client; it missed when it was late, was cut, or failed. Answers from the cache are not judged. What a rescue costs
is what those attempts cost that did not give the answer: of a hedge the loser, of a fallback or a retry the attempt
before it.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Literal

from core.trace import Attempt, AttemptKind, RequestTrace
from gateway.telemetry.savings import answering, was_hedged
from gateway.telemetry.sketch import bucket_of, encode, merged

OK = 200
SERVER_ERROR = 500
Verdict = Literal["kept", "missed"]
Rescue = Literal["retry", "hedge", "fallback"]
_KINDS: dict[AttemptKind, Rescue] = {
    AttemptKind.RETRY: "retry",
    AttemptKind.HEDGE: "hedge",
    AttemptKind.FALLBACK: "fallback",
}


def verdict_on(trace: RequestTrace) -> Verdict | None:
    """Tell whether a request kept its SLA; None where it does not count for its tenant's attainment."""
    if trace.sla_violated:
        return None if trace.is_shadow else "missed"
    if not trace.is_sla_judged or trace.is_shadow:
        return None
    if trace.status >= SERVER_ERROR:
        return "missed"
    return "kept" if trace.status == OK else None


def tpot_ms(trace: RequestTrace) -> float | None:
    """Return the mean time between the output tokens of an answered stream, None where there is none."""
    tokens = 0 if trace.usage is None else trace.usage.output_tokens
    if trace.status != OK or not trace.stream or not trace.attempts or trace.ttft_ms is None or tokens < 2:
        return None
    return max(0.0, trace.total_ms - trace.ttft_ms) / (tokens - 1)


def rescue_costs(attempts: tuple[Attempt, ...]) -> list[tuple[Rescue, int]]:
    """Return the kind of every rescue, and what it cost beyond the answer, in nano-USD."""
    if len(attempts) < 2:
        return []
    found = [(_KINDS[attempt.kind], 0) for attempt in attempts if attempt.kind in _KINDS]
    winner = answering(attempts)
    for attempt in attempts:
        if attempt is winner:
            continue
        kind: Rescue | None = "hedge" if was_hedged(attempt) else _rescued_by(attempt, attempts)
        for at, (one, cost_nano_usd) in enumerate(found):
            if one == kind:
                found[at] = (one, cost_nano_usd + attempt.cost_nano_usd)
                break
    return found


def _rescued_by(lost: Attempt, attempts: tuple[Attempt, ...]) -> Rescue | None:
    later = [one for one in sorted(attempts, key=lambda one: one.n) if one.n > lost.n and one.kind in _KINDS]
    return _KINDS[later[0].kind] if later else None


@dataclass(slots=True)
class Attained:
    """What the requests of one tenant and tier came to; `tpot` is a sketch of milliseconds."""

    judged: int = 0
    missed: int = 0
    retries: int = 0
    hedges: int = 0
    fallbacks: int = 0
    retry_nano_usd: int = 0
    hedge_nano_usd: int = 0
    fallback_nano_usd: int = 0
    tpot: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, counts: Iterable[int], tpot: Iterable[bytes | None]) -> "Attained":
        """Return what rows of the table say: their counts, and their sketches together."""
        return cls(**dict(zip(COUNTS, counts, strict=True)), tpot=merged(tpot))

    def add(self, trace: RequestTrace, verdict: Verdict | None) -> None:
        """Count one request of a client."""
        if verdict is not None:
            self.judged += 1
            self.missed += verdict == "missed"
        between_ms = tpot_ms(trace)
        if between_ms is not None:
            self.tpot[bucket_of(between_ms)] += 1
        for kind, cost_nano_usd in rescue_costs(trace.attempts):
            match kind:
                case "retry":
                    self.retries += 1
                    self.retry_nano_usd += cost_nano_usd
                case "hedge":
                    self.hedges += 1
                    self.hedge_nano_usd += cost_nano_usd
                case "fallback":
                    self.fallbacks += 1
                    self.fallback_nano_usd += cost_nano_usd

    def values(self) -> tuple[int | bytes | None, ...]:
        """Return the counts and the sketch in the order of the table."""
        return (*self.counts(), encode(self.tpot))

    def counts(self) -> tuple[int, ...]:
        """Return the counts in the order of the table."""
        return tuple(getattr(self, name) for name in COUNTS)


COUNTS = tuple(one.name for one in fields(Attained) if one.name != "tpot")
