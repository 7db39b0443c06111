"""Train the guard's score on generated pairs and the `advising` pairs, and calibrate it on families it has not seen.

    python benchmarks/train_guard.py [--data DIR] [--check]

Pairs come from templates of our own (cache/pairs.py) and from the source `advising` (CC BY 4.0; text2sql-data); no text
of either is written. Coefficients are ridge-penalised logistic, those with a known direction held to its sign, so that
more evidence against a pair can never raise its score. The calibration counts false hits of scores that were computed
without the pair's own family (templates, slots and all), among two requests a pair: one makes the entry, one asks.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from cache.calibration import SHIPPED, as_file, calibrate, threshold_for
from cache.evidence import NAMES
from cache.guard import Evidence, Guard
from cache.minilm import bundled_lexicon, load_minilm
from cache.normalise import normalise
from cache.pairs import Pair, generate_pairs, load_frames

DATA = Path(__file__).resolve().parents[2] / "shared/data/cache/dev_pairs.jsonl"
SEED = 1
RIDGE = 0.5
ADVISING_WEIGHT = 3.0
THRESHOLDS = tuple(step / 100 for step in range(40, 100))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FOR = _words(
    """similarity similarity_above_80 similarity_above_90 similarity_above_95 margin shared_weight shared_ratio
    token_overlap trigram_overlap token_order content_order length_ratio adverb_words rule_same rule_owner"""
)
AGAINST = _words(
    """fewer_words more_words fewer_weight more_weight heaviest_word question_other question_unrelated persons
    third_persons auxiliaries tense reordered added_sentence unknown_words uncommon_words names_other
    prepositional_words modified_words qualified_end content_words short rule_question rule_rewritten-question
    rule_rewritten-rare"""
)
Matrix = NDArray[np.float64]


@dataclass
class Sample:
    """Evidence (n, features), labels (n,) and families (n,) of pairs that no rule decides, among `requests` pairs."""

    evidence: Matrix
    labels: Matrix
    families: NDArray[Any]
    requests: int


def main() -> None:
    options = _options()
    advising = [_advising(row) for row in _rows(options.data) if row["src"] == "advising"]
    generated = list(generate_pairs(load_frames(), SEED))
    own, other = asyncio.run(_samples([generated, advising]))
    score, intercept = _fit(own, other)
    steps = calibrate(_scores_of_false_hits(own, other), 2 * own.requests, THRESHOLDS)
    coefficients = {name: round(float(weight), 4) for name, weight in zip(NAMES, score, strict=True)}
    what = f"{len(generated)} generated pairs (seed {SEED}), {len(advising)} pairs of advising (CC BY 4.0)"
    SHIPPED.write_bytes(as_file(coefficients, round(intercept, 4), steps, load_minilm().fingerprint, what))
    for step in steps:
        print(f"threshold {step.threshold:.2f}: {step.false_hits} false of {step.requests}, at most {step.bound:.3%}")
    print(f"threshold at 0.5 %: {threshold_for(steps, 0.005)}, at 0.1 %: {threshold_for(steps, 0.001)}")


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _advising(row: dict[str, Any]) -> Pair:
    same = bool(row["label"])
    return Pair(row["a"], row["b"], same, row["cat"], "advising", str(row["cid_a"]), str(row["cid_b"]))


async def _samples(groups: Sequence[Sequence[Pair]]) -> list[Sample]:
    """Embed every prompt once and collect the evidence of the pairs that the rules leave open."""
    embedder = load_minilm()
    while not embedder.is_ready():  # noqa: ASYNC110 - readiness is no event
        await asyncio.sleep(0.01)
    guard = Guard(bundled_lexicon())
    texts = sorted({text for pairs in groups for one in pairs for text in (one.cached, one.new)})
    rows: list[Any] = []
    for at in range(0, len(texts), 32):
        rows += await embedder.embed(texts[at : at + 32])
    await embedder.close()
    vectors = dict(zip(texts, rows, strict=True))
    return [_sample(pairs, guard, vectors) for pairs in groups]


def _sample(pairs: Sequence[Pair], guard: Guard, vectors: dict[str, Any]) -> Sample:
    evidence, labels, families = [], [], []
    cached = {one.class_cached: one.cached for one in pairs}
    classes, pool = list(cached), np.stack([vectors[text] for text in cached.values()])
    for one in pairs:
        if normalise(one.cached) == normalise(one.new):
            continue
        similarity = float(vectors[one.cached] @ vectors[one.new])
        others = pool @ vectors[one.new]
        others[classes.index(one.class_cached)] = -1.0
        found = guard.evidence(one.cached, one.new, similarity, margin=similarity - float(others.max()))
        if isinstance(found, Evidence):
            evidence.append(found.values)
            labels.append(float(one.is_same))
            families.append(one.family)
    return Sample(np.array(evidence), np.array(labels), np.array(families), len(pairs))


def _fit(own: Sample, other: Sample) -> tuple[Matrix, float]:
    """Return coefficients and intercept of the two samples together."""
    evidence = np.vstack([own.evidence, other.evidence])
    labels = np.concatenate([own.labels, other.labels])
    weights = np.concatenate([np.ones(len(own.labels)), np.full(len(other.labels), ADVISING_WEIGHT)])

    def loss(parameters: Matrix) -> tuple[float, Matrix]:
        logits = evidence @ parameters[:-1] + parameters[-1]
        losses = np.logaddexp(0, -logits) * labels + np.logaddexp(0, logits) * (1 - labels)
        slope = (1 / (1 + np.exp(-logits)) - labels) * weights
        penalty = RIDGE * parameters[:-1]
        value = float((losses * weights).sum() + penalty @ parameters[:-1] / 2)
        return value, np.append(evidence.T @ slope + penalty, slope.sum())

    bounds = [(0 if name in FOR else None, 0 if name in AGAINST else None) for name in NAMES]
    found = minimize(loss, np.zeros(len(NAMES) + 1), jac=True, method="L-BFGS-B", bounds=[*bounds, (None, None)])
    return found.x[:-1], float(found.x[-1])


def _scores_of_false_hits(own: Sample, other: Sample) -> list[float]:
    """Score each wrong pair by a table fitted without its family."""
    scores: list[float] = []
    for family in np.unique(own.families):
        out = own.families == family
        rest = Sample(own.evidence[~out], own.labels[~out], own.families[~out], own.requests)
        score, intercept = _fit(rest, other)
        wrong = own.evidence[out & (own.labels == 0)]
        scores += (1 / (1 + np.exp(-(wrong @ score + intercept)))).tolist()
    return scores


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="labelled pairs with the source `advising`")
    return parser.parse_args()


if __name__ == "__main__":
    main()
