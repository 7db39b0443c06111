"""What the soak found, judged item by item: is anything left behind, and is memory flat?"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

MOST_GROWTH = 0.02
COUNTED = ("tasks", "threads", "descriptors", "sockets")
"""What may not be more after the work than before it."""
BOUNDED = {"store_sockets": 32 + 64 + 3 + 2, "pool_threads": 32}
"""What opens when it is needed and is kept, and its bound: two pools of connections to Redis and three single ones, the
loop's own pair of sockets; the loop's pool of threads."""
GONE = ("held_usd", "in_flight")
"""What may not be there at rest at all."""
Census = Mapping[str, object]
Sample = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One item: what it was before and after the work, and whether that is as it should be."""

    item: str
    before: float
    after: float
    holds: bool


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory during the work, in MiB.

    Attributes:
        first: the median of the first fifth of the samples, and `last` that of the last fifth.
        growth_ratio: how much `last` is above `first`, as a share of it.
        mib_per_hour: the slope of the line that fits the samples best.
    """

    first: float
    last: float
    least: float
    most: float
    growth_ratio: float
    mib_per_hour: float


def memory_of(samples: Sequence[Sample]) -> Memory:
    """Sum up the resident memory of samples that were taken while the gateway worked."""
    sizes = [one["rss_mib"] for one in samples]
    fifth = max(1, len(sizes) // 5)
    first, last = statistics.median(sizes[:fifth]), statistics.median(sizes[-fifth:])
    per_s = statistics.linear_regression([one["at_s"] for one in samples], sizes).slope if len(sizes) > 1 else 0.0
    return Memory(first, last, min(sizes), max(sizes), round(last / first - 1.0, 4), round(3600 * per_s, 2))


def verdicts_of(memory: Memory, before: Census, after: Census) -> list[Verdict]:
    """Judge memory over the work, and every count at rest before and after it."""
    verdicts = [Verdict("rss_mib", memory.first, memory.last, memory.growth_ratio <= MOST_GROWTH)]
    for item in COUNTED:
        was, is_now = _number(before[item]), _number(after[item])
        verdicts.append(Verdict(item, was, is_now, is_now <= was))
    for item, most in BOUNDED.items():
        verdicts.append(Verdict(item, _number(before[item]), _number(after[item]), _number(after[item]) <= most))
    for item in GONE:
        verdicts.append(Verdict(item, _number(before[item]), _number(after[item]), _number(after[item]) == 0.0))
    return verdicts


def told(memory: Memory, verdicts: Sequence[Verdict]) -> dict[str, object]:
    """Return both as the result file holds them."""
    return {"memory": asdict(memory), "verdicts": [asdict(one) for one in verdicts]}


def thinned(samples: Sequence[Sample], most: int = 120) -> list[Sample]:
    """Return at most so many samples, evenly spread."""
    step = -(-len(samples) // most) or 1
    return list(samples[::step])


def _number(value: object) -> float:
    assert isinstance(value, int | float), f"{value!r} is no number"
    return value
