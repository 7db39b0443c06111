"""Whether learning finds what is better and lets nothing worse pass: simulated tenants with known worth of both tiers.

    python -m benchmarks.router_learning [--json FILE] [--seeds N] [--tenants N]

The simulated tenant asks questions of eight kinds in random order; each has an embedding around its kind's centre, and
small's worth of a kind is known to the simulation alone. The score in force knows the kinds' worth as they were before
a shift; after it, four kinds have swapped. Learner, trial, context and exploring are the product's own. Measured:

- coverage: how often the doubly robust interval of a fixed challenger holds the true difference at every moment;
- wrong promotions: how often a tenant whose score is already right gets a worse router, however long one looks;
- right promotions: how often, and after how many outcomes, the better one takes over after the shift;
- regret: utility lost to the best choice after the shift, for the fixed score, the product and an ungated LinUCB;
- hot path: CPU time of what learning adds to one request.

Where the development data lie, the coverage is measured on published outcomes of pairs of models, too. The exit
code is 1 when coverage is below 95 %, more than 5 % of worse ones pass, or the hot path takes 0.1 ms.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.router_data import FILES, SHARED, shared_rows
from benchmarks.router_learning_cost import hot_path_ms
from router.bandit import FORGETTING, Bandit
from router.chance import Allowed, Chance
from router.context import Context, context_of
from router.learner import TenantLearner
from router.trial import doubly_robust, trial_of

KINDS, DIMENSIONS = 8, 64
SMALL_BEFORE = (0.95, 0.9, 0.85, 0.8, 0.5, 0.4, 0.3, 0.2)
SMALL_AFTER = (0.3, 0.4, 0.85, 0.8, 0.5, 0.9, 0.95, 0.2)
LARGE = 0.9
FLOOR = 0.7
ALPHA = 0.05
AT = datetime(2026, 1, 1, tzinfo=UTC)
Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: what learners see of it, and the true worth of both tiers' answers."""

    context: Context
    small: float
    large: float

    def utility(self, tier: str) -> float:
        """Return quality less price."""
        return self.small if tier == "small" else self.large - (1.0 - FLOOR)


def tenant(random: np.random.Generator, worth: tuple[float, ...]) -> Iterator[Asked]:
    """Yield a tenant's requests without end; the score is the kinds' worth before the shift, with noise."""
    centres = np.random.default_rng(7).standard_normal((KINDS, DIMENSIONS))
    while True:
        kind = int(random.integers(KINDS))
        vector = centres[kind] + 0.5 * random.standard_normal(DIMENSIONS)
        p = float(np.clip(SMALL_BEFORE[kind] / LARGE + 0.05 * random.standard_normal(), 0.02, 0.98))
        text = "word " * int(random.integers(5, 60))
        yield Asked(context_of(p, text, (vector / np.linalg.norm(vector)).astype(np.float32)), worth[kind], LARGE)


def chance_of(asked: Asked, p: float, ratio: float, draw: float, in_force: int) -> Chance:
    """Return what a gateway would wait with: the choice at the floor, or with `ratio` the other tier."""
    greedy = "small" if p >= FLOOR else "large"
    answered = greedy if draw >= ratio else ("large" if greedy == "small" else "small")
    allowed = tuple(
        Allowed(tier, share, price, 1.0 - ratio if tier == greedy else ratio)
        for tier, share, price in (("small", 0.0, 0.0), ("large", 1.0, 1.0 - FLOOR))
    )
    return Chance("acme", asked.context, in_force, FLOOR, allowed, greedy, answered)


def coverage(seed: int, rows: int, ratio: float, source: Callable[[np.random.Generator], Iterator[Asked]]) -> Any:
    """Return whether a fixed challenger's interval ever left out the true difference, and how it ended.

    The challenger differs from the score by kind of text; a learning bandit predicts before each outcome.
    """
    random = np.random.default_rng(seed)
    challenger = np.random.default_rng(seed + 1).standard_normal(len(context_of(0.5, "", None).x))
    trial, bandit, held = trial_of(ALPHA, ratio), Bandit(("small", "large")), True
    true = 0.0
    for n, asked in enumerate(source(random)):
        if n == rows:
            break
        made = chance_of(asked, asked.context.p, ratio, float(random.random()), 0)
        other = "small" if float(challenger @ asked.context.x) > 0.0 else "large"
        true += asked.utility(other) - asked.utility(made.greedy)
        worth = asked.small if made.answered == "small" else asked.large
        reward = float(random.random() < worth)
        quality = {tier: bandit.quality(tier, asked.context.x) for tier in ("small", "large")}
        trial.note_said(doubly_robust(made, other, quality, reward))
        bandit.learn(made.answered, asked.context.x, reward)
        if n % 50 == 49:
            low, high = trial.said.interval(ALPHA)
            held = held and low <= true / (n + 1) <= high
    low, high = trial.said.interval(ALPHA)
    return {"held": held, "error": trial.said.mean - true / rows, "width": high - low}


@dataclass(frozen=True, slots=True)
class Mode:
    """How a simulated tenant learns: the share of explored, of rated and of compared requests."""

    explore: float
    rated: float
    compared: float


def learning(seed: int, rows: int, mode: Mode, worth: tuple[float, ...]) -> dict[str, Any]:
    """Run the product's learner over `rows` requests; tell promotions, whether they were right, and the regret."""
    random, learner = np.random.default_rng(seed), TenantLearner(("small", "large"))
    promotions: list[dict[str, Any]] = []
    regret = {"fixed": 0.0, "product": 0.0}
    for n, asked in enumerate(tenant(random, worth)):
        if n == rows:
            break
        promoted, p = learner.promoted, asked.context.p
        in_force = p if promoted is None else promoted.router.p_small_suffices(asked.context.x)
        made = chance_of(asked, in_force, mode.explore, float(random.random()), learner.in_force)
        best = max(asked.utility("small"), asked.utility("large"))
        regret["fixed"] += best - asked.utility("small" if p >= FLOOR else "large")
        regret["product"] += best - asked.utility(made.answered)
        now, is_right = AT + timedelta(seconds=n), float(random.random() < asked.small)
        if random.random() < mode.rated:
            learner.said(made, float(random.random() < asked.large) if made.answered == "large" else is_right, now)
        if random.random() < mode.compared:
            learner.compared(replace(made), bool(random.random() < asked.small + 1.0 - LARGE), now)
        what = learner.due(promote=True)
        if what is not None:
            router = learner.candidate.router if what == "promoted" and learner.candidate else None
            if router is not None:
                promotions.append({"at": n, "gain": true_gain(router.p_small_suffices, seed, worth)})
            learner.carry_out(what, now)
    return {"promotions": promotions, "regret": {name: total / rows for name, total in regret.items()}}


def true_gain(p_small: Callable[[Doubles], float], seed: int, worth: tuple[float, ...], rows: int = 2_000) -> float:
    """Return by how much a router's choices are better than the score's, from the true worth of fresh requests."""
    gain, source = 0.0, tenant(np.random.default_rng(seed + 10_000), worth)
    for _ in range(rows):
        asked = next(source)
        mine, old = (p >= FLOOR for p in (p_small(asked.context.x), asked.context.p))
        gain += asked.utility("small" if mine else "large") - asked.utility("small" if old else "large")
    return gain / rows


def linucb(seed: int, rows: int, rated: float, worth: tuple[float, ...]) -> float:
    """Return the regret of LinUCB that chooses live, without a trial or a limit on exploring (alpha 0.5)."""
    random, bandit, total = np.random.default_rng(seed), Bandit(("small", "large")), 0.0
    for n, asked in enumerate(tenant(random, worth)):
        if n == rows:
            break
        x = asked.context.x
        upper = {
            tier: bandit.quality(tier, x)
            + 0.5 * float(np.sqrt(x @ np.linalg.solve(arm.precision, x)))
            - (1.0 - FLOOR) * (tier == "large")
            for tier, arm in bandit.arms.items()
        }
        tier = max(upper, key=lambda one: upper[one])
        total += max(asked.utility("small"), asked.utility("large")) - asked.utility(tier)
        if random.random() < rated:
            bandit.learn(tier, x, float(random.random() < (asked.small if tier == "small" else asked.large)))
    return total / rows


def each(run_one: Callable[[int], dict[str, Any]], seeds: int) -> list[dict[str, Any]]:
    """Return what each seed gives, on all cores."""
    with ProcessPoolExecutor() as pool:
        return list(pool.map(run_one, range(seeds)))


def published() -> Callable[[np.random.Generator], Iterator[Asked]] | None:
    """Return a source that draws published outcomes with replacement, or None when they are not there."""
    if not SHARED.exists():
        return None
    rows = []
    for one in (row for part in FILES for row in shared_rows(part)):
        p = 1.0 / (1.0 + float(np.exp((len(one.query) - 600) / 400)))
        rows.append(Asked(context_of(p, one.query, None), one.small_score, one.large_score))

    def source(random: np.random.Generator) -> Iterator[Asked]:
        while True:
            yield rows[int(random.integers(len(rows)))]

    return source


def run(seeds: int, tenants: int) -> dict[str, Any]:
    """Run everything."""
    results: dict[str, Any] = {
        "hot_path_ms": hot_path_ms(),
        "seeds": seeds,
        "tenants": tenants,
        "floor": FLOOR,
        "forgetting": FORGETTING,
        "alpha": ALPHA,
    }
    sources = {"simulated": lambda random: tenant(random, SMALL_AFTER)}
    real = published()
    if real is not None:
        sources["published"] = real
    results["coverage"] = {}
    for name, source in sources.items():
        ended = [coverage(seed, 4_000, 0.02, source) for seed in range(seeds)]
        errors = [one["error"] for one in ended]
        results["coverage"][name] = {
            "rows": 4_000,
            "held_at_all_times": statistics.fmean(one["held"] for one in ended),
            "mean_error": statistics.fmean(errors),
            "standard_error": statistics.stdev(errors) / len(errors) ** 0.5,
            "mean_width": statistics.fmean(one["width"] for one in ended),
        }
    modes = {
        "every answer rated, 2 % explored": (60_000, Mode(0.02, 1.0, 0.0)),
        "5 % compared": (30_000, Mode(0.0, 0.0, 0.05)),
        "a third rated, 2 % explored, 2 % compared": (60_000, Mode(0.02, 0.33, 0.02)),
    }
    results["score is right"], results["after a shift"] = {}, {}
    for name, (rows, mode) in modes.items():
        runs = each(partial(learning, rows=rows, mode=mode, worth=SMALL_BEFORE), tenants)
        worse = [any(one["gain"] < 0.0 for one in run["promotions"]) for run in runs]
        results["score is right"][name] = {"requests": rows, "worse_promoted": statistics.fmean(worse)}
        runs = each(partial(learning, rows=rows, mode=mode, worth=SMALL_AFTER), tenants)
        firsts = [run["promotions"][0] for run in runs if run["promotions"]]
        results["after a shift"][name] = {
            "requests": rows,
            "promoted": len(firsts) / len(runs),
            "worse_promoted": statistics.fmean(any(p["gain"] < 0.0 for p in run["promotions"]) for run in runs),
            "median_requests_until": statistics.median(p["at"] for p in firsts) if firsts else None,
            "mean_gain": statistics.fmean(p["gain"] for p in firsts) if firsts else None,
            "regret_fixed": statistics.fmean(run["regret"]["fixed"] for run in runs),
            "regret_product": statistics.fmean(run["regret"]["product"] for run in runs),
        }
    live = [linucb(seed, 20_000, 1.0, SMALL_AFTER) for seed in range(max(1, tenants // 10))]
    results["after a shift"]["regret_linucb_ungated_every_answer_rated"] = statistics.fmean(live)
    return results


def main() -> int:
    """Run, print, and write the results."""
    parser = argparse.ArgumentParser(description="Simulate learning from outcomes.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go")
    parser.add_argument(
        "--seeds", type=int, default=60, metavar="N", help="runs for the coverage (default: %(default)s)"
    )
    parser.add_argument("--tenants", type=int, default=40, metavar="N", help="simulated tenants (default: %(default)s)")
    arguments = parser.parse_args()
    results = run(arguments.seeds, arguments.tenants)
    results["machine"] = {"cores": os.cpu_count(), "python": platform.python_version(), "numpy": np.__version__}
    table = Table(title="learning from outcomes")
    for column in ("what", "case", "result"):
        table.add_column(column)
    for what in ("coverage", "score is right", "after a shift"):
        for case, result in results[what].items():
            table.add_row(what, case, json.dumps(result))
    table.add_row("hot path", "ms", json.dumps(results["hot_path_ms"]))
    Console().print(table)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    covered = all(one["held_at_all_times"] >= 0.95 for one in results["coverage"].values())
    passed = all(one["worse_promoted"] <= 0.05 for one in results["score is right"].values())
    return 0 if covered and passed and max(results["hot_path_ms"].values()) < 0.1 else 1


if __name__ == "__main__":
    sys.exit(main())
