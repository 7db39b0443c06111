"""What a learner sees of a request: 32 numbers made of its score, its length, markers of its kind and its embedding.

    1, p, log-odds of p / 8, log(1 + characters) / 8, digits, code, lines, question, 24 projections of the embedding

The projection is a fixed matrix of signs, drawn once from a hash, so that it is the same on every machine. A text can
not be read back from 24 coarse projections; they are kept in memory until the outcome is known, and never written.
"""

import hashlib
import math
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from core.cached import Vector

VERSION = 1
"""Of the meaning of the numbers; what was learned under another one is not used."""
OWN = 8
PROJECTED = 24
SIZE = OWN + PROJECTED
P_AT = 1
SCALE = 0.4
MAX_LOG_ODDS = 8.0
_DIGIT = re.compile(r"\d")
_CODE = re.compile(r"```|[{};]\s*\n|\bdef |\bclass |\bSELECT |=>|\(\)")

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Context:
    """One request as learners see it: `x` is (32,) float64, `p` its calibrated P(small suffices)."""

    x: Doubles
    p: float


def context_of(p: float, text: str, vector: Vector | None) -> Context:
    """Return the numbers of one request.

    Args:
        p: calibrated P(small suffices), before anything learned.
        text: the last user text.
        vector: (d,) L2-normalised embedding; without one the projections are 0.
    """
    x = np.zeros(SIZE)
    within = min(max(p, 1e-9), 1.0 - 1e-9)
    log_odds = max(-MAX_LOG_ODDS, min(MAX_LOG_ODDS, math.log(within / (1.0 - within))))
    head = text[:2_000]
    x[:OWN] = (
        1.0,
        p,
        log_odds / MAX_LOG_ODDS,
        math.log1p(len(text)) / 8.0,
        _DIGIT.search(head) is not None,
        _CODE.search(head) is not None,
        min(head.count("\n"), 20) / 20.0,
        head.rstrip().endswith("?"),
    )
    if vector is not None:
        x[OWN:] = _signs(len(vector)) @ vector
    return Context(x, p)


@lru_cache(maxsize=4)
def _signs(dimensions: int) -> NDArray[np.float32]:
    """Return the (24, d) projection."""
    bits = hashlib.shake_256(b"headgate-context-1").digest((PROJECTED * dimensions + 7) // 8)
    signs = np.unpackbits(np.frombuffer(bits, np.uint8))[: PROJECTED * dimensions].astype(np.float32) * 2.0 - 1.0
    return np.asarray(signs.reshape(PROJECTED, dimensions) * SCALE, np.float32)
