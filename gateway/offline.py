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
    """Return (n, d) float32 L2-normalised vectors; of a text beyond the encoder's window, its beginning's."""
    rows = []
    for at in range(0, len(texts), BATCH_TEXTS):
        batch = texts[at : at + BATCH_TEXTS]
        for text, vector in zip(batch, _encoder().encode(batch), strict=True):
            while vector is None:
                text = text[: len(text) // 2]
                (vector,) = _encoder().encode([text])
            rows.append(vector)
    return np.array(rows, np.float32)


@lru_cache(maxsize=1)
def _encoder() -> Encoder:
    return load_encoder(reference=not has_openvino())
