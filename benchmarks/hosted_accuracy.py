"""Accuracy of the hosted tiers by task family, measured through a running gateway.

Starts nothing by itself: `headgate serve` first, then

    python -m benchmarks.hosted_accuracy --url http://127.0.0.1:8080 --key KEY --json benchmarks/results/FILE.json

Every question goes to each tier by name with the cache bypassed; `held out` counts the questions whose contents
(operand pairs, lists) never occurred in training, `rephrased` those whose wording never did. Exact match.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from backends.bundled.tasks import Family, Question, Split, families, generate, grade

SEED = 20_261
CONCURRENCY = 8
TIERS = ("small", "large")


@dataclass(frozen=True, slots=True)
class Row:
    """One family on one tier; `share` figures are right answers / questions."""

    tier: str
    family: str
    meant_for_tier: bool
    questions: int
    accuracy: float
    held_out_questions: int
    held_out_accuracy: float | None
    rephrased_questions: int
    rephrased_accuracy: float
    mean_cost_nano_usd: float


def questions_of(family: Family, n: int) -> list[tuple[str, Question]]:
    """Return `n` questions with trained wordings and `n // 4` with wordings that never occur in training."""
    trained = [("test", question) for question in as_many(family.name, n, "test")]
    return trained + [("rephrased", question) for question in as_many(family.name, n // 4, "rephrased")]


def as_many(family: str, n: int, split: Split) -> list[Question]:
    """Return `n` questions with distinct prompts, or as many as the family has, in steps of a tenth of `n`."""
    for wanted in range(n, 0, -max(1, n // 10)):
        with contextlib.suppress(ValueError):
            return generate(family, SEED, wanted, split)
    raise ValueError(f"family {family!r} has no questions in split {split!r}")


async def ask(client: httpx.AsyncClient, tier: str, question: Question) -> tuple[bool, int]:
    """Return whether the answer is right, and its cost in nano-USD."""
    answer = await client.post(
        "/v1/chat/completions",
        json={"model": tier, "messages": [{"role": "user", "content": question.prompt}], "max_tokens": 64},
    )
    answer.raise_for_status()
    text = answer.json()["choices"][0]["message"]["content"]
    return grade(question, text), round(float(answer.headers["x-headgate-cost-usd"]) * 1e9)


async def measure(url: str, key: str, n: int, progress: Progress) -> list[Row]:
    """Ask every family's questions of every tier."""
    headers = {"authorization": f"Bearer {key}", "x-headgate-cache": "bypass"}
    gate = asyncio.Semaphore(CONCURRENCY)
    rows = []
    limits = httpx.Limits(max_connections=CONCURRENCY)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120, trust_env=False, limits=limits) as client:
        for tier in TIERS:
            for family in families():
                asked = questions_of(family, n)
                task = progress.add_task(f"{tier} {family.name}", total=len(asked))

                async def one(question: Question, tier: str = tier, task: object = task) -> tuple[bool, int]:
                    async with gate:
                        result = await ask(client, tier, question)
                    progress.advance(task)  # type: ignore[arg-type]
                    return result

                results = await asyncio.gather(*(one(question) for _, question in asked))
                rows.append(summary(tier, family, asked, results))
    return rows


def summary(
    tier: str, family: Family, asked: Sequence[tuple[str, Question]], results: Sequence[tuple[bool, int]]
) -> Row:
    """Reduce one family's results to a row."""
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for (split, question), (right, _) in zip(asked, results, strict=True):
        by_kind[split].append(right)
        if split == "test" and question.held_out:
            by_kind["held_out"].append(right)
    held_out = by_kind["held_out"]
    return Row(
        tier=tier,
        family=family.name,
        meant_for_tier=family.small if tier == "small" else family.large,
        questions=len(by_kind["test"]),
        accuracy=sum(by_kind["test"]) / len(by_kind["test"]),
        held_out_questions=len(held_out),
        held_out_accuracy=sum(held_out) / len(held_out) if held_out else None,
        rephrased_questions=len(by_kind["rephrased"]),
        rephrased_accuracy=sum(by_kind["rephrased"]) / len(by_kind["rephrased"]),
        mean_cost_nano_usd=sum(cost for _, cost in results) / len(results),
    )


def print_table(rows: Sequence[Row]) -> None:
    """Print the rows for people."""
    table = Table(title="accuracy of the hosted tiers, through the gateway")
    for column in ("tier", "family", "meant for it", "n", "accuracy", "held out", "rephrased", "nano-USD each"):
        table.add_column(column, justify="left" if column in ("tier", "family", "meant for it") else "right")
    for row in rows:
        table.add_row(
            row.tier,
            row.family,
            "yes" if row.meant_for_tier else "no",
            str(row.questions),
            f"{row.accuracy:.3f}",
            "-" if row.held_out_accuracy is None else f"{row.held_out_accuracy:.3f}",
            f"{row.rephrased_accuracy:.3f}",
            f"{row.mean_cost_nano_usd:.0f}",
        )
    Console().print(table)


def main() -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", default=os.environ.get("HEADGATE_KEY"), help="default: $HEADGATE_KEY")
    parser.add_argument("--questions", type=int, default=1_000, help="per family and tier (default: 1000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    arguments = parser.parse_args()
    if not arguments.key:
        parser.error("--key or HEADGATE_KEY is needed: headgate keys create --tenant demo")
    started_s = time.monotonic()
    with Progress(transient=True) as progress:
        rows = asyncio.run(measure(arguments.url, arguments.key, arguments.questions, progress))
    print_table(rows)
    if arguments.json:
        document = {
            "benchmark": "hosted_accuracy",
            "command": "python -m benchmarks.hosted_accuracy " + " ".join(sys.argv[1:]).replace(arguments.key, "KEY"),
            "seed": SEED,
            "seconds": round(time.monotonic() - started_s, 1),
            "hardware": f"{os.cpu_count()} cores, {platform.machine()}",
            "versions": {name: version(name) for name in ("openvino-genai", "litestar", "headgate")},
            "rows": [asdict(row) for row in rows],
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
