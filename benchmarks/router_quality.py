"""How good the router is on groups it never saw, beside the baselines that must be beaten.

    python -m benchmarks.router_quality [--json benchmarks/results/router_quality.json]

Trains on ../shared/data/routing with whole subjects and tasks left out (the folds of the files) and prints APGR,
CPT(50), CPT(80), AUC, ECE, Brier and the cost at 95 % of the large model's quality, with bootstrap intervals; then with
a third of all subjects and tasks left out at random, several times over, since which ones matters most. The
figures that RouteLLM published stand beside them: same pair of models, but all of MMLU, so a landmark only.
Needs no network; the first run embeds all prompts (about ten minutes on one core) and keeps the vectors under var/.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.bundled_outcomes import ask_bundled, bundled_questions
from benchmarks.router_data import ENCODER, REMEMBERED, remembering_embedder, shared_rows
from core.plan import Standing
from router.calibration import fit_line
from router.complexity import PairModel
from router.evaluate import Outcomes, apgr, bootstrap, measure
from router.fitting import Recipe, Table, build_table, sigmoid
from router.outcomes import Outcome
from router.planner import make_plan
from router.scoring import Embed, score_texts
from router.train import fit_pair, train_pair
from router.weights import save_pair
from tests.planning import EASY, chat, declared, policy, two_tiers

Doubles = NDArray[np.float64]
Router = Callable[[], Doubles]

PARTS: Final = ("mmlu", "multitask")
LEFT_OUT: Final = {"mmlu": "subjects", "multitask": "tasks", "bundled": "wordings"}
NEIGHBOURS: Final = 100
ONE_PREFIX: Final = "mmlu/moral_scenarios"
"""One subject of 38, but 895 of 6,502 rows that begin alike: whoever ranks it right looks good on the rest, too."""
MONEY_COLUMNS: Final = ("large_share_at_95", "cost_at_95_of_all_large")
LARGE_OVER_SMALL: Final = {"mmlu": 24.7 / 0.24, "multitask": 5.0, "bundled": 5.0}
"""Price ratios: RouteLLM's figures for gpt-4 and mixtral-8x7b; for the others an assumed 5 to 1."""

PUBLISHED: Final = {
    "RouteLLM arena MF": (45.00, 76.86, 0.524),
    "RouteLLM arena SW": (55.82, 80.25, 0.473),
    "RouteLLM arena BERT": (49.43, 77.80, 0.502),
    "RouteLLM arena causal 8B": (48.88, 77.93, 0.499),
    "RouteLLM augmented MF": (35.46, 71.40, 0.597),
    "RouteLLM augmented SW": (35.40, 71.55, 0.603),
    "RouteLLM augmented BERT": (41.30, 72.20, 0.572),
    "RouteLLM augmented causal 8B": (35.49, 70.31, 0.600),
}
"""CPT(50) and CPT(80) in percent and APGR on MMLU, arXiv 2406.18665, table 2."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Held-out P(small suffices) of one router for every row."""

    name: str
    p_small: Doubles


def routers(rows: Sequence[Outcome], embed: Embed) -> list[Scored]:
    """Score every row by every router, each trained on the other folds only."""
    table = build_table(rows, embed, Recipe())
    # Folds of the two files are drawn apart, but leave whole groups of both out together.
    heads = {
        "shipped": Recipe(),
        "free lexical signs": Recipe(monotone=False),
        "no fixed slope": Recipe(sense_weight=0.0),
        "no intercepts of groups": Recipe(group_spread=0.0),
    }
    with threadpool_limits(limits=1):
        scored = [Scored("random", np.full(len(rows), table.suffices.mean()))]
        scored.append(Scored("length", _platt(-table.views[0].lexical[:, 0], table)))
        scored.append(Scored("kNN-100", _neighbours(table)))
        scored += [Scored(name, fit_pair(table, recipe)[1]) for name, recipe in heads.items()]
        offered = replace(table, fold=np.random.default_rng(0).integers(0, 5, len(rows)))
        scored.append(Scored("shipped, random split (flatters)", fit_pair(offered, Recipe())[1]))
    small, large = _scores(rows)
    scored.append(Scored("oracle", np.clip((1.0 - (large - small)) / 2.0, 0.0, 1.0)))
    return scored


def bundled_report(embed: Embed, per_family: int, rounds: int) -> dict[str, Any]:
    """Measure the shipped `bundled` weights on wordings that neither they nor the bundled models have seen."""
    rows = ask_bundled(bundled_questions("rephrased", per_family, seed=1))
    small, large = _scores(rows)
    model = PairModel.load("bundled", ENCODER)
    lengths = np.array([len(row.query) for row in rows], np.float64)
    scored = {
        "random": np.full(len(rows), 0.5),
        "length": 1.0 / (1.0 + lengths / lengths.mean()),
        "shipped": score_texts(model, [row.query for row in rows], embed),
        "shipped, no vector": np.array([model.score(row.query, None).p_small_suffices for row in rows]),
        "oracle": np.clip((1.0 - (large - small)) / 2.0, 0.0, 1.0),
    }
    everywhere = np.ones(len(rows), np.bool_)
    units = np.array([row.group for row in rows])
    return {
        name: _measured(Outcomes(p, small, large), everywhere, units, "bundled", rounds)
        | {"wrong_side_of_half": round(float(np.mean((p >= 0.5) != (small >= large))), 4)}
        for name, p in scored.items()
    }


def drawn_report(rows: Sequence[Outcome], embed: Embed, draws: int) -> dict[str, Any]:
    """Measure weights trained without a third of all subjects and tasks, drawn anew each time, on those left out."""
    names = {part: sorted({row.group for row in rows if row.group.startswith(part)}) for part in PARTS}
    found: dict[str, list[float]] = {}
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        left_out = {str(one) for part in PARTS for one in rng.choice(names[part], len(names[part]) // 3, replace=False)}
        rest = [row for row in rows if row.group not in left_out]
        trained = train_pair(rest, embed, pair="drawn", small="s", large="l", encoder=ENCODER)
        model = PairModel(trained.weights, trained.manifest)
        for part in PARTS:
            held = [row for row in rows if row.group in left_out and row.group.startswith(part)]
            texts = [row.query for row in held]
            lengths = -np.array([len(text) for text in texts], np.float64)
            for name, value in _drawn_figures(held, score_texts(model, texts, embed), lengths).items():
                found.setdefault(f"{part} {name}", []).append(value)
    return {
        name: {"mean": round(float(np.nanmean(values)), 3), "deviation": round(float(np.nanstd(values)), 3)}
        for name, values in found.items()
    } | {"draws": draws}


def _drawn_figures(held: Sequence[Outcome], p_small: Doubles, lengths: Doubles) -> dict[str, float]:
    """Return what one draw reads, also without the subject that is one prefix many times over."""
    small, large = _scores(held)
    others = np.flatnonzero(np.array([row.group != ONE_PREFIX for row in held]))
    shipped, length = Outcomes(p_small, small, large), Outcomes(lengths, small, large)
    figures = {"shipped": apgr(shipped), "length": apgr(length), "shipped ece": measure(shipped).ece}
    if held[0].group.startswith("mmlu"):
        figures["shipped, one subject less"] = apgr(shipped.take(others))
        figures["length, one subject less"] = apgr(length.take(others))
    return figures


def _platt(x: Doubles, table: Table) -> Doubles:
    """Return P by one line for all rows: by fold, slopes of their own would garble the order of pooled rows."""
    line = fit_line(x, table.suffices, prior_rows=0.0)
    return sigmoid(line.slope * x + line.offset)


def _neighbours(table: Table) -> Doubles:
    p = np.zeros(len(table.target))
    for fold in np.unique(table.fold):
        inside = np.flatnonzero(table.fold == fold)
        others = np.flatnonzero(table.fold != fold)
        closeness = table.vectors[inside] @ table.vectors[others].T
        nearest = np.argpartition(-closeness, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        p[inside] = table.suffices[others][nearest].mean(axis=1)
    return p


def _scores(rows: Sequence[Outcome]) -> tuple[Doubles, Doubles]:
    return np.array([row.small_score for row in rows]), np.array([row.large_score for row in rows])


def report(rows: Sequence[Outcome], scored: Sequence[Scored], rounds: int) -> dict[str, Any]:
    """Measure every router on each part, pooled and fold by fold (multitask: task by task)."""
    small, large = _scores(rows)
    result: dict[str, Any] = {}
    for part in PARTS:
        inside = np.array([row.group.startswith(part) for row in rows])
        units = np.array([row.group if part == "multitask" else f"fold {row.fold}" for row in rows])
        result[part] = {
            one.name: _measured(Outcomes(one.p_small, small, large), inside, units, part, rounds) for one in scored
        }
    return result


def _measured(
    outcomes: Outcomes, inside: NDArray[np.bool_], units: NDArray[np.str_], part: str, rounds: int
) -> dict[str, Any]:
    pooled = outcomes.take(np.flatnonzero(inside))
    figures = measure(pooled)
    interval = bootstrap(pooled, apgr, rounds=rounds)
    per_unit = {
        unit: apgr(outcomes.take(np.flatnonzero(inside & (units == unit)))) for unit in np.unique(units[inside])
    }
    share, ratio = figures.large_share_at_95, LARGE_OVER_SMALL[part]
    return {
        **{name: round(value, 4) for name, value in asdict(figures).items()},
        "apgr_interval": [round(interval.low, 3), round(interval.high, 3)],
        "cost_at_95_of_all_large": round((share * ratio + 1.0 - share) / ratio, 4),
        "apgr_by_unit": {str(unit): None if np.isnan(value) else round(value, 3) for unit, value in per_unit.items()},
        "mean_apgr_of_units": round(float(np.nanmean(list(per_unit.values()))), 3),
    }


def times_ms(model: PairModel, texts: Sequence[str], embed: Embed) -> dict[str, float]:
    """Return p50 and p99 milliseconds of one score with the embedding at hand, after a warm-up."""
    pairs = list(zip(texts, embed(texts), strict=True))
    for text, vector in pairs[:50]:
        model.score(text, vector)
    spent = []
    for text, vector in pairs:
        start = time.perf_counter()
        model.score(text, vector)
        spent.append((time.perf_counter() - start) * 1e3)
    return {"n": len(spent), "p50": round(median(spent), 3), "p99": round(float(np.quantile(spent, 0.99)), 3)}


def timings(rows: Sequence[Outcome], embed: Embed) -> dict[str, Any]:
    """Time training (embeddings kept) and scoring of prompts up to 800 characters (200 tokens), and longer ones."""
    start = time.perf_counter()
    trained = train_pair(rows, embed, pair="timing", small="s", large="l", encoder=ENCODER)
    training_s = time.perf_counter() - start
    save_pair(trained.weights, trained.manifest, REMEMBERED)
    model = PairModel.load("timing", ENCODER, directory=REMEMBERED)
    short = [row.query for row in rows if len(row.query) <= 800][:1_000]
    long = [row.query for row in rows if len(row.query) > 2_000][:300]
    return {
        "training_s": round(training_s, 1),
        "score_up_to_800_chars_ms": times_ms(model, short, embed),
        "score_over_2000_chars_ms": times_ms(model, long, embed),
        "plan_ms": plan_ms(),
    }


def plan_ms(n: int = 5_000) -> dict[str, float]:
    """Return p50 and p99 milliseconds of one plan over two tiers with a budget and fallback."""
    facts, rules, tiers = declared(chat("What is the sum of 12 and 33? " * 20)), policy(), two_tiers()
    spent = []
    for _ in range(n):
        start = time.perf_counter()
        make_plan(facts, rules, EASY, Standing(free_nano_usd=10**9), tiers)
        spent.append((time.perf_counter() - start) * 1e3)
    return {"n": n, "p50": round(median(spent), 4), "p99": round(float(np.quantile(spent, 0.99)), 4)}


def table_text(part: str, measured: dict[str, Any]) -> str:
    """Write one part as a Markdown table."""
    lines = [
        f"\n{part}: whole {LEFT_OUT[part]} left out\n",
        "| router | APGR | interval | CPT50 | CPT80 | AUC | ECE | Brier | large at 95 % | cost | mean of units |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, figures in measured.items():
        low, high = figures["apgr_interval"]
        columns = ("cpt50", "cpt80", "auc", "ece", "brier", *MONEY_COLUMNS, "mean_apgr_of_units")
        cells = [
            f"{figures['apgr']:.3f}",
            f"{low:.2f} to {high:.2f}",
            *(f"{figures[column]:.3f}" for column in columns),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    if part == "mmlu":
        lines += [
            f"| {name} (published) | {value:.3f} | | {cpt50 / 100:.3f} | {cpt80 / 100:.3f} | | | | | | |"
            for name, (cpt50, cpt80, value) in PUBLISHED.items()
        ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables and, where asked, write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--rounds", type=int, default=500, help="bootstrap rounds")
    parser.add_argument("--draws", type=int, default=8, help="of a third of all subjects and tasks to leave out")
    parser.add_argument("--per-family", type=int, default=200, help="questions to the bundled models by family")
    args = parser.parse_args(argv)
    embed = remembering_embedder()
    rows = [*shared_rows("mmlu"), *shared_rows("multitask")]
    result = report(rows, routers(rows, embed), args.rounds)
    result["bundled"] = bundled_report(embed, args.per_family, args.rounds)
    for part, measured in result.items():
        print(table_text(part, measured))
    timed, drawn = timings(rows, embed), drawn_report(rows, embed, args.draws)
    print("\n" + json.dumps({"time": timed, "APGR over draws": drawn}))
    if args.json:
        about = {
            "command": f"python -m benchmarks.router_quality --rounds {args.rounds} --json FILE",
            "python": platform.python_version(),
            "numpy": np.__version__,
            "machine": platform.machine(),
            "rows": len(rows),
            "recipe": asdict(Recipe()),
        }
        args.json.write_text(
            json.dumps({"about": about, "quality": result, "draws": drawn, "time": timed}, indent=1) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
