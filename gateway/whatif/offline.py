"""The encoder for commands that work on files: one batch after another on every core, without a cache."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from cache.batcher import Encoder
from cache.minilm import FINGERPRINT, OPENVINO_FINGERPRINT, has_openvino, load_encoder

BATCH_TEXTS = 64
MANY_TEXTS = 512
"""From here on a second encoder, which takes a second and 200 MB to load, is worth it."""
MOST_ENCODERS = 4
_threads = threading.local()


def encoder_fingerprint() -> str:
    """Return the fingerprint that weights are checked against."""
    return OPENVINO_FINGERPRINT if has_openvino() else FINGERPRINT


def embed_texts(texts: Sequence[str]) -> NDArray[np.float32]:
    """Return (n, d) float32 L2-normalised vectors; of a text beyond the encoder's window, its beginning's.

    Texts of a length share a batch, since a batch costs as much as its longest text in every row. An encoder uses one
    core; many texts are shared among as many encoders as there are cores.
    """
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    batches = [by_length[at : at + BATCH_TEXTS] for at in range(0, len(by_length), BATCH_TEXTS)]
    vectors: dict[int, NDArray[np.float32]] = {}

    def embed_batch(places: list[int]) -> None:
        vectors.update(zip(places, _embedded([texts[place] for place in places]), strict=True))

    if len(texts) < MANY_TEXTS:
        for places in batches:
            embed_batch(places)
    else:
        with ThreadPoolExecutor(min(MOST_ENCODERS, os.cpu_count() or 1)) as pool:
            list(pool.map(embed_batch, reversed(batches)))
    return np.array([vectors[place] for place in range(len(texts))], np.float32)


def _embedded(texts: Sequence[str]) -> list[NDArray[np.float32]]:
    found = []
    for text, vector in zip(texts, _encoder().encode(texts), strict=True):
        while vector is None:
            text = text[: len(text) // 2]
            (vector,) = _encoder().encode([text])
        found.append(vector)
    return found


def _encoder() -> Encoder:
    """Return this thread's encoder, loaded once."""
    if not hasattr(_threads, "encoder"):
        _threads.encoder = load_encoder(reference=not has_openvino())
    encoder: Encoder = _threads.encoder
    return encoder
