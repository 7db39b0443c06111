"""What the cache keeps and what a look-up can find."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.money import Usage

Vector = NDArray[np.float32]


class CachedAnswer(msgspec.Struct, frozen=True, gc=False):
    """A complete answer as it may be replayed; `cost_nano_usd` is what it cost and what a hit saves."""

    content: str
    finish_reason: str
    response_model: str
    tier: str
    deployment: str
    usage: Usage
    cost_nano_usd: int


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One stored answer with its scope, repeated so that it can be checked again on a hit.

    Attributes:
        entry_id: unique, opaque.
        tenant: who owns it.
        scope: keyed hash of everything but the last user text (hex).
        exact_key: keyed hash of scope and raw last user text (hex).
        normalised_key: keyed hash of scope and normalised last user text (hex).
        prompt: the last user text, which the guard compares.
        vector: (d,) float32, L2-normalised, or None when the text was not embedded.
        encoder: fingerprint of the encoder that made `vector`.
        created_at_s, expires_at_s: Unix seconds.
        tags: names that the caller gave it, by which it can be invalidated.
    """

    entry_id: str
    tenant: str
    scope: str
    exact_key: str
    normalised_key: str
    prompt: str
    vector: Vector | None
    encoder: str
    answer: CachedAnswer
    created_at_s: float
    expires_at_s: float
    tags: tuple[str, ...] = ()


class ExactHit(msgspec.Struct, frozen=True, gc=False):
    """The same request was answered before (raw or normalised)."""

    entry: Entry
    age_s: float


class SemanticHit(msgspec.Struct, frozen=True, gc=False):
    """A request with the same meaning was answered before; `score` is the guard's P(may be served) in [0, 1]."""

    entry: Entry
    age_s: float
    similarity: float
    score: float


class NearHit(msgspec.Struct, frozen=True, gc=False):
    """Something similar was found and not served; `veto` names the first rule that forbade it."""

    entry_id: str
    similarity: float
    veto: str
    vector: Vector | None


class Miss(msgspec.Struct, frozen=True, gc=False):
    """Nothing may be served; `vector` is the embedding for the router, when one was made."""

    vector: Vector | None = None


class Bypass(msgspec.Struct, frozen=True, gc=False):
    """The cache was not asked; `why` is a documented token such as `caller`, `policy` or `tools`."""

    why: str
    vector: Vector | None = None


Found = ExactHit | SemanticHit | NearHit | Miss | Bypass
