"""Score and calibrate from files: what `headgate route score` and `headgate route calibrate` do.

Embedding is handed in, since the encoder belongs to the cache. Bad input ends the run with one line naming file and
line; the output file appears only when every line was scored.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from router.calibration import Calibration, fit_calibration, read_calibration, write_calibration
from router.complexity import PairModel
from router.outcomes import Outcome, read_outcomes, read_queries
from router.weights import WEIGHTS_DIRECTORY

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]
"""Turns n texts into (n, d) float32 vectors, L2-normalised."""

BATCH_ROWS = 256


def score_file(
    in_path: Path,
    out_path: Path,
    embed: Embed,
    pair: str = "general",
    calibration: Path | None = None,
    *,
    encoder: str | None = None,
    directory: Path = WEIGHTS_DIRECTORY,
) -> int:
    """Copy JSON lines from `in_path` to `out_path`, adding `p_small_suffices` to each; return how many there were.

    Order and further fields are kept. `encoder` is the fingerprint of what `embed` runs, to refuse foreign weights.

    Raises:
        ConfigurationError: a line without a text `query`, or weights or calibration that cannot be used.
    """
    fitted = None if calibration is None else read_calibration(calibration)
    model = PairModel.load(pair, encoder, directory=directory, calibration=fitted)
    partial = out_path.with_name(out_path.name + ".partial")
    count = 0
    try:
        with partial.open("wb") as out:
            for lines in _batches(read_queries(in_path)):
                scores = score_texts(model, [line["query"] for line in lines], embed)
                for line, p in zip(lines, scores, strict=True):
                    out.write(msgspec.json.encode(line | {"p_small_suffices": round(float(p), 6)}) + b"\n")
                count += len(lines)
        partial.replace(out_path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def calibrate(
    pair: str,
    outcomes: Path,
    out: Path,
    embed: Embed,
    *,
    encoder: str | None = None,
    directory: Path = WEIGHTS_DIRECTORY,
) -> Calibration:
    """Fit a calibration of `pair` to an outcomes file, write it to `out` and return it.

    It changes nothing (slope 1, offset 0) on fewer than `router.calibration.MIN_ROWS` outcomes.

    Raises:
        ConfigurationError: the outcomes or the weights cannot be used.
    """
    rows = read_outcomes(outcomes)
    model = PairModel.load(pair, encoder, directory=directory)
    p_small = score_texts(model, [row.query for row in rows], embed)
    fitted = fit_calibration(model.manifest, p_small, small_suffices(rows))
    write_calibration(fitted, out)
    return fitted


def score_texts(model: PairModel, texts: Sequence[str], embed: Embed) -> NDArray[np.float64]:
    """Return (n,) P(small suffices)."""
    vectors = embed(texts)
    pairs = zip(texts, vectors, strict=True)
    return np.array([model.score(text, vector).p_small_suffices for text, vector in pairs], np.float64)


def small_suffices(rows: Sequence[Outcome]) -> NDArray[np.bool_]:
    """Return (n,) whether the small model was at least as good."""
    return np.array([row.small_score >= row.large_score for row in rows])


def _batches(lines: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(lines, BATCH_ROWS)):
        yield batch
