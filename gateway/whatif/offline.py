"""The encoder for commands that work on files: one batch after another, in this process, without a cache."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cache.batcher import Encoder
from cache.minilm import FINGERPRINT, OPENVINO_FINGERPRINT, has_openvino, load_encoder

BATCH_TEXTS = 64


def encoder_fingerprint() -> str:
    """Return the fingerprint that weights are checked against."""
    return OPENVINO_FINGERPRINT if has_openvino() else FINGERPRINT


def embed_texts(texts: Sequence[str]) -> NDArray[np.float32]:
    """Return (n, d) float32 L2-normalised vectors; of a text beyond the encoder's window, its beginning's.

    Texts of a length share a batch, since a batch costs as much as its longest text in every row.
    """
    vectors: dict[int, NDArray[np.float32]] = {}
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for at in range(0, len(by_length), BATCH_TEXTS):
        places = by_length[at : at + BATCH_TEXTS]
        batch = [texts[place] for place in places]
        for place, text, vector in zip(places, batch, _encoder().encode(batch), strict=True):
            while vector is None:
                text = text[: len(text) // 2]
                (vector,) = _encoder().encode([text])
            vectors[place] = vector
    return np.array([vectors[place] for place in range(len(texts))], np.float32)


@lru_cache(maxsize=1)
def _encoder() -> Encoder:
    return load_encoder(reference=not has_openvino())
