"""Rebuild the two weight sets that ship: `python -m benchmarks.train_router general` and `... bundled [--collect]`.

`general` learns from ../shared/data/routing. `bundled` asks both bundled models the questions of backends.bundled.tasks
(greedy, in process), keeps their outcomes beside the weights and learns from those.
"""

import argparse
import gzip
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.bundled_outcomes import ask_bundled, bundled_questions
from benchmarks.router_data import ENCODER, FILES, SHARED, file_sha256, remembering_embedder, shared_rows
from router.fitting import Recipe
from router.outcomes import Outcome, read_outcomes
from router.train import Trained, train_pair
from router.weights import WEIGHTS_DIRECTORY, save_pair

BUNDLED_OUTCOMES: Final = WEIGHTS_DIRECTORY / "bundled_outcomes.jsonl.gz"
QUESTIONS_PER_FAMILY: Final = 600
BUNDLED_RECIPE: Final = Recipe(
    text_c=30.0,
    vector_c=30.0,
    lexical_weight=0.5,
    sense_weight=0.0,
    least_slope=0.0,
    monotone=False,
    gain_share=0.0,
    group_spread=0.0,
    vector_limit=0.1,
    vector_lift=100.0,
    far_sense=0.0,
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


def bundled_rows() -> list[Outcome]:
    """Return the kept outcomes of the two bundled models; the family is the group."""
    rows = read_outcomes(BUNDLED_OUTCOMES)
    with gzip.open(BUNDLED_OUTCOMES, "rt") as lines:
        families = [json.loads(line)["family"] for line in lines]
    return [replace(row, group=family) for row, family in zip(rows, families, strict=True)]


def collect_bundled(path: Path = BUNDLED_OUTCOMES, *, declared: bool = False) -> list[Outcome]:
    """Write what both bundled models get right; only wordings that the models were trained on are asked."""
    rows = ask_bundled(bundled_questions("train", QUESTIONS_PER_FAMILY), declared=declared)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(b"".join(_line(row) for row in rows), mtime=0))
    return rows


def _line(row: Outcome) -> bytes:
    known = {"query": row.query, "small_score": int(row.small_score), "large_score": int(row.large_score)}
    lengths = {"small_tokens": row.small_tokens, "large_tokens": row.large_tokens}
    return json.dumps(known | lengths | {"family": row.group}).encode() + b"\n"


def _abilities(rows: Sequence[Outcome]) -> str:
    """Write the share of right answers by family, small and large."""
    lines = []
    for family in dict.fromkeys(row.group for row in rows):
        inside = [row for row in rows if row.group == family]
        small = sum(row.small_score for row in inside) / len(inside)
        large = sum(row.large_score for row in inside) / len(inside)
        lines.append(f"  {family:10} n {len(inside):4}  small {small:.3f}  large {large:.3f}")
    return "\n".join(lines)


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
        rows = collect_bundled(declared=args.declared)
        print(
            f"{len(rows)} questions to both models, {time.perf_counter() - started:.0f} s\n{_abilities(rows)}",
            flush=True,
        )
    trained = train_general() if args.pair == "general" else train_bundled()
    manifest = save_pair(trained.weights, trained.manifest, args.out)
    print(json.dumps(manifest.metrics, indent=2))
    print(f"{args.pair}: {manifest.rows} rows, {manifest.weights_sha256[:8]}, {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
