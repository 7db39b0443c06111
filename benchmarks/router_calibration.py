"""Whether 200 outcomes of a data set never seen make the `general` score's probabilities honest.

    python -m benchmarks.router_calibration [--json benchmarks/results/router_calibration.json]

Each set of ../shared/data/routing is scored by weights that saw none of it (MMLU as a whole and by fold of subjects,
every other task by itself). 200 of its outcomes are drawn, a calibration is fitted, and the expected calibration error
is measured on the rest: 20 draws a set. Beside it: the score as it is, and a calibration that must first pass on
held-back outcomes. Sets with fewer than 100 rows left are not measured; on 150 rows the error of a perfect score reads
about .04, since its bins are small.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.router_data import remembering_embedder, shared_rows
from router.calibration import fit_calibration, log_odds, probability
from router.evaluate import expected_calibration_error
from router.fitting import Recipe, build_table
from router.outcomes import Outcome
from router.train import fit_pair
from router.weights import Manifest
from tests.weights import manifest

Doubles = NDArray[np.float64]
Places = NDArray[np.intp]
DRAWS: Final = 20
OUTCOMES: Final = 200
LEAST_REST: Final = 100
TARGET: Final = 0.07


def sets_of(rows: Sequence[Outcome]) -> dict[str, Places]:
    """Return the places of each set's rows."""
    group = np.array([row.group for row in rows])
    fold = np.array([row.fold for row in rows])
    is_mmlu = np.char.startswith(group, "mmlu/")
    parts = {"mmlu": is_mmlu} | {f"mmlu, subjects of fold {k}": is_mmlu & (fold == k) for k in np.unique(fold)}
    parts |= {str(name): group == name for name in np.unique(group[~is_mmlu])}
    return {name: np.flatnonzero(inside) for name, inside in parts.items()}


def held_out_scores(rows: Sequence[Outcome]) -> Doubles:
    """Return P(small suffices) of every row by weights that saw no row of its subject or task."""
    table = build_table(rows, remembering_embedder(), Recipe())
    tasks = {
        name: at for at, name in enumerate(sorted({row.group for row in rows if not row.group.startswith("mmlu/")}))
    }
    apart = [tasks[row.group] + 10 if row.group in tasks else row.fold for row in rows]
    return fit_pair(replace(table, fold=np.array(apart)), Recipe())[1]


def draw_errors(p: Doubles, suffices: NDArray[np.bool_], seed: int, about: Manifest) -> tuple[float, float, float]:
    """Return the error as it is, after a calibration, and after one that must pass first, on the rows not drawn."""
    order = np.random.default_rng(seed).permutation(len(p))
    drawn, rest = order[:OUTCOMES], order[OUTCOMES:]
    fitted = fit_calibration(about, p[drawn], suffices[drawn])
    after = probability(fitted.slope * log_odds(p[rest]) + fitted.offset)
    gated = after if fitted.improves else p[rest]
    before, always, passed = (expected_calibration_error(one, suffices[rest]) for one in (p[rest], after, gated))
    return before, always, passed


def report(rows: Sequence[Outcome]) -> dict[str, Any]:
    """Measure every set that is large enough."""
    p, about = held_out_scores(rows), manifest()
    suffices = np.array([row.small_score >= row.large_score for row in rows])
    result: dict[str, Any] = {}
    every = []
    for name, places in sets_of(rows).items():
        if len(places) < OUTCOMES + LEAST_REST:
            continue
        errors = np.array([draw_errors(p[places], suffices[places], seed, about) for seed in range(DRAWS)])
        every.append(errors)
        result[name] = {"rows": len(places), **_figures(errors)}
    return {"all draws": _figures(np.concatenate(every)), "sets": result}


def _figures(errors: Doubles) -> dict[str, float]:
    before, after, gated = errors.T
    return {
        "ece_before": round(float(before.mean()), 4),
        "ece_after": round(float(after.mean()), 4),
        "ece_after_p90": round(float(np.quantile(after, 0.9)), 4),
        "draws_above_target": round(float((after > TARGET).mean()), 4),
        "ece_if_it_must_pass": round(float(gated.mean()), 4),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print and, where asked, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(argv)
    rows = [*shared_rows("mmlu"), *shared_rows("multitask")]
    document = {
        "about": {
            "command": "python -m benchmarks.router_calibration --json FILE",
            "draws": DRAWS,
            "outcomes": OUTCOMES,
        },
        "ece": report(rows),
    }
    text = json.dumps(document, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
