"""Fit the head that predicts how long answers will be, for training only."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import lsqr

from router.features import BUCKETS
from router.fitting import Doubles, Recipe, Rows, Table, text_design
from router.lengths import LengthHead
from router.outcomes import Outcome
from router.weights import TextHead

MIN_LENGTHS = 100
DAMP = 0.3


def fit_lengths(
    head: TextHead, table: Table, rows: Sequence[Outcome], recipe: Recipe
) -> tuple[LengthHead, dict[str, float]] | None:
    """Fit on the rows whose answers' lengths are known; None where they are too few.

    Returns the head and, from folds, the mean factor by which its predictions miss, beside that of the mean length.
    """
    known = [at for at, row in enumerate(rows) if row.small_tokens is not None and row.large_tokens is not None]
    if len(known) < MIN_LENGTHS:
        return None
    places = np.array(known, np.intp)
    target = np.log1p(np.array([[rows[at].small_tokens, rows[at].large_tokens] for at in known], np.float64))
    design = text_design(head, table.views[0], places, recipe)
    metrics = _metrics(design, target, table.fold[places])
    coef, bias = _ridge(design, target)
    spread = np.log(np.exp(target - (design @ coef.T + bias)).mean(axis=0))
    scaled = coef[:, BUCKETS:] * recipe.lexical_weight
    found = LengthHead(
        coef[:, :BUCKETS].astype(np.float32), scaled.astype(np.float32), (bias + spread).astype(np.float32)
    )
    return found, metrics


def _ridge(design: csr_matrix, target: Doubles) -> tuple[Doubles, Doubles]:
    bias = target.mean(axis=0)
    coef = [lsqr(design, target[:, at] - bias[at], damp=DAMP, iter_lim=100)[0] for at in range(target.shape[1])]
    return np.array(coef), bias


def _metrics(design: csr_matrix, target: Doubles, fold: NDArray[np.int64]) -> dict[str, float]:
    """Return the mean factor between predicted and true lengths on folds left out."""
    miss, plain = np.zeros_like(target), np.zeros_like(target)
    for one in np.unique(fold):
        inside: Rows = np.flatnonzero(fold == one)
        outside = np.flatnonzero(fold != one)
        coef, bias = _ridge(design[outside], target[outside])
        miss[inside] = target[inside] - (design[inside] @ coef.T + bias)
        plain[inside] = target[inside] - bias
    factors = {"": np.exp(np.abs(miss).mean(axis=0)), "_by_mean": np.exp(np.abs(plain).mean(axis=0))}
    return {
        f"held_out_{tier}_tokens_factor{suffix}": round(float(values[at]), 4)
        for suffix, values in factors.items()
        for at, tier in enumerate(("small", "large"))
    }
