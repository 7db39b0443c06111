"""Rebuild the two weight sets that ship: `python -m benchmarks.train_router general` and `... bundled [--collect]`.

`general` learns from ../shared/data/routing. `bundled` asks both bundled models the questions of backends.bundled.tasks
(greedy, in process), keeps their outcomes beside the weights and learns from those.
"""

import argparse
import gzip
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from backends.bundled.evaluate import HERE, MODELS, Model
from backends.bundled.tasks import Family, Question, draw, families, grade
from benchmarks.router_data import ENCODER, FILES, SHARED, file_sha256, remembering_embedder, shared_rows
from router.fitting import Recipe
from router.outcomes import read_outcomes
from router.train import Trained, train_pair
from router.weights import WEIGHTS_DIRECTORY, save_pair

BUNDLED_OUTCOMES: Final = WEIGHTS_DIRECTORY / "bundled_outcomes.jsonl.gz"
QUESTIONS_PER_FAMILY: Final = 600
BUNDLED_RECIPE: Final = Recipe(
    text_c=30.0,
    vector_c=30.0,
    lexical_weight=0.5,
    sense_weight=0.0,
    monotone=False,
    gain_share=0.0,
    stem_share=0.0,
    group_rows=10_000,
    least_trust=0.5,
)


def train_general() -> Trained:
    """Train `general` on all shared rows."""
    return train_pair(
        [*shared_rows("mmlu"), *shared_rows("multitask")],
        remembering_embedder(),
        pair="general",
        small="mixtral-8x7b-instruct and mistral-7b-instruct-v0.3",
        large="gpt-4-1106-preview and llama-3.1-nemotron-51b",
        encoder=ENCODER,
        data_sha256={name: file_sha256(SHARED / name) for name in FILES.values()},
        notes="Two pairs of models pooled; calibrate on outcomes of your own pair before trusting p.",
    )


def train_bundled() -> Trained:
    """Train `bundled` on the kept outcomes of the two bundled models."""
    return train_pair(
        read_outcomes(BUNDLED_OUTCOMES),
        remembering_embedder(),
        pair="bundled",
        small="small-int4",
        large="large-full",
        encoder=ENCODER,
        recipe=BUNDLED_RECIPE,
        data_sha256={BUNDLED_OUTCOMES.name: file_sha256(BUNDLED_OUTCOMES)},
        notes="Outcomes of the two bundled models on generated questions, in wordings that the models were trained on.",
    )


def collect_bundled(path: Path = BUNDLED_OUTCOMES, *, declared: bool = False) -> int:
    """Ask both bundled models and write what they got right; wordings kept for evaluation are never asked.

    With `declared`, a model counts as right on the families it is meant for, without being asked.
    """
    questions = [one for family in families() for one in _questions(family)]
    able = {family.name: family for family in families()}
    right = {tier: [getattr(able[one.family], tier) for one in questions] for tier in MODELS}
    for tier, directory in ({} if declared else MODELS).items():
        answers = Model(HERE / directory).answer([[{"role": "user", "content": one.prompt}] for one in questions])
        right[tier] = [grade(one, answer) for one, answer in zip(questions, answers, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(
        json.dumps({"query": one.prompt, "small_score": int(small), "large_score": int(large), "family": one.family})
        + "\n"
        for one, small, large in zip(questions, right["small"], right["large"], strict=True)
    )
    path.write_bytes(gzip.compress(lines.encode(), mtime=0))
    return len(questions)


def _questions(family: Family) -> list[Question]:
    """Draw as many questions as the family has, up to the wanted number."""
    rng = random.Random(f"{family.name}/router")
    drawn = (draw(family.name, rng, "train") for _ in range(4 * QUESTIONS_PER_FAMILY))
    return list({one.prompt: one for one in drawn}.values())[:QUESTIONS_PER_FAMILY]


def main(argv: Sequence[str] | None = None) -> int:
    """Train one pair and write its files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pair", choices=("general", "bundled"))
    parser.add_argument("--collect", action="store_true", help="ask the bundled models again first")
    parser.add_argument("--declared", action="store_true", help="take the abilities the models are meant to have")
    parser.add_argument("--out", type=Path, default=WEIGHTS_DIRECTORY)
    args = parser.parse_args(argv)
    started = time.perf_counter()
    if args.pair == "bundled" and (args.collect or args.declared or not BUNDLED_OUTCOMES.exists()):
        asked = collect_bundled(declared=args.declared)
        print(f"{asked} questions to both models, {time.perf_counter() - started:.0f} s", flush=True)
    trained = train_general() if args.pair == "general" else train_bundled()
    manifest = save_pair(trained.weights, trained.manifest, args.out)
    print(json.dumps(manifest.metrics, indent=2))
    print(f"{args.pair}: {manifest.rows} rows, {manifest.weights_sha256[:8]}, {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
