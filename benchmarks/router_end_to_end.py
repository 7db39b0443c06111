"""What routing saves with the hosted bundled tiers behind a real gateway, in measured CPU-seconds of the engines.

    python -m benchmarks.router_end_to_end [--json benchmarks/results/router_end_to_end.json]

Mixes with 50, 70 and 85 % easy questions (those of families that the small model is made for). Half of the questions
are in wordings that neither the models nor the router's weights have seen, the others have contents held out from the
models' training. Every policy sends the same questions through the gateway, in interleaved rounds:

    router        `model: auto`, `quality: 0.8`, the shipped `bundled` weights
    oracle        small where it is right or large is wrong too, from both models' answers, else large
    random        large for as large a share as the router's, drawn at random
    length only   large for as large a share as the router's, the longest questions
    all small, all large
    unseen: ...   weights trained in this run without three of the nine families, one of them hard; every family is left
                  out once. Families have siblings (two-digit sums beside one-digit ones), so that nothing in a prompt
                  tells that an unseen one is hard
    then 30 ...   the same after 30 outcomes of each family that was left out, as a tenant would report them

Cost is the CPU time of the engines' process groups, pinned to one core, the idle engines' taken off, taken twice:
`direct` while the policy's own questions ran, policy after policy in interleaved rounds, the median of the rounds; and
`attributed`, where each question costs what its family's did on the tier that answered, measured family by family in
the same run, so that one measurement prices every policy. The weights trained here are priced so alone, with the
answers that both tiers gave (greedy, hence always the same). Saving is against all large; the figure asked for is the
router's saving as a share of the oracle's, at 95 % or more of large's accuracy.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import nan
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx

from backends.bundled.tasks import Question, families, generate, grade
from backends.engines.cpu_time import group_cpu_s
from benchmarks.router_data import ENCODER, remembering_embedder
from benchmarks.train_router import BUNDLED_RECIPE, bundled_rows
from gateway.whatif.offline import embed_texts
from router.complexity import PairModel
from router.outcomes import Outcome
from router.scoring import score_texts
from router.train import train_pair
from tests.e2e.gateway_process import RunningGateway, run_gateway, write_configuration

MIXES: Final = (0.5, 0.7, 0.85)
LEFT_OUT: Final = (("sort_long", "greet", "add1"), ("add2", "copy", "fact_head"), ("fact_tail", "sort", "other"))
REPORTED_OUTCOMES: Final = 30
TIERS: Final = ("small", "large")
ROUNDS: Final = 5
CONCURRENCY: Final = 8
IDLE_S: Final = 5.0
SEED: Final = 77_001
OPERATOR: Final = """
listen: 127.0.0.1:8080
admin: {listen: 127.0.0.1:8081, key_file: var/admin.key}
state: sqlite:var/headgate.db
policies: tenants
tiers: {small: [small-int4], large: [large-full]}
deployments:
  small-int4: {recipe: bundled-small-int4}
  large-full: {recipe: bundled-large}
"""
QUALITY: Final = 0.8
TENANT: Final = (
    f"tenant: bench\nrouting: {{quality: {QUALITY}}}\nlimits: {{requests_per_minute: 10000000, concurrency: 100}}\n"
)


Costs = Mapping[tuple[str, str], float]
"""CPU-seconds of one question, by tier and family."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Who answered, and whether rightly."""

    tier: str
    is_right: bool


@dataclass(slots=True)
class Tally:
    """What a policy's questions came to, summed over rounds; `cpu_s` is that of each round that was asked."""

    asked: int = 0
    right: int = 0
    large: int = 0
    cpu_s: list[float] = field(default_factory=list)
    attributed_cpu_s: float = 0.0
    wrong_by_family: dict[str, int] = field(default_factory=dict)


def mixed_questions(easy_share: float, n: int) -> list[Question]:
    """Return about `n` distinct questions, half of them in wordings never trained on, in random order."""
    able = {
        True: [one.name for one in families() if one.small],
        False: [one.name for one in families() if not one.small],
    }
    chosen: list[Question] = []
    for is_easy, names in able.items():
        share = easy_share if is_easy else 1.0 - easy_share
        for name in names:
            for split in ("test", "rephrased"):
                wanted = round(n * share / len(names) / 2)
                chosen += generate(name, SEED, wanted, "test" if split == "test" else "rephrased")
    random.Random(SEED).shuffle(chosen)
    return chosen


def questions_of(family: str, n: int) -> list[Question]:
    """Return `n` questions in wordings never trained on and as many in known ones."""
    return generate(family, SEED, n, "rephrased") + generate(family, SEED, n, "test")


class Asker:
    """Sends questions through the gateway and reads the engines' CPU time around them."""

    def __init__(self, gateway: RunningGateway, client: httpx.AsyncClient) -> None:
        self._client = client
        self._groups = engine_groups(gateway)
        pin(self._groups, max(os.sched_getaffinity(0)))
        self._gate = asyncio.Semaphore(CONCURRENCY)
        self._idle_cpu_ratio = 0.0

    def cpu_s(self) -> float:
        """Return the CPU seconds that all engines have used so far."""
        return float(sum(group_cpu_s(group) for group in self._groups))

    async def measure_idle(self) -> float:
        """Measure what the engines use while nothing is asked, in CPU-seconds per second."""
        before, began_s = self.cpu_s(), time.monotonic()
        await asyncio.sleep(IDLE_S)
        self._idle_cpu_ratio = (self.cpu_s() - before) / (time.monotonic() - began_s)
        return self._idle_cpu_ratio

    async def ask_all(self, questions: Sequence[Question], models: Sequence[str]) -> tuple[list[Reply], float]:
        """Return the replies in order and the CPU-seconds they took."""
        before, began_s = self.cpu_s(), time.monotonic()
        replies = await asyncio.gather(*map(self._ask, questions, models))
        spent = self.cpu_s() - before - self._idle_cpu_ratio * (time.monotonic() - began_s)
        return list(replies), spent

    async def _ask(self, question: Question, model: str) -> Reply:
        body = {"model": model, "messages": [{"role": "user", "content": question.prompt}], "max_tokens": 64}
        async with self._gate:
            answer = await self._client.post("/chat/completions", json=body)
        answer.raise_for_status()
        text = answer.json()["choices"][0]["message"]["content"]
        return Reply(answer.headers["x-headgate-tier"], grade(question, text))


def engine_groups(gateway: RunningGateway) -> list[int]:
    """Return the process groups of the engines: each leads a session of its own."""
    key = (gateway.folder / "var" / "admin.key").read_text().strip()
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx.get(f"{gateway.admin_url}/admin/engines", headers=headers, trust_env=False).raise_for_status()
    return [engine["pid"] for engine in answer.json()["engines"]]


def choices(questions: Sequence[Question], known: Mapping[str, Sequence[Reply]]) -> dict[str, list[str]]:
    """Return the model that each policy names for every question; what both tiers answered is known by then."""
    n = len(questions)
    n_large = sum(reply.tier == "large" for reply in known["router"])
    drawn = set(random.Random(SEED).sample(range(n), n_large))
    longest = set(sorted(range(n), key=lambda index: -len(questions[index].prompt))[:n_large])
    pays = [large.is_right and not small.is_right for small, large in zip(known["small"], known["large"], strict=True)]
    return {
        "router": ["auto"] * n,
        "oracle": [TIERS[one] for one in pays],
        "random": [TIERS[index in drawn] for index in range(n)],
        "length only": [TIERS[index in longest] for index in range(n)],
        "all small": ["small"] * n,
        "all large": ["large"] * n,
    }


async def family_costs(asker: Asker, rounds: int, n: int = 30) -> Costs:
    """Return the CPU-seconds of one question by tier and family, each family asked by itself."""
    spent: dict[tuple[str, str], float] = {}
    for number in range(rounds):
        for family in families():
            questions = questions_of(family.name, n)
            for tier in random.Random(number).sample(TIERS, len(TIERS)):
                _, cpu_s = await asker.ask_all(questions, [tier] * len(questions))
                spent[tier, family.name] = spent.get((tier, family.name), 0.0) + cpu_s / (rounds * len(questions))
    return spent


async def run_mix(
    asker: Asker, costs: Costs, easy_share: float, n: int, rounds: int, unseen: Mapping[str, PairModel]
) -> dict[str, Any]:
    """Ask one mix by every policy, and reckon what the routers of `unseen` would have come to."""
    questions = mixed_questions(easy_share, n)
    known = {name: (await asker.ask_all(questions, [model] * len(questions)))[0] for name, model in (
        ("small", "small"), ("large", "large"), ("router", "auto"),
    )}  # fmt: skip
    policies = choices(questions, known)
    tallies = {name: Tally() for name in policies}
    for number in range(rounds):
        names = list(policies)
        random.Random(number).shuffle(names)
        for name in names:
            replies, cpu_s = await asker.ask_all(questions, policies[name])
            add(tallies[name], questions, replies, costs)
            tallies[name].cpu_s.append(cpu_s)
    for name, model in unseen.items():
        replies = [known[tier][index] for index, tier in enumerate(tiers_of(model, questions))]
        tallies[name] = Tally()
        add(tallies[name], questions, replies, costs)
    return summary(tallies)


def tiers_of(model: PairModel, questions: Sequence[Question]) -> list[str]:
    """Return the tier that a router with these weights chooses at the quality asked for."""
    texts = [question.prompt for question in questions]
    return [TIERS[int(p < QUALITY)] for p in score_texts(model, texts, embed_texts)]


def unseen_routers() -> dict[str, PairModel]:
    """Train as `bundled` was, without the families of LEFT_OUT, and with a few outcomes of them."""
    rows = bundled_rows()
    routers = {}
    for left_out in LEFT_OUT:
        rest = [row for row in rows if row.group not in left_out]
        first = [[row for row in rows if row.group == family][:REPORTED_OUTCOMES] for family in left_out]
        names = ", ".join(left_out)
        routers[f"unseen: {names}"] = trained_on(rest)
        routers[f"then {REPORTED_OUTCOMES} of each: {names}"] = trained_on([*rest, *chain.from_iterable(first)])
    return routers


def trained_on(rows: Sequence[Outcome]) -> PairModel:
    """Return a router of these outcomes, by the recipe of the shipped weights."""
    ungrouped = [replace(row, group="") for row in rows]
    trained = train_pair(
        ungrouped,
        remembering_embedder(),
        pair="unseen",
        small="small-int4",
        large="large-full",
        encoder=ENCODER,
        recipe=BUNDLED_RECIPE,
    )
    return PairModel(trained.weights, trained.manifest)


def pin(groups: Sequence[int], core: int) -> None:
    """Keep every thread of these process groups on one core, as far as there is more than one."""
    if len(os.sched_getaffinity(0)) < 2:
        return
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(entry.name)) in groups:
                for thread in (entry / "task").iterdir():
                    os.sched_setaffinity(int(thread.name), {core})
        except (ProcessLookupError, FileNotFoundError):
            continue  # it ended meanwhile


def add(tally: Tally, questions: Sequence[Question], replies: Sequence[Reply], costs: Costs) -> None:
    """Add one round to a policy's tally."""
    tally.asked += len(replies)
    tally.right += sum(reply.is_right for reply in replies)
    tally.large += sum(reply.tier == "large" for reply in replies)
    pairs = zip(questions, replies, strict=True)
    tally.attributed_cpu_s += sum(costs[reply.tier, question.family] for question, reply in pairs)
    for question, reply in zip(questions, replies, strict=True):
        if not reply.is_right:
            tally.wrong_by_family[question.family] = tally.wrong_by_family.get(question.family, 0) + 1


def summary(tallies: Mapping[str, Tally]) -> dict[str, Any]:
    """Compare every policy with all large and with the oracle, each by its mean question."""
    large = tallies["all large"]
    cost = {name: one.attributed_cpu_s / one.asked for name, one in tallies.items()}
    direct = {name: median(one.cpu_s) / (one.asked / len(one.cpu_s)) for name, one in tallies.items() if one.cpu_s}

    def direct_figures(name: str) -> dict[str, float]:
        if name not in direct:
            return {}
        saved, can_save = direct["all large"] - direct[name], direct["all large"] - direct["oracle"]
        return {
            "direct_cpu_ms": round(1e3 * direct[name], 3),
            "direct_saving": round(saved / direct["all large"], 4),
            "direct_of_oracle_saving": round(saved / can_save, 4),
        }

    return {
        name: {
            "accuracy": round(one.right / one.asked, 4),
            "of_large_accuracy": round(one.right / one.asked / (large.right / large.asked), 4),
            "large_share": round(one.large / one.asked, 4),
            "cpu_ms": round(1e3 * cost[name], 3),
            "saving": round(1.0 - cost[name] / cost["all large"], 4),
            "of_oracle_saving": round((cost["all large"] - cost[name]) / (cost["all large"] - cost["oracle"]), 4),
            **direct_figures(name),
            "wrong_by_family": dict(sorted(one.wrong_by_family.items())),
        }
        for name, one in tallies.items()
    }


async def run(gateway: RunningGateway, n: int, rounds: int, unseen: Mapping[str, PairModel]) -> dict[str, Any]:
    """Measure all mixes on a running gateway."""
    headers = {"authorization": f"Bearer {gateway.key('bench')}", "x-headgate-cache": "bypass"}
    limits = httpx.Limits(max_connections=CONCURRENCY)
    async with httpx.AsyncClient(
        base_url=gateway.base_url, headers=headers, timeout=120, trust_env=False, limits=limits
    ) as client:
        asker = Asker(gateway, client)
        warm = mixed_questions(0.5, 80)
        for model in (*TIERS, "auto"):
            await asker.ask_all(warm, [model] * len(warm))
        result: dict[str, Any] = {"idle_cpu_ratio": round(await asker.measure_idle(), 4)}
        costs = await family_costs(asker, rounds)
        result["cpu_ms"] = {f"{tier} {family}": round(1e3 * cpu_s, 3) for (tier, family), cpu_s in costs.items()}
        print(result, flush=True)
        for share in MIXES:
            result[f"{share:.0%} easy"] = mix = await run_mix(asker, costs, share, n, rounds, unseen)
            print(table(f"{share:.0%} easy", mix), flush=True)
        return result


def table(title: str, mix: Mapping[str, Mapping[str, Any]]) -> str:
    """Write one mix as a Markdown table."""
    lines = [
        f"\n{title}\n",
        "| policy | accuracy | of large's | large share | CPU ms | saving | of oracle's | direct ms | of oracle's |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {one['accuracy']:.3f} | {one['of_large_accuracy']:.3f} | {one['large_share']:.3f} | "
        f"{one['cpu_ms']:.2f} | {one['saving']:.3f} | {one['of_oracle_saving']:.3f} | "
        f"{one.get('direct_cpu_ms', nan):.2f} | {one.get('direct_of_oracle_saving', nan):.3f} |"
        for name, one in mix.items()
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Start a gateway, measure, print and, where asked, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--questions", type=int, default=600, help="by mix (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of every policy (default: %(default)s)")
    args = parser.parse_args(argv)
    unseen = unseen_routers()
    with tempfile.TemporaryDirectory() as name:
        write_configuration(Path(name), OPERATOR, {"bench": TENANT})
        with run_gateway(Path(name)) as gateway:
            result = asyncio.run(run(gateway, args.questions, args.rounds, unseen))
    if args.json:
        about = {
            "command": "python -m benchmarks.router_end_to_end "
            f"--questions {args.questions} --rounds {args.rounds} --json FILE",
            "hardware": f"{os.cpu_count()} cores, {platform.machine()}",
            "concurrency": CONCURRENCY,
            "rounds": args.rounds,
            "seed": SEED,
        }
        args.json.write_text(json.dumps({"about": about, "mixes": result}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
