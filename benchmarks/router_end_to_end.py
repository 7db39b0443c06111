"""What routing saves with the hosted bundled tiers behind a real gateway, in measured CPU-seconds of the engines.

    python -m benchmarks.router_end_to_end [--json benchmarks/results/router_end_to_end.json]

Mixes with 50, 70 and 85 % easy questions (those of families that the small model is made for). Half of the questions
are in wordings that neither the models nor the router's weights have seen, the others have contents held out from the
models' training. Every policy sends the same questions through the gateway, in interleaved rounds:

    router        `model: auto`, the default quality, the shipped `bundled` weights
    oracle        small where it is right or large is wrong too, from both models' answers, else large
    random        large for as large a share as the router's, drawn at random
    length only   large for as large a share as the router's, the longest questions
    all small, all large

Cost is the CPU time of the engines' process groups, the idle engines' taken off, taken twice: `direct` while the
policy's own questions ran, which other work on the machine disturbs; and `attributed`, where each question costs what
its family's did on the tier that answered, measured family by family beforehand, so that one measurement prices every
policy. Saving is against all large; the figure asked for is the router's saving as a share of the oracle's, at 95 % or
more of large's accuracy.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from backends.bundled.tasks import Question, families, generate, grade
from backends.engines.cpu_time import group_cpu_s
from tests.e2e.gateway_process import RunningGateway, run_gateway, write_configuration

MIXES: Final = (0.5, 0.7, 0.85)
TIERS: Final = ("small", "large")
ROUNDS: Final = 3
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
TENANT: Final = "tenant: bench\nlimits: {requests_per_minute: 10000000, concurrency: 100}\n"


Costs = Mapping[tuple[str, str], float]
"""CPU-seconds of one question, by tier and family."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Who answered, and whether rightly."""

    tier: str
    is_right: bool


@dataclass(slots=True)
class Tally:
    """What a policy's questions came to, summed over rounds."""

    asked: int = 0
    right: int = 0
    large: int = 0
    cpu_s: float = 0.0
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


async def run_mix(asker: Asker, costs: Costs, easy_share: float, n: int, rounds: int) -> dict[str, Any]:
    """Ask one mix by every policy."""
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
            add(tallies[name], questions, replies, cpu_s, costs)
    return summary(tallies)


def add(tally: Tally, questions: Sequence[Question], replies: Sequence[Reply], cpu_s: float, costs: Costs) -> None:
    """Add one round to a policy's tally."""
    tally.asked += len(replies)
    tally.right += sum(reply.is_right for reply in replies)
    tally.large += sum(reply.tier == "large" for reply in replies)
    tally.cpu_s += cpu_s
    pairs = zip(questions, replies, strict=True)
    tally.attributed_cpu_s += sum(costs[reply.tier, question.family] for question, reply in pairs)
    for question, reply in zip(questions, replies, strict=True):
        if not reply.is_right:
            tally.wrong_by_family[question.family] = tally.wrong_by_family.get(question.family, 0) + 1


def summary(tallies: Mapping[str, Tally]) -> dict[str, Any]:
    """Compare every policy with all large and with the oracle."""
    large, oracle = tallies["all large"], tallies["oracle"]
    can_save = large.attributed_cpu_s - oracle.attributed_cpu_s
    can_save_directly = large.cpu_s - oracle.cpu_s
    return {
        name: {
            "accuracy": round(one.right / one.asked, 4),
            "of_large_accuracy": round(one.right / large.right, 4),
            "large_share": round(one.large / one.asked, 4),
            "cpu_ms": round(1e3 * one.attributed_cpu_s / one.asked, 3),
            "saving": round(1.0 - one.attributed_cpu_s / large.attributed_cpu_s, 4),
            "of_oracle_saving": round((large.attributed_cpu_s - one.attributed_cpu_s) / can_save, 4),
            "direct_cpu_ms": round(1e3 * one.cpu_s / one.asked, 3),
            "direct_of_oracle_saving": round((large.cpu_s - one.cpu_s) / can_save_directly, 4),
            "wrong_by_family": dict(sorted(one.wrong_by_family.items())),
        }
        for name, one in tallies.items()
    }


async def run(gateway: RunningGateway, n: int, rounds: int) -> dict[str, Any]:
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
            result[f"{share:.0%} easy"] = mix = await run_mix(asker, costs, share, n, rounds)
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
        f"{one['direct_cpu_ms']:.2f} | {one['direct_of_oracle_saving']:.3f} |"
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
    with tempfile.TemporaryDirectory() as name:
        write_configuration(Path(name), OPERATOR, {"bench": TENANT})
        with run_gateway(Path(name)) as gateway:
            result = asyncio.run(run(gateway, args.questions, args.rounds))
    if args.json:
        about = {
            "command": f"python -m benchmarks.router_end_to_end --questions {args.questions} --json FILE",
            "hardware": f"{os.cpu_count()} cores, {platform.machine()}",
            "concurrency": CONCURRENCY,
            "rounds": args.rounds,
            "seed": SEED,
        }
        args.json.write_text(json.dumps({"about": about, "mixes": result}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
