"""Train the weights of a pair from outcomes: what `headgate route train` does.

Two heads are fitted apart, on hashed TF-IDF with lexical counts and on the embedding, brought to one scale by their
held-out scores and averaged. Hyper-parameters, scale, calibration and every metric come from folds in which whole
groups (subjects, tasks) are left out: a random split flatters every router.

Choices that the folds supported (benchmarks/results/router_quality.json):
- Lexical counts may only argue for the large model where more means harder (UPWARD): a guard against learning the
  format of a data set, which costs nothing on the folds.
- Both heads learn what escalation gains, beside an intercept for each group, and groups count alike: so they learn what
  holds inside groups rather than which groups are easy. On subjects left out at random that gave .05 of APGR; penalties
  on the intercepts much weaker than this cost .02 on subjects that are known.
- A small fixed slope (SENSE) stands beside what is learnt: longer prompts with more marks of reasoning are harder. It
  is the only voice where the data do not reach, and counts more there (`far_sense`); on the folds that lifted unseen
  tasks by .10 of APGR and cost .005 on unseen subjects.
- What is learnt keeps a least weight beside it (`least_slope`): held-out groups differ so much in their rates that the
  fitted slope is anything from 0 to .4, and at 0 the order would be lost that escalation gains by.
- The embedding moves the score a bounded way only (`vector_limit`, `vector_lift`): that costs .005 where the subjects
  are known and nothing on unseen ones, and a trigger before a prompt moves just the embedding.
- The embedding is also shown without the answers offered.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from router.calibration import fit_line
from router.evaluate import Outcomes, measure
from router.features import FEATURES_VERSION
from router.fitting import Recipe, Table, build_table, fit_heads, sense_scores, sigmoid, text_scores
from router.length_fitting import fit_lengths
from router.outcomes import Outcome
from router.scoring import Embed
from router.weights import Line, Manifest, PairWeights, TextHead, VectorHead

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trained:
    """Weights and their manifest; `held_out` is (n,) P(small suffices) of every row by models that never saw it."""

    weights: PairWeights
    manifest: Manifest
    held_out: Doubles


@dataclass(frozen=True, slots=True)
class _Judged:
    """What heads of other folds say of every row: both scores, the fixed slopes' log-odds, and where the row lies."""

    text: Doubles
    vector: Doubles
    sense: Doubles
    nearness: Doubles
    is_beyond: NDArray[np.bool_]


def train_pair(
    rows: Sequence[Outcome],
    embed: Embed,
    *,
    pair: str,
    small: str,
    large: str,
    encoder: str,
    recipe: Recipe | None = None,
    data_sha256: dict[str, str] | None = None,
    notes: str = "",
) -> Trained:
    """Train on `rows`; the metrics in the manifest are those of groups left out.

    Takes about fifteen seconds per 10,000 rows on one core, embedding apart. Deterministic for equal input.

    Raises:
        ValueError: fewer than two folds of rows, or the outcomes are all alike.
    """
    recipe = recipe or Recipe()
    table = build_table(rows, embed, recipe)
    if len(np.unique(table.fold)) < 2 or len(np.unique(table.suffices)) < 2:
        raise ValueError("training needs prompts of at least two groups, and some that need the large model")
    with threadpool_limits(limits=1):  # the same sums on every machine, and cores left for whoever serves
        weights, held_out = fit_pair(table, recipe)
        lengths = fit_lengths(weights.text, table, rows, recipe)
    manifest = Manifest(
        pair=pair,
        small=small,
        large=large,
        encoder=encoder,
        features=FEATURES_VERSION,
        weights_sha256="",
        rows=len(rows),
        groups=len({row.group for row in rows}),
        base_rate=round(weights.base_rate, 6),
        data_sha256=data_sha256 or {},
        recipe={name: float(value) for name, value in asdict(recipe).items()},
        metrics=_metrics(rows, held_out) | ({} if lengths is None else lengths[1]),
        notes=notes,
    )
    if lengths is not None:
        weights = replace(weights, lengths=lengths[0])
    return Trained(weights, manifest, held_out)


def fit_pair(table: Table, recipe: Recipe) -> tuple[PairWeights, Doubles]:
    """Fit scale and calibration on folds, then both heads on all rows; return the weights and (n,) held-out P."""
    judged = _held_out(table, recipe)
    text_scale, vector_scale = float(judged.text.std()) or 1.0, float(judged.vector.std()) or 1.0
    spoken = judged.text / text_scale
    joined = (spoken + judged.vector / vector_scale) / 2.0
    scores = np.clip(joined, spoken - recipe.vector_limit, spoken + recipe.vector_lift)
    heads = fit_heads(table, np.arange(len(scores)), recipe)
    weights = PairWeights(
        text=_scaled_text(heads.text, text_scale),
        vector=VectorHead(heads.vector.coef / np.float32(vector_scale), heads.vector.bias / vector_scale),
        vector_limit=recipe.vector_limit,
        vector_lift=recipe.vector_lift,
        far_sense=recipe.far_sense,
        reach=heads.reach,
        both=_platt(scores, judged.sense, table, recipe),
        text_alone=_platt(spoken, judged.sense, table, recipe),
        base_rate=float(np.clip(np.average(table.suffices, weights=table.weight), 0.02, 0.98)),
    )
    learnt = weights.both.slope * scores + weights.both.offset
    trust = weights.reach.least + (1.0 - weights.reach.least) * judged.nearness
    drawn = weights.prior + trust * (learnt - weights.prior)
    return weights, sigmoid(np.where(judged.is_beyond, np.minimum(drawn, weights.prior), drawn) + judged.sense)


def _metrics(rows: Sequence[Outcome], held_out: Doubles) -> dict[str, float]:
    small = np.array([row.small_score for row in rows])
    large = np.array([row.large_score for row in rows])
    figures = asdict(measure(Outcomes(held_out, small, large)))
    return {f"held_out_{name}": round(value, 4) for name, value in figures.items() if not np.isnan(value)}


def _held_out(table: Table, recipe: Recipe) -> _Judged:
    """Judge every row by heads fitted on the other folds."""
    n = len(table.target)
    judged = _Judged(np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n, np.bool_))
    for fold in np.unique(table.fold):
        inside = np.flatnonzero(table.fold == fold)
        heads = fit_heads(table, np.flatnonzero(table.fold != fold), recipe)
        judged.text[inside] = text_scores(heads.text, table, inside)
        judged.vector[inside] = table.vectors[inside] @ heads.vector.coef + heads.vector.bias
        for row in inside:
            at, judged.nearness[row] = heads.reach.nearest(table.vectors[row])
            judged.is_beyond[row] = heads.reach.is_beyond(tuple(table.extent[row]), at)
        times = 1.0 + recipe.far_sense * (1.0 - judged.nearness[inside])
        judged.sense[inside] = sense_scores(heads.text, table, inside, times)
    return judged


def _scaled_text(head: TextHead, scale: float) -> TextHead:
    return TextHead(
        idf=head.idf,
        word_coef=head.word_coef / np.float32(scale),
        lexical_mean=head.lexical_mean,
        lexical_scale=head.lexical_scale,
        lexical_coef=head.lexical_coef / np.float32(scale),
        sense_coef=head.sense_coef,
        bias=head.bias / scale,
    )


def _platt(scores: Doubles, sense: Doubles, table: Table, recipe: Recipe) -> Line:
    """Fit log-odds with the smoothed targets of Platt (1999, section 2.2): separable data do not end in certainty.

    Below `least_slope` the slope is set to it and the offset fitted alone.
    """
    positives = float(table.suffices.sum())
    negatives = len(scores) - positives
    target = np.where(table.suffices, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))
    line = fit_line(scores, target, prior_rows=0.0, weights=table.weight, beside=sense)
    if line.slope >= recipe.least_slope:
        return line
    given = sense + recipe.least_slope * scores
    level = fit_line(np.zeros_like(scores), target, prior_rows=0.0, weights=table.weight, beside=given)
    return Line(recipe.least_slope, level.offset)
