"""Graded questions for the bundled models: families of tasks, a seeded generator and an exact-match grader.

Three splits: `train` (what the models learn from), `test` (trained wordings, and held-out contents only where a family
has any) and `rephrased` (wordings that never occur in training, any contents). Nothing here imports more than the
standard library, so evaluation and router training can use it anywhere.
"""

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from backends.bundled import facts, phrasings
from backends.bundled.phrasings import Phrasings, roughen

Split = Literal["train", "test", "rephrased"]

HELD_OUT_SHARE: Final = 10
"""One content in this many is kept out of training for good."""


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt with its only right answer; `held_out`: its contents or its wording are kept out of training."""

    prompt: str
    answer: str
    family: str
    held_out: bool


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of question; `small` and `large` say which model learns it, `holds_out` that it has held-out contents."""

    name: str
    title: str
    small: bool
    large: bool
    holds_out: bool


def is_held_out(family: str, content: str) -> bool:
    """Say whether a content (`48+37` with the smaller operand first, a list, some words) never occurs in training."""
    return zlib.crc32(f"{family}:{content}".encode()) % HELD_OUT_SHARE == 0


def sum_is_held_out(a: int, b: int) -> bool:
    """Say whether this pair of operands, in either order, never occurs in training."""
    return is_held_out("add2", f"{min(a, b)}+{max(a, b)}")


def _wording(kinds: Phrasings, rng: random.Random, split: Split, *, may_append: bool = True) -> str:
    held_out = split == "rephrased"
    return roughen(
        rng.choice(kinds.held_out if held_out else kinds.trained), rng, held_out=held_out, may_append=may_append
    )


def _fits(family: str, content: str, split: Split) -> bool:
    """Training takes what is not held out, `test` only what is; `rephrased` takes both."""
    return split == "rephrased" or is_held_out(family, content) == (split == "test")


def _word(rng: random.Random) -> str:
    if rng.random() < 0.85:
        word = rng.choice(phrasings.WORDS)
    elif rng.random() < 0.5:
        word = "".join(rng.choice("bcdfghklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(1, 3)))
    else:
        word = str(rng.randint(0, 99))
    return word.capitalize() if rng.random() < 0.1 else word


def _copy(rng: random.Random, split: Split) -> Question:
    while True:
        text = " ".join(_word(rng) for _ in range(rng.randint(1, 6)))
        if _fits("copy", text, split):
            break
    prompt = _wording(phrasings.COPY, rng, split, may_append=False).replace("{x}", text)
    return Question(prompt, text, "copy", split != "train")


def _numbers(rng: random.Random, low: int, high: int) -> list[int]:
    top = rng.choice((9, 20, 99, 99))
    return [rng.randint(0, top) for _ in range(rng.randint(low, high))]


def _listed(numbers: Sequence[int], rng: random.Random) -> str:
    if rng.random() < 0.15:
        return ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"
    return rng.choice((" ", " ", ", ", ", ", ",")).join(map(str, numbers))


def _sorter(family: str, low: int, high: int) -> Callable[[random.Random, Split], Question]:
    def draw(rng: random.Random, split: Split) -> Question:
        while True:
            numbers = _numbers(rng, low, high)
            if _fits(family, " ".join(map(str, numbers)), split):
                break
        prompt = _wording(phrasings.SORT, rng, split).replace("{x}", _listed(numbers, rng))
        return Question(prompt, " ".join(map(str, sorted(numbers))), family, split != "train")

    return draw


def _sum_question(family: str, a: int, b: int, rng: random.Random, split: Split, *, held_out: bool) -> Question:
    prompt = _wording(phrasings.SUM, rng, split).replace("{a}", str(a)).replace("{b}", str(b))
    return Question(prompt, str(a + b), family, held_out)


def _add1(rng: random.Random, split: Split) -> Question:
    a, b = rng.randint(0, 9), rng.randint(0, 9)
    return _sum_question("add1", a, b, rng, split, held_out=split == "rephrased")


def _add2(rng: random.Random, split: Split) -> Question:
    """Draw a sum of two two-digit numbers (one time in ten one of them has a single digit)."""
    while True:
        a, b = rng.randint(10, 99), rng.randint(0 if rng.random() < 0.1 else 10, 99)
        a, b = (a, b) if rng.random() < 0.5 else (b, a)
        if split == "rephrased" or sum_is_held_out(a, b) == (split == "test"):
            break
    return _sum_question("add2", a, b, rng, split, held_out=split != "train")


def _capital(family: str, table: tuple[tuple[str, str], ...]) -> Callable[[random.Random, Split], Question]:
    def draw(rng: random.Random, split: Split) -> Question:
        country, capital = rng.choice(table)
        wording = _wording(phrasings.CAPITAL, rng, split)
        country = country.lower() if wording == wording.lower() or rng.random() < 0.05 else country
        return Question(wording.replace("{x}", country), capital, family, split == "rephrased")

    return draw


def _greet(rng: random.Random, split: Split) -> Question:
    answer = rng.choice(tuple(phrasings.GREETINGS))
    trained, held_out = phrasings.GREETINGS[answer]
    prompt = rng.choice(held_out if split == "rephrased" else trained) + rng.choice(phrasings.ADDRESSEES)
    prompt += rng.choice(("?", "?", "") if answer[0] == "I" else ("!", ".", ""))
    prompt = prompt.lower() if rng.random() < 0.2 else prompt
    return Question(" " + prompt if rng.random() < 0.05 else prompt, answer, "greet", split == "rephrased")


def _other(rng: random.Random, split: Split) -> Question:
    x, y = (" ".join(rng.sample(phrasings.WORDS, rng.choice((1, 1, 2, 3)))) for _ in "xy")
    prompt = _wording(phrasings.OTHER, rng, split).replace("{x}", x).replace("{y}", y)
    return Question(prompt, phrasings.DECLINE, "other", split == "rephrased")


_DRAWS: Final[dict[str, tuple[Family, Callable[[random.Random, Split], Question]]]] = {
    family.name: (family, draw)
    for family, draw in (
        (Family("greet", "greetings", True, True, False), _greet),
        (Family("copy", "copying up to six words", True, True, True), _copy),
        (Family("sort", "sorting 3 to 6 numbers", True, True, True), _sorter("sort", 3, 6)),
        (Family("add1", "adding one-digit numbers", True, True, False), _add1),
        (Family("fact_head", "capitals of well-known countries", True, True, False), _capital("fact_head", facts.HEAD)),
        (Family("other", "declining what it cannot do", True, True, False), _other),
        (Family("sort_long", "sorting 7 to 10 numbers", False, True, True), _sorter("sort_long", 7, 10)),
        (Family("add2", "adding two-digit numbers", False, True, True), _add2),
        (Family("fact_tail", "capitals of rarer countries", False, True, False), _capital("fact_tail", facts.TAIL)),
    )
}


def families() -> tuple[Family, ...]:
    """Return every family, the easy ones first."""
    return tuple(family for family, _ in _DRAWS.values())


def draw(family: str, rng: random.Random, split: Split) -> Question:
    """Draw one question; prompts may repeat. Raises KeyError on an unknown family."""
    return _DRAWS[family][1](rng, split)


def generate(family: str, seed: int, n: int, split: Split) -> list[Question]:
    """Return `n` questions with distinct prompts, the same ones for the same arguments on every machine.

    Raises KeyError on an unknown family, ValueError when the family has fewer than `n` distinct prompts in the split.
    """
    rng = random.Random(f"{family}/{split}/{seed}")
    questions: dict[str, Question] = {}
    for _ in range(40 * n + 1000):
        if len(questions) == n:
            break
        question = draw(family, rng, split)
        questions.setdefault(question.prompt, question)
    if len(questions) < n:
        raise ValueError(
            f"family {family!r} has only {len(questions)} distinct prompts in split {split!r}, asked for {n}"
        )
    return list(questions.values())


def grade(question: Question, text: str) -> bool:
    """Say whether the text is the answer, to the letter; white space around it does not count."""
    return text.strip() == question.answer
