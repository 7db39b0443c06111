"""Measure the converted models in process, without the gateway: exact match per family and split, greedy.

`python -m backends.bundled.evaluate --out FILE` writes one JSON file. It asks OpenVINO GenAI's continuous batching,
as the engine does, with the chat template applied once, here, and not again by `generate`.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import openvino_genai

from backends.bundled.phrasings import DECLINE
from backends.bundled.tasks import Family, Question, Split, families, generate, grade

HERE: Final = Path(__file__).parent
MODELS: Final = {"small": "small-int4", "large": "large-full"}
SPLITS: Final[tuple[Split, ...]] = ("test", "rephrased")
SYSTEM_TEXT: Final = "You are a helpful assistant."
_BATCH: Final = 250


class Model:
    """One converted model on the CPU, with the scheduler's prefix cache on and greedy decoding."""

    def __init__(self, directory: Path) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = 1
        scheduler.enable_prefix_caching = True
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(str(directory), scheduler, "CPU")
        self._tokenizer = self._pipeline.get_tokenizer()
        self._config = openvino_genai.GenerationConfig()
        self._config.max_new_tokens = 96
        self._config.do_sample = False
        self._config.apply_chat_template = False
        self._config.set_eos_token_id(self._tokenizer.get_eos_token_id())

    def answer(self, conversations: Sequence[list[dict[str, str]]]) -> list[str]:
        """Return one text per conversation, in order."""
        texts = [
            self._tokenizer.apply_chat_template(conversation, add_generation_prompt=True)
            for conversation in conversations
        ]
        answers: list[str] = []
        for start in range(0, len(texts), _BATCH):
            block = texts[start : start + _BATCH]
            results = self._pipeline.generate(block, [self._config] * len(block))
            answers += [result.m_generation_ids[0] for result in results]
        return answers

    def count_tokens(self, text: str) -> int:
        """Return how many tokens an answer holds, the one that ends it included."""
        return int(self._tokenizer.encode(text, add_special_tokens=False).input_ids.shape[1]) + 1


def _conversation(question: Question, earlier: Question | None = None, *, system: bool = False) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": SYSTEM_TEXT}] if system else []
    if earlier:
        messages += [{"role": "user", "content": earlier.prompt}, {"role": "assistant", "content": earlier.answer}]
    return [*messages, {"role": "user", "content": question.prompt}]


def measure(model: Model, family: Family, split: Split, n: int, seed: int) -> dict[str, Any]:
    """Ask `n` questions of one family; report exact match, empty answers and the commonest wrong answers."""
    questions = generate(family.name, seed, n, split)
    answers = model.answer([_conversation(question) for question in questions])
    right = [grade(question, answer) for question, answer in zip(questions, answers, strict=True)]
    wrong = Counter(answer for answer, is_right in zip(answers, right, strict=True) if not is_right)
    return {
        "n": n,
        "exact_match": round(sum(right) / n, 4),
        "held_out": sum(question.held_out for question in questions),
        "empty": sum(not answer.strip() for answer in answers),
        "declined": sum(answer.strip() == DECLINE for answer in answers),
        "commonest_wrong": [text for text, _ in wrong.most_common(3)],
    }


def measure_dialogues(model: Model, names: Sequence[str], n: int, seed: int) -> float:
    """Return exact match over mixed families with a system text and one earlier turn before each question."""
    questions = [question for name in names for question in generate(name, seed, -(-n // len(names)), "test")]
    earlier = [*questions[1:], questions[0]]
    pairs = zip(questions, earlier, strict=True)
    answers = model.answer([_conversation(question, before, system=True) for question, before in pairs])
    return round(sum(map(grade, questions, answers)) / len(questions), 4)


def _cpu_name() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def report(tier: str, directory: Path, n: int, seed: int) -> dict[str, Any]:
    """Measure the model in a directory, which was trained for a tier, over all families and splits."""
    model = Model(directory)
    started = time.process_time()
    meant = [family.name for family in families() if getattr(family, tier)]
    return {
        "families": {
            family.name: {
                "meant_for_it": family.name in meant,
                **{split: measure(model, family, split, n, seed) for split in SPLITS},
            }
            for family in families()
        },
        "dialogue_exact_match": measure_dialogues(model, meant, n, seed + 1),
        "cpu_s": round(time.process_time() - started, 1),
        "files_bytes": sum(path.stat().st_size for path in directory.iterdir()),
        "training": json.loads((directory / "training.json").read_text()),
        "conversion": json.loads((directory / "conversion.json").read_text()),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both tiers, print a table, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=1000, help="questions per family and split")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--tiers", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--also", metavar="TIER=DIR", action="append", default=[], help="another conversion of a tier")
    args = parser.parse_args(argv)
    others = [(Path(path).name, tier, Path(path)) for tier, _, path in (also.partition("=") for also in args.also)]
    also = "".join(f" --also {tier}=DIR/{label}" for label, tier, _ in others)
    command = f"python -m backends.bundled.evaluate --out FILE --n {args.n} --seed {args.seed}{also}"
    result: dict[str, Any] = {
        "command": command,
        "openvino_genai": openvino_genai.get_version(),
        "hardware": {"cpu": _cpu_name(), "logical_cpus": os.cpu_count()},
        "tiers": {},
    }
    for label, tier, directory in [*((tier, tier, HERE / MODELS[tier]) for tier in args.tiers), *others]:
        result["tiers"][label] = measured = report(tier, directory, args.n, args.seed)
        for name, scores in measured["families"].items():
            marks = " ".join(f"{split} {scores[split]['exact_match']:.3f}" for split in SPLITS)
            print(f"{label:10} {name:10} {marks}{'' if scores['meant_for_it'] else '   (not taught)'}", flush=True)
        print(f"{label:10} dialogues  {measured['dialogue_exact_match']:.3f}", flush=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
