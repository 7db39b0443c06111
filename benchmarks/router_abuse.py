"""Whether words put before a prompt can buy it the large model: a search against our own weights.

    python -m benchmarks.router_abuse [--json benchmarks/results/router_abuse.json]

The attacker knows the weights and asks the router as often as it likes: of the 20 words that argue most for large (ten
by their own weight, ten by what is counted, such as marks of reasoning), it adds up to eight one after the other, each
time the one that sends most easy prompts to the large model. The trigger is searched on some easy prompts and measured
on others. `bundled`: generated questions that the small tier can do, at the default quality of .5. `general`: prompts
of the shared data above the median score, at the threshold that sends 30 % to large.
Beside it: the same attack on a router that judges each prompt as a whole, and the same words put after the prompt.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from benchmarks.bundled_outcomes import bundled_questions
from benchmarks.router_data import ENCODER, shared_rows
from gateway.whatif.offline import embed_texts
from router.complexity import PairModel
from router.features import text_views
from router.scoring import Vectors
from router.weights import WEIGHTS_DIRECTORY, PairWeights, load_pair

Place = Literal["before", "after"]
Scorer = Callable[[str, Vectors], float]

CANDIDATES: Final = 20
STEPS: Final = 8
EASY_FAMILIES: Final = frozenset(("greet", "copy", "sort", "add1", "fact_head"))
LARGE_SHARE: Final = 0.3


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to attack: vocabulary to choose from, easy prompts to search on and to measure on, and the threshold."""

    vocabulary: Sequence[str]
    search: Sequence[str]
    measure: Sequence[str]
    threshold: float


def target_of(pair: str, score: Scorer, prompts: int) -> Target:
    """Return the attack's target for a shipped pair."""
    rng = random.Random(0)
    if pair == "bundled":
        easy = [q.prompt for q in bundled_questions("rephrased", 60, seed=3) if q.family in EASY_FAMILIES]
        rng.shuffle(easy)
        texts = [question.prompt for question in bundled_questions("train", 200)]
        return Target(texts, easy[:prompts], easy[prompts : 3 * prompts], 0.5)
    texts = [row.query for part in ("mmlu", "multitask") for row in shared_rows(part)]
    drawn = rng.sample([text for text in texts if len(text) < 800], 10 * prompts)
    p = np.array([score(text, vector) for text, vector in zip(drawn, embed_texts(drawn), strict=True)])
    easy = [text for text, one in zip(drawn, p, strict=True) if one >= np.median(p)]
    return Target(texts, easy[:prompts], easy[prompts : 3 * prompts], float(np.quantile(p, LARGE_SHARE)))


def strongest_words(weights: PairWeights, texts: Sequence[str]) -> list[str]:
    """Return CANDIDATES words of `texts`: half argue most for large by their own weight, half by what is counted."""
    words = sorted({word for text in texts for word in text.lower().split() if word.isalpha()})
    wholes = {word: text_views(word).whole for word in words}
    text, slope = weights.text, weights.both.slope

    def strength(word: str) -> float:
        return float((text.idf * text.word_coef)[wholes[word].buckets] @ wholes[word].counts)

    def counted(word: str) -> float:
        return float(text.standardised(wholes[word]) @ (slope * text.lexical_coef / 2.0 + text.sense_coef))

    strongest = sorted(words, key=strength)[: CANDIDATES // 2]
    others = [word for word in sorted(words, key=counted) if word not in strongest]
    return strongest + others[: CANDIDATES - len(strongest)]


def attack(score: Scorer, target: Target, words: Sequence[str], place: Place) -> list[dict[str, Any]]:
    """Return the best trigger of every length and the large share that it reaches on prompts it was not tuned on."""
    steps = [{"trigger": "", "large_share": round(large_share(score, target.measure, "", place, target.threshold), 4)}]
    chosen: list[str] = []
    for _ in range(STEPS):
        tries = {word: " ".join([*chosen, word]) for word in words}
        chosen.append(max(words, key=lambda word: _reached(score, target, tries[word], place)))
        trigger = " ".join(chosen)
        reached = large_share(score, target.measure, trigger, place, target.threshold)
        steps.append({"trigger": trigger, "large_share": round(reached, 4)})
    return steps


def _reached(score: Scorer, target: Target, trigger: str, place: Place) -> tuple[float, float]:
    p = scores(score, target.search, trigger, place)
    return float(np.mean(p < target.threshold)), -float(p.mean())


def large_share(score: Scorer, prompts: Sequence[str], trigger: str, place: Place, threshold: float) -> float:
    """Return the share of `prompts` with the trigger that goes to the large model."""
    return float(np.mean(scores(score, prompts, trigger, place) < threshold))


def scores(score: Scorer, prompts: Sequence[str], trigger: str, place: Place) -> Vectors:
    """Return P(small suffices) of every prompt with the trigger."""
    texts = [f"{trigger} {one}".strip() if place == "before" else f"{one} {trigger}".strip() for one in prompts]
    pairs = zip(texts, embed_texts(texts), strict=True)
    return np.array([score(text, vector) for text, vector in pairs], np.float32)


def judged_as_a_whole(weights: PairWeights) -> Scorer:
    """Return the score of a router that looks at the whole prompt alone, for comparison."""

    def score(text: str, vector: Vectors) -> float:
        spoken = weights.text.score_view(text_views(text).whole)
        trust = weights.reach.trust_at(weights.reach.nearest(vector)[1])
        z = weights.both.at((spoken + weights.vector.score(vector)) / 2.0)
        return float(1.0 / (1.0 + np.exp(-(weights.prior + trust * (z - weights.prior)))))

    return score


def report(pair: str, directory: Path, prompts: int) -> dict[str, Any]:
    """Attack one pair in every way."""
    weights, _ = load_pair(pair, ENCODER, directory)
    model = PairModel.load(pair, ENCODER, directory=directory)

    def shipped(text: str, vector: Vectors) -> float:
        return model.score(text, vector).p_small_suffices

    result: dict[str, Any] = {}
    attacks: tuple[tuple[str, Scorer, Place], ...] = (
        ("shipped, before", shipped, "before"),
        ("shipped, after", shipped, "after"),
        ("judged as a whole, before", judged_as_a_whole(weights), "before"),
    )
    for name, score, place in attacks:
        target = target_of(pair, score, prompts)
        steps = attack(score, target, strongest_words(weights, target.vocabulary), place)
        shares = [step["large_share"] for step in steps]
        result[name] = {"rise_points": round(100 * (max(shares) - shares[0]), 2), "steps": steps}
        print(f"{pair:8} {name:26} large share by words added: {shares}", flush=True)
    return {"prompts_measured": len(target.measure), **result}


def main(argv: Sequence[str] | None = None) -> int:
    """Attack both shipped pairs and, where asked, write what came of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--prompts", type=int, default=40, help="easy prompts to search on; twice as many to measure")
    parser.add_argument("--pair", action="append", choices=("bundled", "general"), help="default: both")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_DIRECTORY, help="folder of the weight sets")
    args = parser.parse_args(argv)
    result = {pair: report(pair, args.weights, args.prompts) for pair in args.pair or ("bundled", "general")}
    if args.json:
        about = {
            "command": "python -m benchmarks.router_abuse --json FILE",
            "prompts": args.prompts,
            "steps": STEPS,
            "candidates": CANDIDATES,
        }
        args.json.write_text(json.dumps({"about": about, "large_share": result}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
