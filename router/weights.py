"""The weights of one pair of models: plain arrays in an npz file and a JSON manifest that says where they come from.

Loading is closed on failure: a missing file, a digest that does not match, other features or a foreign encoder is
refused with one line, because a score from the wrong inputs looks just like a right one. Nothing is unpickled.
"""

import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.cached import Vector
from core.errors import ConfigurationError
from router.features import BUCKETS, FEATURES_VERSION, LEXICAL_NAMES, Floats, TextFeatures, TextViews
from router.lengths import LengthHead

LEXICAL_LIMIT = 3.0
EXTENT_MARGIN = 0.1
"""In logarithms: about a tenth more than any like prompt of the training data has."""
SENSE_LIMIT = 0.05
WEIGHTS_DIRECTORY = Path(__file__).parent / "weights"


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line on the log-odds scale (Platt scaling)."""

    slope: float
    offset: float

    def at(self, x: float) -> float:
        """Return slope * x + offset."""
        return self.slope * x + self.offset


@dataclass(frozen=True, slots=True)
class TextHead:
    """A linear model on hashed TF-IDF and on standardised lexical counts, clipped at LEXICAL_LIMIT deviations.

    Attributes:
        idf, word_coef: (BUCKETS,) float32.
        lexical_mean, lexical_scale, lexical_coef: (len(LEXICAL_NAMES),) float32.
        sense_coef: (len(LEXICAL_NAMES),) float32, fixed slopes in log-odds that were not learnt (router.fitting.SENSE).
    """

    idf: Floats
    word_coef: Floats
    lexical_mean: Floats
    lexical_scale: Floats
    lexical_coef: Floats
    sense_coef: Floats
    bias: float

    def score(self, views: TextViews) -> float:
        """Return the score of one text in its easiest view; higher means that the small model likelier suffices."""
        return max(self.score_view(view) for view in views.each)

    def score_view(self, features: TextFeatures) -> float:
        """Return the score of one view."""
        words = float(self.tf_idf(features) @ self.word_coef[features.buckets])
        return words + float(self.standardised(features) @ self.lexical_coef) + self.bias

    def tf_idf(self, features: TextFeatures) -> Floats:
        """Return (k,) the weights of the view's buckets, together of length 1."""
        weights = (1.0 + np.log(features.counts)) * self.idf[features.buckets]
        return np.asarray(weights / (math.sqrt(float(weights @ weights)) or 1.0), np.float32)

    def sense(self, views: TextViews, times: float = 1.0) -> float:
        """Return `times` what length and marks of reasoning say (log-odds); the head adds SENSE_LIMIT at most."""
        whole, *headless = (float(self.standardised(view) @ self.sense_coef) for view in (views.whole, *views.headless))
        return max(times * whole, times * max(headless) - SENSE_LIMIT)

    def standardised(self, features: TextFeatures) -> Floats:
        """Return the view's lexical counts in deviations from the training data's mean, clipped."""
        lexical = (features.lexical - self.lexical_mean) / self.lexical_scale
        return np.asarray(np.clip(lexical, -LEXICAL_LIMIT, LEXICAL_LIMIT), np.float32)


@dataclass(frozen=True, slots=True)
class VectorHead:
    """A linear model on the embedding; `coef` is (d,) float32."""

    coef: Floats
    bias: float

    def score(self, vector: Vector) -> float:
        """Return the score of one L2-normalised embedding of shape (d,)."""
        return float(vector @ self.coef) + self.bias


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the training data reaches: full trust from `near` cosine to a centroid, `least` at `far` and beyond.

    `centroids` is (k, d) float32, L2-normalised, k at most 256; `extent` (k, 2) float32, the largest
    `TextViews.extent` of the training data around each.
    """

    centroids: NDArray[np.float32]
    extent: NDArray[np.float32]
    far: float
    near: float
    least: float

    def nearest(self, vector: Vector) -> tuple[int, float]:
        """Return the nearest centroid's place and how near the training data are: 0 at `far` and beyond, to 1."""
        cosines = self.centroids @ vector
        at = int(np.argmax(cosines))
        return at, min(1.0, max(0.0, (float(cosines[at]) - self.far) / (self.near - self.far)))

    def is_beyond(self, extent: tuple[float, float], at: int | None = None) -> bool:
        """Tell whether a prompt goes further than those around centroid `at`; than all of them, where that is None."""
        numbers, digits = self.extent.max(axis=0) if at is None else self.extent[at]
        return bool(extent[0] > numbers + EXTENT_MARGIN or extent[1] > digits + EXTENT_MARGIN)

    def trust_at(self, nearness: float) -> float:
        """Return the share of the learnt log-odds to keep, in [least, 1]; the rest goes to the prior."""
        return self.least + (1.0 - self.least) * nearness


@dataclass(frozen=True, slots=True)
class PairWeights:
    """Everything that scoring needs; both heads are scaled alike, so that their mean is the mean of equals.

    `vector_limit` is how far below the text's score the vector may draw that mean, `vector_lift` how far above: whoever
    puts words before a prompt moves its embedding as a whole, while the text is judged in parts. `far_sense` is how
    many times more the fixed slopes count where the training data do not reach at all.
    """

    text: TextHead
    vector: VectorHead
    vector_limit: float
    vector_lift: float
    far_sense: float
    reach: Reach
    both: Line
    text_alone: Line
    base_rate: float
    lengths: LengthHead | None = None

    @property
    def prior(self) -> float:
        """Return the log-odds of the base rate."""
        return math.log(self.base_rate / (1.0 - self.base_rate))

    def output_tokens(self, views: TextViews) -> tuple[int, int] | None:
        """Return the tokens that the small and the large model's answers are expected to hold; None: unknown."""
        if self.lengths is None:
            return None
        whole = views.whole
        return self.lengths.tokens(whole.buckets, self.text.tf_idf(whole), self.text.standardised(whole))

    def joined(self, spoken: float, seen: float) -> float:
        """Return the mean of the text's and the vector's score, as near to the text's as the limits say."""
        return min(max((spoken + seen) / 2.0, spoken - self.vector_limit), spoken + self.vector_lift)

    def log_odds(self, views: TextViews, vector: Vector | None) -> tuple[float, float]:
        """Return the log-odds that the small model suffices, and the trust that the vector's distance earns.

        What was learnt counts less the farther the training data are, and the fixed slopes count more. A prompt that
        goes beyond what is known of its kind (longer lists, longer numbers) is not likelier to be easy than any.
        """
        spoken, at, nearness = self.text.score(views), None, 1.0
        if vector is None:
            learnt = self.text_alone.at(spoken)
        else:
            at, nearness = self.reach.nearest(vector)
            learnt = self.both.at(self.joined(spoken, self.vector.score(vector)))
        trust = self.reach.trust_at(nearness)
        drawn = self.prior + trust * (learnt - self.prior)
        if self.reach.is_beyond(views.extent, at):
            drawn = min(drawn, self.prior)
        return drawn + self.text.sense(views, 1.0 + self.far_sense * (1.0 - nearness)), trust


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the weights are: for which models, on what data (SHA-256 by file), by which recipe, how good on folds."""

    pair: str
    small: str
    large: str
    encoder: str
    features: str
    weights_sha256: str
    rows: int
    groups: int
    base_rate: float
    data_sha256: dict[str, str]
    recipe: dict[str, float]
    metrics: dict[str, float]
    notes: str = ""


def save_pair(weights: PairWeights, manifest: Manifest, directory: Path) -> Manifest:
    """Write `<pair>.npz` and `<pair>.json`; return the manifest with the digest filled in. Same weights, same bytes."""
    arrays = _arrays(weights) | ({} if weights.lengths is None else _length_arrays(weights.lengths))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    written = msgspec.structs.replace(manifest, weights_sha256=hashlib.sha256(buffer.getvalue()).hexdigest())
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{manifest.pair}.npz").write_bytes(buffer.getvalue())
    (directory / f"{manifest.pair}.json").write_bytes(msgspec.json.format(msgspec.json.encode(written)) + b"\n")
    return written


def load_pair(
    pair: str, encoder: str | None = None, directory: Path = WEIGHTS_DIRECTORY
) -> tuple[PairWeights, Manifest]:
    """Read the weights of `pair` and check them.

    Args:
        pair: name of the weight set, such as `general`.
        encoder: fingerprint of the encoder whose vectors will come, or None to leave it unchecked.
        directory: where `<pair>.npz` and `<pair>.json` lie.

    Raises:
        ConfigurationError: a file is missing or broken, the digest differs, or features or encoder are foreign.
    """
    manifest = _read_manifest(directory / f"{pair}.json")
    path = directory / f"{pair}.npz"
    if manifest.features != FEATURES_VERSION:
        problem = f"made with features version {manifest.features}, this program has {FEATURES_VERSION}"
        raise ConfigurationError(str(path), "features", problem, "train the pair again with `headgate route train`")
    if encoder is not None and not same_encoder(encoder, manifest.encoder):
        problem = f"trained on vectors of {manifest.encoder}, but the encoder in use is {encoder}"
        raise ConfigurationError(str(path), "encoder", problem, "use that encoder or train the pair again")
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != manifest.weights_sha256:
        problem = f"SHA-256 differs from the one in {pair}.json"
        raise ConfigurationError(str(path), "weights_sha256", problem, "restore both files from the same training")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return _weights({name: arrays[name] for name in arrays.files}), manifest
    except (KeyError, ValueError, BadZipFile) as problem:
        raise ConfigurationError(str(path), "", f"not a weight file ({problem})", "train the pair again") from problem


def same_encoder(one: str, other: str) -> bool:
    """Say whether two fingerprints name one model and weights; runtime variants after a second colon do not count."""
    return one.split(":")[:2] == other.split(":")[:2]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        mend = f"known pairs: {', '.join(sorted(found.stem for found in path.parent.glob('*.npz'))) or 'none'}"
        raise ConfigurationError(str(path), "", "there is no such weight set", mend) from problem


def _read_manifest(path: Path) -> Manifest:
    try:
        return msgspec.json.decode(_read(path), type=Manifest)
    except msgspec.DecodeError as problem:
        raise ConfigurationError(str(path), "", f"not a manifest ({problem})", "train the pair again") from problem


def _arrays(weights: PairWeights) -> dict[str, NDArray[np.generic]]:
    text, reach = weights.text, weights.reach
    return {
        "idf": text.idf,
        "word_coef": text.word_coef,
        "lexical_mean": text.lexical_mean,
        "lexical_scale": text.lexical_scale,
        "lexical_coef": text.lexical_coef,
        "sense_coef": text.sense_coef,
        "vector_coef": weights.vector.coef,
        "vector_limits": np.array([weights.vector_limit, weights.vector_lift]),
        "far_sense": np.array(weights.far_sense),
        "biases": np.array([text.bias, weights.vector.bias]),
        "centroids": reach.centroids.astype(np.float16),
        "extent": reach.extent,
        "reach": np.array([reach.far, reach.near, reach.least]),
        "lines": np.array(
            [[weights.both.slope, weights.both.offset], [weights.text_alone.slope, weights.text_alone.offset]]
        ),
        "base_rate": np.array(weights.base_rate),
    }


def _length_arrays(lengths: LengthHead) -> dict[str, NDArray[np.generic]]:
    return {
        "length_word_coef": lengths.word_coef,
        "length_lexical_coef": lengths.lexical_coef,
        "length_bias": lengths.bias,
    }


def _weights(arrays: Mapping[str, NDArray[np.generic]]) -> PairWeights:
    """Put the arrays back into their types; raises ValueError on a wrong shape and KeyError on a missing one."""

    def floats(name: str, *shape: int) -> Floats:
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has shape {arrays[name].shape} instead of {shape}")
        return arrays[name].astype(np.float32)

    n_lexical, d = len(LEXICAL_NAMES), len(arrays["vector_coef"])
    text_bias, vector_bias = (float(value) for value in floats("biases", 2))
    limit, lift = (float(value) for value in arrays["vector_limits"].astype(np.float64))
    far, near, least = (float(value) for value in arrays["reach"].astype(np.float64))
    both, text_alone = (Line(float(a), float(b)) for a, b in arrays["lines"].astype(np.float64))
    return PairWeights(
        text=TextHead(
            idf=floats("idf", BUCKETS),
            word_coef=floats("word_coef", BUCKETS),
            lexical_mean=floats("lexical_mean", n_lexical),
            lexical_scale=floats("lexical_scale", n_lexical),
            lexical_coef=floats("lexical_coef", n_lexical),
            sense_coef=floats("sense_coef", n_lexical),
            bias=text_bias,
        ),
        vector=VectorHead(floats("vector_coef", d), vector_bias),
        vector_limit=limit,
        vector_lift=lift,
        far_sense=float(arrays["far_sense"].astype(np.float64)),
        reach=Reach(
            floats("centroids", len(arrays["centroids"]), d),
            floats("extent", len(arrays["centroids"]), 2),
            far,
            near,
            least,
        ),
        both=both,
        text_alone=text_alone,
        base_rate=float(arrays["base_rate"].astype(np.float64)),
        lengths=LengthHead(
            floats("length_word_coef", 2, BUCKETS),
            floats("length_lexical_coef", 2, n_lexical),
            floats("length_bias", 2),
        )
        if "length_bias" in arrays
        else None,
    )
