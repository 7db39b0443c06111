"""Notice that somebody asks nearly the same again soon after an answer: a weak sign that the answer did not do.

Of a text only a sketch is kept, in memory alone: the least 32 of its words' keyed hashes, under a key of this process.
Two sketches are near when they share most of what either holds. Bounded by callers; the last question of each counts.
"""

import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field

MOST_CALLERS = 2_000
WITHIN_S = 120.0
SKETCHED = 32
NEAR = 0.75
LEAST_WORDS = 3
MOST_CHARACTERS = 4_000
_WORD = re.compile(r"\w+")

Caller = tuple[str, str, str | None]


@dataclass(slots=True)
class RetryWatch:
    """The last question of each caller (tenant, key, end user); used from the event loop only."""

    key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    _last: OrderedDict[Caller, tuple[str, frozenset[int], float]] = field(default_factory=OrderedDict)

    def noted(self, caller: Caller, request_id: str, text: str, now_s: float) -> str | None:
        """Take a question in; return the id of the caller's last one when this is nearly the same, soon enough."""
        sketch, last = self._sketch(text), self._last.pop(caller, None)
        if len(sketch) >= LEAST_WORDS:
            self._last[caller] = (request_id, sketch, now_s)
            if len(self._last) > MOST_CALLERS:
                self._last.popitem(last=False)
        if last is None or now_s - last[2] > WITHIN_S or not sketch:
            return None
        return last[0] if len(sketch & last[1]) >= NEAR * len(sketch | last[1]) else None

    def _sketch(self, text: str) -> frozenset[int]:
        words = set(_WORD.findall(text[:MOST_CHARACTERS].casefold()))
        return frozenset(sorted(hash(self.key + word) for word in words)[:SKETCHED])
