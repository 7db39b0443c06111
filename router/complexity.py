"""Judge how hard a request is: P(the small model suffices), for one pair of models, from text and embedding.

The score is the mean of two linear models, turned into log-odds by Platt scaling and drawn towards the base rate where
the embedding lies far from the training data; a small fixed slope for length and marks of reasoning is added, which
counts everywhere and most where the data are far. It never fails a request: without an embedding the text head speaks
alone, without text the base rate does, and the source says which.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from core.cached import Vector
from core.chat import ChatRequest
from core.plan import Complexity
from router.calibration import Calibration
from router.features import text_views
from router.weights import WEIGHTS_DIRECTORY, Line, Manifest, PairWeights, load_pair


class Classifier(Protocol):
    """Whoever can say how hard a request is."""

    async def classify(self, request: ChatRequest, vector: Vector | None) -> Complexity:
        """Judge the last user text; `vector` is its embedding, when one was made."""
        ...


@dataclass(frozen=True, slots=True)
class Score:
    """P(small suffices) in (0, 1), the trust that its distance earned, and the characters the cap left out.

    `output_tokens` are those expected of the small and the large model, where the weights know lengths.
    """

    p_small_suffices: float
    trust: float
    cut_chars: int
    output_tokens: tuple[int, int] | None = None


class PairModel:
    """The trained classifier of one pair; scoring is synchronous, deterministic and takes well under a millisecond."""

    def __init__(self, weights: PairWeights, manifest: Manifest, calibration: Calibration | None = None) -> None:
        self._weights = weights
        self._line = Line(1.0, 0.0) if calibration is None else Line(calibration.slope, calibration.offset)
        self.manifest = manifest
        calibrated = "" if calibration is None else ";calibrated"
        self._source = f"model:{manifest.pair}@{manifest.weights_sha256[:8]}{calibrated}"

    @classmethod
    def load(
        cls,
        pair: str,
        encoder: str | None = None,
        *,
        directory: Path = WEIGHTS_DIRECTORY,
        calibration: Calibration | None = None,
    ) -> Self:
        """Load the weight set `pair`, refusing one that was trained on another encoder than `encoder`.

        Raises:
            ConfigurationError: see `router.weights.load_pair`; or the calibration belongs to other weights.
        """
        weights, manifest = load_pair(pair, encoder, directory)
        if calibration is not None:
            calibration.check(manifest)
        return cls(weights, manifest, calibration)

    @property
    def version(self) -> str:
        """Return which weights and calibration judge, such as `bundled@3f2a1b0c`."""
        return self._source.removeprefix("model:")

    async def classify(self, request: ChatRequest, vector: Vector | None) -> Complexity:
        """Judge the last user text; a request that ends in something else gets the base rate."""
        text = request.last_user_text
        if text is None or not text.strip():
            return Complexity(_probability(self._line.at(self._weights.prior)), "prior:no_text")
        score = self.score(text, vector)
        source = self._source + ("" if vector is not None else ";no_vector") + (";cut" if score.cut_chars else "")
        return Complexity(score.p_small_suffices, source, score.output_tokens, score.cut_chars)

    def score(self, text: str, vector: Vector | None) -> Score:
        """Score one text with its (d,) L2-normalised embedding, or without.

        Raises:
            ValueError: the vector has another dimension than the weights.
        """
        views = text_views(text)
        log_odds, trust = self._weights.log_odds(views, vector)
        p_small = _probability(self._line.at(log_odds))
        return Score(p_small, trust, views.cut_chars, self._weights.output_tokens(views))


def _probability(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, log_odds))))
