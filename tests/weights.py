"""Small weights for router tests: the word "hard" argues for large, the first axis of the vector for small."""

import numpy as np

from router.features import BUCKETS, FEATURES_VERSION, LEXICAL_NAMES, text_views
from router.weights import Line, Manifest, PairWeights, Reach, TextHead, VectorHead

DIMENSION = 4
ENCODER = "all-MiniLM-L6-v2:53aa5117"


def weights() -> PairWeights:
    hard = list(set(text_views("hard").whole.buckets) - set(text_views("easy").whole.buckets))
    idf, word_coef = np.zeros(BUCKETS, np.float32), np.zeros(BUCKETS, np.float32)
    idf[hard], word_coef[hard] = 1.0, -4.0
    n = len(LEXICAL_NAMES)
    return PairWeights(
        text=TextHead(
            idf=idf,
            word_coef=word_coef,
            lexical_mean=np.zeros(n, np.float32),
            lexical_scale=np.ones(n, np.float32),
            lexical_coef=np.zeros(n, np.float32),
            sense_coef=np.zeros(n, np.float32),
            bias=2.0,
        ),
        vector=VectorHead(np.array([4.0, 0.0, 0.0, 0.0], np.float32), 0.0),
        vector_limit=4.0,
        vector_lift=4.0,
        far_sense=0.0,
        reach=Reach(
            np.eye(DIMENSION, dtype=np.float32)[:2], np.full((2, 2), 3.0, np.float32), far=0.2, near=0.6, least=0.25
        ),
        both=Line(1.0, 0.0),
        text_alone=Line(0.5, 0.0),
        base_rate=0.8,
    )


def manifest(pair: str = "general", encoder: str = ENCODER) -> Manifest:
    return Manifest(
        pair=pair,
        small="s",
        large="l",
        encoder=encoder,
        features=FEATURES_VERSION,
        weights_sha256="0123456789abcdef",
        rows=10,
        groups=2,
        base_rate=0.8,
        data_sha256={},
        recipe={},
        metrics={},
    )


def axis(index: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    vector = np.zeros(DIMENSION, np.float32)
    vector[index] = 1.0
    return vector
