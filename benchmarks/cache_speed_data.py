"""Texts and vectors for measuring the cache's speed: made from templates, so that nothing has to be downloaded."""

import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Half = NDArray[np.float16]


def _listed(text: str) -> list[str]:
    return text.split("|")


_OPENINGS = ("How do I", "What is the best way to", "Explain how to", "Please show me how to", "What tools help to")
_VERBS = _listed(
    "repair|clean|install|configure|export|paint|measure|move|sell|translate|summarise|schedule|cancel|renew|"
    "compress|encrypt|migrate|inspect|review|label|sort|merge|split|archive|print|scan|tune|polish|ship|"
    "insure|photograph"
)
_THINGS = _listed(
    "a bicycle chain|a leaking tap|a wooden table|an invoice|a spreadsheet|a database|a home router|"
    "a garden bed|a tax form|a passport|a podcast|a guitar|a telescope|a coffee grinder|a web server|"
    "a container image|a phone screen|a car battery|a washing machine|a river kayak|a tent|a wedding album|"
    "a medical record|an insurance claim|a newsletter|a heat pump|a rain barrel|a bee hive|a sewing pattern|"
    "a trail map|a lesson plan|a payroll|a museum catalogue|a recipe book"
)
_SETTINGS = _listed(
    "in winter|on a small budget|without special tools|before a deadline|in a shared flat|under strict rules|"
    "on Linux|on an old laptop|in the countryside|for an elderly parent|while travelling|after a power cut|"
    "in a rainy climate|for a charity|in a hospital|at a school|with safety in mind|for a large company|"
    "at night|with a friend|using free software|after moving house|for the first time"
)


def short_texts(count: int, seed: int = 1) -> list[str]:
    """Return distinct questions of some 10 to 16 word pieces; at most 100,000."""
    chosen = random.Random(seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        parts = (chosen.choice(_OPENINGS), chosen.choice(_VERBS), chosen.choice(_THINGS), chosen.choice(_SETTINGS))
        texts[" ".join(parts) + "?"] = None
    return list(texts)


def twenty_token_pairs(count: int, seed: int = 2) -> list[tuple[str, str]]:
    """Return distinct questions of about 20 word pieces, each with another wording of the same question."""
    chosen = random.Random(seed)
    pairs: dict[str, str] = {}
    while len(pairs) < count:
        verb, thing = chosen.choice(_VERBS), chosen.choice(_THINGS)
        first, second = chosen.sample(_SETTINGS, 2)
        rest = f"{verb} {thing} {first} and {second} when nobody can help me"
        pairs[f"How do I {rest}?"] = f"How can I {rest}?"
    return list(pairs.items())


def spread(base: Rows, count: int, seed: int = 3) -> Half:
    """Return `count` (n, d) rows: the encoded texts themselves, and beyond them mixtures of two with a little noise."""
    if count <= len(base):
        return base[:count].astype(np.float16)
    dice, dimension = np.random.default_rng(seed), base.shape[1]
    rows = np.empty((count, dimension), dtype=np.float16)
    for start in range(0, count, 50_000):
        size = min(50_000, count - start)
        rows[start : start + size] = _mixed(base, base, dice, size, (0.55, 0.95), 0.25)
    return rows


def queries(rows: Half, base: Rows, count: int, seed: int = 4) -> Rows:
    """Return (n, d) questions whose nearest neighbours are between barely and very similar."""
    return _mixed(rows, base, np.random.default_rng(seed), count, (0.3, 0.95), 0.3)


def nearest(rows: Half, asked: Rows) -> tuple[NDArray[np.int64], Rows]:
    """Return the (n,) row numbers and similarities of the nearest, by comparing everything."""
    best = np.full(len(asked), -2.0, dtype=np.float32)
    where = np.zeros(len(asked), dtype=np.int64)
    for start in range(0, len(rows), 50_000):
        similarities = asked @ rows[start : start + 50_000].astype(np.float32).T
        at = similarities.argmax(axis=1)
        value = similarities[np.arange(len(asked)), at]
        where = np.where(value > best, at + start, where)
        best = np.maximum(best, value)
    return where, best


def spread_kept(folder: Path, base: Rows, count: int) -> Half:
    """Return the rows of `spread`, made once per folder."""
    path = folder / f"rows-{count}.npy"
    if not path.exists():
        np.save(path, spread(base, count))
    kept: Half = np.load(path)
    return kept


def nearest_kept(folder: Path, rows: Half, asked: Rows) -> tuple[NDArray[np.int64], Rows]:
    """Return what `nearest` finds, searched once per folder and size."""
    path = folder / f"nearest-{len(rows)}-{len(asked)}.npz"
    if not path.exists():
        where, similarity = nearest(rows, asked)
        np.savez(path, where=where, similarity=similarity)
    kept = np.load(path)
    return kept["where"], kept["similarity"]


def encoded(folder: Path, count: int) -> Rows:
    """Return the encoded short texts, made once per folder."""
    path = folder / f"base-{count}.npy"
    if not path.exists():
        from cache.minilm import has_openvino, load_encoder

        encoder, texts = load_encoder(reference=not has_openvino()), short_texts(count)
        made = [row for start in range(0, count, 32) for row in encoder.encode(texts[start : start + 32])]
        np.save(path, np.stack([row for row in made if row is not None]))
    loaded: Rows = np.load(path)
    return loaded


def _mixed(
    ours: Half | Rows, others: Rows, dice: np.random.Generator, count: int, share: tuple[float, float], noise: float
) -> Rows:
    weight = dice.uniform(*share, (count, 1)).astype(np.float32)
    rows = weight * ours[dice.integers(len(ours), size=count)].astype(np.float32)
    rows += (1 - weight) * others[dice.integers(len(others), size=count)]
    rows += noise / np.sqrt(ours.shape[1]) * dice.standard_normal(rows.shape, dtype=np.float32)
    mixed: Rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return mixed
