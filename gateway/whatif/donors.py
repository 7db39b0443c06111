"""What a deployment is measured to do with requests like one: answers of the log lend their length and their times.

A donor is drawn among the `NEAREST` answers of the deployment whose requests were judged about as easy. Its output
tokens, its time to the first token and its total time come together, so what goes together in the log stays together.
What a deadline cut lends, too: its tokens so far, and a time beyond the limit. No curve is fitted, and nothing is
assumed of what the log has not seen: where load would be another, times would be.
"""

import random
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

from gateway.whatif.history import Past

NEAREST = 25
UNJUDGED = 0.5


@dataclass(frozen=True, slots=True)
class Donor:
    """What one answer took: tokens, and milliseconds from the request's arrival."""

    request_id: str
    ease: float
    output_tokens: int
    first_ms: float
    total_ms: float


@dataclass(slots=True)
class _Pool:
    """The answers of one deployment, easiest last."""

    donors: list[Donor] = field(default_factory=list)
    eases: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def near(self, ease: float, other_than: str, draw: random.Random) -> Donor | None:
        """Return one of the nearest in ease, never the request's own answer."""
        at = bisect_left(self.eases, ease)
        low = max(0, min(at - NEAREST // 2, len(self.donors) - NEAREST))
        near = [donor for donor in self.donors[low : low + NEAREST] if donor.request_id != other_than]
        return draw.choice(near) if near else None


class Donors:
    """All answers of a history by deployment, streams and whole answers apart where there are both."""

    def __init__(self, history: Iterable[Past]) -> None:
        self._pools: dict[tuple[str, bool | None], _Pool] = {}
        for past in history:
            if past.answer is None or past.is_hit or not (past.is_answered or past.was_cut):
                continue
            tokens = past.output_tokens or 0
            donor = Donor(past.id, ease_of(past), tokens, past.ttft_ms or past.total_ms, past.total_ms)
            for stream in (past.stream, None):
                pool = self._pools.setdefault((past.answer.deployment, stream), _Pool())
                pool.donors.append(donor)
                if past.inputs is not None and past.inputs.facts.input_tokens and past.input_tokens:
                    pool.ratios.append(past.input_tokens / past.inputs.facts.input_tokens)
        for pool in self._pools.values():
            pool.donors.sort(key=lambda donor: (donor.ease, donor.request_id))
            pool.eases = [donor.ease for donor in pool.donors]

    def draw(self, past: Past, ease: float, deployment: str, draw: random.Random) -> Donor | None:
        """Return a donor for the request at the deployment, None where the log holds no answer of it."""
        for stream in (past.stream, None):
            pool = self._pools.get((deployment, stream))
            donor = None if pool is None else pool.near(ease, past.id, draw)
            if donor is not None:
                return donor
        return None

    def input_ratio(self, deployment: str) -> float:
        """Return the tokens of a prompt as the deployment counts them, over those that the gateway estimates."""
        pool = self._pools.get((deployment, None))
        return median(pool.ratios) if pool is not None and pool.ratios else 1.0

    def counts(self) -> Mapping[str, int]:
        """Return how many answers each deployment lends."""
        return {name: len(pool.donors) for (name, stream), pool in self._pools.items() if stream is None}


def ease_of(past: Past) -> float:
    """Return what a request is matched by: P(small suffices), or the middle where nobody judged."""
    return UNJUDGED if past.p_small_suffices is None else past.p_small_suffices
