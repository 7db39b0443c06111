"""Fit the two heads of a pair and the reach of its data to a table of prompts, for training only.

The heads are ridge-penalised logistic regressions on soft targets. Lexical counts may only argue for the large model
where more means harder (UPWARD), which keeps them from learning the format of a data set.
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize

from router.features import (
    BUCKETS,
    LEXICAL_NAMES,
    STRIPPED_WORDS,
    VIEWS,
    Floats,
    TextFeatures,
    TextViews,
    text_views,
    without_options,
)
from router.outcomes import Outcome
from router.scoring import Embed, Vectors, small_suffices
from router.weights import LEXICAL_LIMIT, SENSE_LIMIT, Reach, TextHead, VectorHead

Doubles = NDArray[np.float64]
Rows = NDArray[np.intp]
Bounds = list[tuple[float | None, float | None]]

FOLDS = 5
BODY = VIEWS.index("body")
MIN_DOCUMENTS = 3
UPWARD = frozenset(
    (
        "log_chars",
        "log_words",
        "log_sentences",
        "words_per_sentence",
        "log_numbers",
        "log_longest_number",
        "log_number_products",
        "operators",
        "mathematics",
        "code",
        "negations",
        "comparisons",
        "reasons",
        "tasks",
        "quantities",
        "log_commas",
        "offered_known_ratio",
    )
)
SENSE = {
    "log_words": 1.0,
    "words_per_sentence": 1.0,
    "negations": 1.0,
    "reasons": 1.0,
    "recall": -1.0,
    "tasks": 1.0,
    "quantities": 1.0,
    "comparisons": 1.0,
    "mathematics": 1.0,
    "code": 1.0,
}
"""Counts that mean "harder" (asking for a known fact: "easier") whatever the data say.

Their sum, standardised, gets the fixed slope `sense_weight`.
"""

UNUSED = frozenset(("log_lines", "capital_ratio", "non_latin_ratio"))


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyper-parameters.

    Attributes:
        text_c, vector_c: inverse strength of the ridge penalty of each head.
        lexical_weight: how large a standardised lexical count is beside a TF-IDF vector of length 1.
        sense_weight: log-odds that one deviation of SENSE takes off.
        least_slope: log-odds that one deviation of the heads' mean counts at least, so that the order of prompts stays
            when the rate of held-out groups says nothing about it.
        monotone: hold lexical signs to UPWARD.
        gain_share: share of "what escalation gains" in the heads' target; the rest is "small suffices".
        group_spread: how freely each group may have an intercept of its own while a head is fitted, so that the head
            learns what holds inside groups; 0 for none.
        part_share: weight of the views that lack a part of the prompt, against the whole.
        vector_limit, vector_lift: how far below and above the text's score the vector may draw the mean (in its
            deviations).
        far_sense: how many times more `sense_weight` counts where the training data do not reach at all.
        stem_share: weight of the embedding without offered answers, for prompts that offer any.
        group_rows: beyond this many rows a group's weight does not grow.
        centroids: how many describe the reach of the training data.
        least_trust: share of the log-odds that is kept however far a prompt is.
    """

    text_c: float = 0.25
    vector_c: float = 0.3
    lexical_weight: float = 0.4
    sense_weight: float = 0.1
    least_slope: float = 0.15
    monotone: bool = True
    gain_share: float = 1.0
    group_spread: float = 1.0
    part_share: float = 0.5
    vector_limit: float = 0.1
    vector_lift: float = 0.1
    far_sense: float = 3.0
    stem_share: float = 0.5
    group_rows: int = 200
    centroids: int = 256
    least_trust: float = 0.25


@dataclass(frozen=True, slots=True)
class View:
    """What the text head sees of all rows in one view: sublinear counts (n, BUCKETS) and lexical counts (n, f)."""

    terms: sparse.csr_matrix
    lexical: Doubles


@dataclass(frozen=True, slots=True)
class Table:
    """All rows: their text in each of VIEWS, vectors and vectors of stems (n, d), targets, weights and folds (n,).

    `group` numbers the groups from 0; rows without one share a number. `extent` is (n, 2), as `TextViews.extent`.
    `stripped` are further views without a few first words (those of a row that lacks one repeat its body); they are
    scored, but not learnt from, which would teach little new at twice the time.
    """

    views: tuple[View, ...]
    stripped: tuple[View, ...]
    vectors: Vectors
    stems: Vectors
    target: Doubles
    extent: Doubles
    suffices: NDArray[np.bool_]
    weight: Doubles
    group: NDArray[np.intp]
    fold: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Heads:
    """Both fitted heads, not yet on one scale, and the reach of the rows they saw."""

    text: TextHead
    vector: VectorHead
    reach: Reach


def build_table(rows: Sequence[Outcome], embed: Embed, recipe: Recipe) -> Table:
    """Measure and embed every prompt; those that offer answers are embedded a second time without them."""
    looked = [text_views(row.query) for row in rows]
    stems = [without_options(row.query) for row in rows]
    offering = [index for index, row in enumerate(rows) if len(stems[index]) < 0.97 * len(row.query)]
    vectors = embed([row.query for row in rows])
    stem_vectors = vectors.copy()
    if offering and recipe.stem_share > 0.0:
        stem_vectors[offering] = embed([stems[index] for index in offering])
    suffices = small_suffices(rows)
    gain = np.array([row.large_score - row.small_score for row in rows])
    sizes = Counter(row.group for row in rows)
    return Table(
        views=tuple(_view(views) for views in zip(*((one.whole, one.body, one.tail) for one in looked), strict=True)),
        stripped=tuple(_view(views) for views in zip(*(_all_stripped(one) for one in looked), strict=True)),
        vectors=vectors,
        stems=stem_vectors,
        target=(1.0 - recipe.gain_share) * suffices + recipe.gain_share * (1.0 - gain) / 2.0,
        extent=np.array([one.extent for one in looked]),
        suffices=suffices,
        weight=np.array([_group_weight(sizes[row.group], recipe) if row.group else 1.0 for row in rows]),
        group=np.unique([row.group for row in rows], return_inverse=True)[1],
        fold=np.array([_fold(row) for row in rows]),
    )


def _all_stripped(views: TextViews) -> tuple[TextFeatures, ...]:
    return views.stripped + (views.body,) * (len(STRIPPED_WORDS) - len(views.stripped))


def _view(features: Sequence[TextFeatures]) -> View:
    return View(_terms(features), np.array([one.lexical for one in features], np.float64))


def _group_weight(rows: int, recipe: Recipe) -> float:
    return min(1.0, recipe.group_rows / rows)


def _fold(row: Outcome) -> int:
    return row.fold % FOLDS if row.fold is not None else zlib.crc32((row.group or row.query).encode()) % FOLDS


def _terms(features: Sequence[TextFeatures]) -> sparse.csr_matrix:
    ends = np.cumsum([0] + [len(one.buckets) for one in features])
    values = np.concatenate([1.0 + np.log(one.counts) for one in features]).astype(np.float64)
    columns = np.concatenate([one.buckets for one in features])
    return sparse.csr_matrix((values, columns, ends), shape=(len(features), BUCKETS))


def fit_heads(table: Table, rows: Rows, recipe: Recipe) -> Heads:
    """Fit on the given rows alone; the mean score of these rows is 0 by either head.

    Heads of several folds are compared with each other, and the base rate of a fold moves against the groups that it
    leaves out: without easy groups everything looks harder, and they would be judged by just that.
    """
    text = _fit_text(table, rows, recipe)
    mean = float(np.average(text_scores(text, table, rows), weights=table.weight[rows]))
    return Heads(replace(text, bias=text.bias - mean), _fit_vector(table, rows, recipe), _reach(table, rows, recipe))


def _fit_vector(table: Table, rows: Rows, recipe: Recipe) -> VectorHead:
    """Fit on the embeddings and on those of the stems, beside an intercept for each group that is then left out."""
    share, weight, d = recipe.stem_share, table.weight[rows], table.vectors.shape[1]
    design = np.vstack([table.vectors[rows], table.stems[rows]]).astype(np.float64)
    own = _own_intercepts(table, rows, recipe)
    design = np.hstack([design, np.vstack([own, own])])
    doubled = np.concatenate([weight * (1.0 - share), weight * share])
    coef, _ = _logistic(design, np.tile(table.target[rows], 2), doubled, recipe.vector_c, None)
    mean = float(np.average(table.vectors[rows] @ coef[:d], weights=weight))
    return VectorHead(coef[:d].astype(np.float32), -mean)


def _own_intercepts(table: Table, rows: Rows, recipe: Recipe) -> Doubles:
    """Return (n, groups) a column for each group, without any where there is one group or none is wanted."""
    groups = np.unique(table.group[rows])
    if recipe.group_spread <= 0.0 or len(groups) < 2:
        return np.zeros((len(rows), 0))
    return np.asarray((table.group[rows][:, None] == groups) * recipe.group_spread, np.float64)


def _fit_text(table: Table, rows: Rows, recipe: Recipe) -> TextHead:
    """Fit on every view at once, so that a part of a prompt is judged as well as the whole, beside group intercepts."""
    whole, *parts = table.views
    documents = np.asarray((whole.terms[rows] > 0).sum(axis=0)).ravel()
    idf = np.where(documents >= MIN_DOCUMENTS, np.log((1 + len(rows)) / (1 + documents)) + 1.0, 0.0)
    mean, scale = whole.lexical[rows].mean(axis=0), whole.lexical[rows].std(axis=0) + 1e-6
    blank = TextHead(
        idf=idf.astype(np.float32),
        word_coef=np.zeros(BUCKETS, np.float32),
        lexical_mean=mean.astype(np.float32),
        lexical_scale=scale.astype(np.float32),
        lexical_coef=np.zeros(len(mean), np.float32),
        sense_coef=np.zeros(len(mean), np.float32),
        bias=0.0,
    )
    own = sparse.csr_matrix(_own_intercepts(table, rows, recipe))
    parted = [sparse.hstack([text_design(blank, view, rows, recipe), own]) for view in table.views]
    design = sparse.vstack(parted).tocsr()
    shares = [1.0 - recipe.part_share, *[recipe.part_share / len(parts)] * len(parts)]
    weight = np.concatenate([table.weight[rows] * share for share in shares])
    bounds: Bounds = [(None, None)] * BUCKETS + [_bound(name, recipe) for name in LEXICAL_NAMES]
    bounds += [(None, None)] * own.shape[1]
    coef, bias = _logistic(design, np.tile(table.target[rows], len(shares)), weight, recipe.text_c, bounds)
    return TextHead(
        idf=blank.idf,
        word_coef=coef[:BUCKETS].astype(np.float32),
        lexical_mean=blank.lexical_mean,
        lexical_scale=blank.lexical_scale,
        lexical_coef=(coef[BUCKETS : BUCKETS + len(mean)] * recipe.lexical_weight).astype(np.float32),
        sense_coef=_sense_coef(_standardised(blank, whole.lexical[rows]), recipe),
        bias=bias,
    )


def text_design(head: TextHead, view: View, rows: Rows, recipe: Recipe) -> sparse.csr_matrix:
    """Return (n, BUCKETS + f): TF-IDF of length 1 and lexical counts, standardised and times `lexical_weight`."""
    lexical = _standardised(head, view.lexical[rows]) * recipe.lexical_weight
    return sparse.hstack([_weighted_terms(head, view.terms[rows]), sparse.csr_matrix(lexical)]).tocsr()


def _sense_coef(standardised: Doubles, recipe: Recipe) -> Floats:
    chosen = np.array([SENSE.get(name, 0.0) for name in LEXICAL_NAMES], np.float64)
    deviation = float((standardised @ chosen).std()) or 1.0
    return np.asarray(-recipe.sense_weight * chosen / deviation, np.float32)


def _bound(name: str, recipe: Recipe) -> tuple[float | None, float | None]:
    if name in UNUSED:
        return 0.0, 0.0
    return (None, 0.0) if recipe.monotone and name in UPWARD else (None, None)


def _standardised(head: TextHead, lexical: Doubles) -> Doubles:
    return np.clip((lexical - head.lexical_mean) / head.lexical_scale, -LEXICAL_LIMIT, LEXICAL_LIMIT)


def _weighted_terms(head: TextHead, terms: sparse.csr_matrix) -> sparse.csr_matrix:
    weighted = terms @ sparse.diags(head.idf.astype(np.float64))
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    norms[norms == 0.0] = 1.0
    return sparse.csr_matrix(sparse.diags(1.0 / norms) @ weighted)


def text_scores(head: TextHead, table: Table, rows: Rows) -> Doubles:
    """Return what `head.score` gives for each of the rows, all at once."""
    views = (*table.views, *table.stripped)
    return np.asarray(np.max([_view_scores(head, view, rows) for view in views], axis=0), np.float64)


def _view_scores(head: TextHead, view: View, rows: Rows) -> Doubles:
    words = _weighted_terms(head, view.terms[rows]) @ head.word_coef.astype(np.float64)
    lexical = _standardised(head, view.lexical[rows]) @ head.lexical_coef
    return np.asarray(words + lexical + head.bias, np.float64)


def _logistic(
    design: sparse.csr_matrix | Doubles,
    target: Doubles,
    weight: Doubles,
    c: float,
    bounds: Bounds | None,
) -> tuple[Doubles, float]:
    """Fit a ridge-penalised logistic regression to targets in [0, 1] by L-BFGS-B; the bias is not penalised."""
    d = design.shape[1]
    transposed = sparse.csr_matrix(design.T) if sparse.issparse(design) else np.ascontiguousarray(design.T)

    def loss(theta: Doubles) -> tuple[float, Doubles]:
        coef, bias = theta[:d], theta[d]
        z = np.asarray(design @ coef).ravel() + bias
        value = float((weight * (np.logaddexp(0.0, z) - target * z)).sum() + (coef @ coef) / (2.0 * c))
        residual = weight * (sigmoid(z) - target)
        gradient = np.asarray(transposed @ residual).ravel() + coef / c
        return value, np.append(gradient, residual.sum())

    limits = None if bounds is None else [*bounds, (None, None)]
    found = minimize(loss, np.zeros(d + 1), jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": 300})
    return found.x[:d], float(found.x[d])


def _reach(table: Table, rows: Rows, recipe: Recipe, rounds: int = 8) -> Reach:
    """Cluster by cosine; trust begins to fall below the 10th percentile of the rows and ends .25 lower."""
    vectors = table.vectors[rows]
    rng = np.random.default_rng(0)
    k = min(recipe.centroids, len(vectors))
    centroids = vectors[rng.permutation(len(vectors))[:k]].copy()
    for _ in range(rounds):
        nearest = np.argmax(vectors @ centroids.T, axis=1)
        sums = np.zeros_like(centroids)
        np.add.at(sums, nearest, vectors)
        filled = np.linalg.norm(sums, axis=1) > 1e-6
        centroids[filled] = sums[filled] / np.linalg.norm(sums[filled], axis=1, keepdims=True)
    rounded = centroids.astype(np.float16).astype(np.float32)  # as they will be stored
    cosines = vectors @ rounded.T
    near = float(np.quantile(cosines.max(axis=1), 0.1))
    extent = np.full((k, 2), -1.0, np.float32)
    np.maximum.at(extent, np.argmax(cosines, axis=1), table.extent[rows].astype(np.float32))
    extent = np.where(extent < 0.0, extent.max(axis=0), extent)  # of a centroid that lost its rows nothing is known
    return Reach(rounded, extent, far=near - 0.25, near=near, least=recipe.least_trust)


def sense_scores(head: TextHead, table: Table, rows: Rows, times: Doubles) -> Doubles:
    """Return what `head.sense` gives for each of the rows, all at once; `times` is (n,)."""
    whole, *headless = (
        np.asarray(_standardised(head, view.lexical[rows]) @ head.sense_coef, np.float64)
        for view in (table.views[0], table.views[BODY], *table.stripped)
    )
    return np.asarray(np.maximum(times * whole, times * np.max(headless, axis=0) - SENSE_LIMIT), np.float64)


def sigmoid(z: Doubles) -> Doubles:
    """Return 1 / (1 + exp(-z)), safe for large z."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(z, -30.0, 30.0))))
