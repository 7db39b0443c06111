"""Turn a prompt into numbers: hashed words for TF-IDF and a few lexical counts, without any vocabulary file.

The text is capped first, so that the time is bounded: a very long prompt keeps its head and its tail. The answers that
a multiple-choice question offers are left out: models learn "multiple choice" from them and then fail on every other
format (whole tasks held out, pooled APGR of the text head .45 with them and .57 without). Only how many of their words
the question says itself is counted.

A prompt is looked at several times: whole, without its head, its tail alone, and, where a few words weigh much, without
its first 1, 2, 4 and 8 words. The judge takes the view in which it is easiest, so that words put before a prompt cannot
make it look hard (benchmarks/results/router_abuse.json).
"""

import math
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from router.script import non_latin_ratio

Floats = NDArray[np.float32]
Buckets = NDArray[np.int64]

HEAD_CHARS = 1_000
TAIL_CHARS = 1_000
BUCKETS = 1 << 14
MAX_COUNTED_NUMBERS = 12
TELLING_CHARS = 4
"""Words of offered answers that are shorter ("the", "of") do not count as known from the question."""
HEAD_WORDS = 30
TAIL_SHARE = 4
TAIL_WORDS = 4
VIEWS = ("whole", "body", "tail")
STRIPPED_WORDS = (1, 2, 4, 8)
STRIPPED_BELOW_WORDS = 200
"""Longer prompts are not stripped word by word: a few words put before them move no score."""
FEATURES_VERSION = "4"

LEXICAL_NAMES = (
    "log_chars",
    "log_words",
    "word_chars",
    "log_sentences",
    "words_per_sentence",
    "digit_ratio",
    "log_numbers",
    "log_longest_number",
    "log_number_products",
    "operators",
    "mathematics",
    "code",
    "negations",
    "comparisons",
    "reasons",
    "recall",
    "tasks",
    "quantities",
    "capital_ratio",
    "log_commas",
    "log_lines",
    "long_word_ratio",
    "distinct_ratio",
    "non_latin_ratio",
    "offered_known_ratio",
)
DIGITS_AT = LEXICAL_NAMES.index("log_longest_number")

_OPTION_LINE = re.compile(r"(?m)^[ \t]*\(?[A-J][.)][ \t].*\n?")
_CLOSING = re.compile(r"\s*\bAnswer:\s*$")
_TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d+|[^\w\s]")
_WORD = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_NUMBER_PART = re.compile(r"\d+")
_RUN = re.compile(r"\d+(?:(?:,\s*|\s+and\s+|\s+)\d+)*")
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n")
_OPERATOR = re.compile(r"[=+*/^<>%]|\d\s*-\s*\d")
_MATHEMATICS = re.compile(
    r"\\[a-z]+|\$[^$]+\$|\b(?:equation|integral|derivative|polynomial|matrix|triangle|theorem|prove|proof|"
    r"probability|function|solve|calculate|compute|modulo|prime|vector|angle|radius|logarithm)\b",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"```|\bdef |\bclass \w+|\breturn\b|\bimport \w+|[{};]\s*$|\w+\(\w*\)|\b(?:python|javascript|java|sql|regex|"
    r"algorithm|code|program|compile|array|loop|runtime|debug|refactor)\b",
    re.IGNORECASE | re.MULTILINE,
)

_WORD_SETS = {
    "negations": frozenset(("not", "no", "never", "none", "neither", "nor", "except", "without", "cannot", "least")),
    "comparisons": frozenset(
        ("more", "less", "than", "most", "best", "greater", "larger", "smaller", "higher", "lower", "compare", "versus")
    ),
    "reasons": frozenset(
        ("why", "how", "because", "explain", "therefore", "if", "suppose", "assume", "consider", "given")
    ),
    "recall": frozenset(("who", "when", "where", "what", "which", "name", "define", "capital", "called", "known")),
    "tasks": frozenset(
        (
            "write",
            "create",
            "design",
            "implement",
            "generate",
            "develop",
            "analyze",
            "evaluate",
            "plan",
            "draft",
            "prove",
        )
    ),
    "quantities": frozenset(
        (
            "many",
            "much",
            "each",
            "total",
            "every",
            "half",
            "twice",
            "times",
            "per",
            "percent",
            "left",
            "sum",
            "cost",
            "hours",
        )
    ),
}


@dataclass(frozen=True, slots=True)
class _Common:
    """What is judged once, in the whole prompt, and told to each of its views.

    Attributes:
        longest_run: how many numbers its longest list holds.
        cut_chars: how many characters were cut out of the middle.
        offered_known: share of the offered answers' telling words that the question says itself, mean of the answers.
    """

    longest_run: int
    cut_chars: int
    offered_known: float


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """What the text head sees of one view of a prompt.

    Attributes:
        buckets: (k,) int64, distinct hash buckets in [0, BUCKETS).
        counts: (k,) float32, how often each bucket occurred.
        lexical: (len(LEXICAL_NAMES),) float32, unscaled.
    """

    buckets: Buckets
    counts: Floats
    lexical: Floats


@dataclass(frozen=True, slots=True)
class TextViews:
    """A prompt in each of VIEWS, without a few of its first words, and how many characters the cap left out.

    `longest_run` is how many numbers its longest list holds.
    """

    whole: TextFeatures
    body: TextFeatures
    tail: TextFeatures
    stripped: tuple[TextFeatures, ...]
    cut_chars: int
    longest_run: int

    @property
    def each(self) -> tuple[TextFeatures, ...]:
        """Return all views, those of VIEWS first and in their order."""
        return self.whole, self.body, self.tail, *self.stripped

    @property
    def headless(self) -> tuple[TextFeatures, ...]:
        """Return the views that lack nothing but words at the beginning."""
        return self.body, *self.stripped

    @property
    def extent(self) -> tuple[float, float]:
        """Return how far the prompt goes in what is counted: log(1 + numbers in a list), log(1 + digits of a number).

        Digits are those of the view that has the fewest, so that a number put before a prompt does not count.
        """
        digits = min(float(view.lexical[DIGITS_AT]) for view in (self.whole, *self.headless))
        return math.log1p(self.longest_run), digits


def capped(text: str) -> tuple[str, int]:
    """Return the head and the tail of `text` (all of it when short) and the number of characters left out."""
    cut_chars = len(text) - HEAD_CHARS - TAIL_CHARS
    if cut_chars <= 0:
        return text, 0
    return f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}", cut_chars


def without_options(text: str) -> str:
    """Return `text` without lines that offer answers ("A. ...", two or more) and without a closing "Answer:"."""
    stem = _CLOSING.sub("", text)
    if len(_OPTION_LINE.findall(stem)) < 2:
        return stem
    return _OPTION_LINE.sub("", stem).strip() or stem


def text_views(text: str) -> TextViews:
    """Measure one prompt in every view; the time is bounded by the cap (see benchmarks/results/router_quality.json)."""
    kept, cut_chars = capped(text)
    plain = without_options(kept)
    common = _Common(_longest_run(plain), cut_chars, _offered_known(kept, plain))
    whole = _features(plain, common)
    n_words = len(plain.split())
    if n_words < 2:
        return TextViews(whole, whole, whole, (), cut_chars, common.longest_run)
    head_words = min(n_words // 2, HEAD_WORDS)
    body = _features(plain.split(None, head_words)[-1], common)
    tail_words = min(max(n_words // TAIL_SHARE, TAIL_WORDS), n_words - head_words)
    tail = _features(_last_words(plain, tail_words), common)
    few = [words for words in STRIPPED_WORDS if words < head_words and n_words < STRIPPED_BELOW_WORDS]
    stripped = tuple(_features(plain.split(None, words)[-1], common) for words in few)
    return TextViews(whole, body, tail, stripped, cut_chars, common.longest_run)


def _last_words(text: str, n: int) -> str:
    return text[len(text.rsplit(None, n)[0]) :].lstrip()


def _longest_run(text: str) -> int:
    """Return how many numbers the longest list in `text` holds, judged in the whole of it for every view."""
    runs = (len(_NUMBER_PART.findall(run.group())) for run in _RUN.finditer(text))
    return min(max(runs, default=0), MAX_COUNTED_NUMBERS)


def _offered_known(text: str, plain: str) -> float:
    """Return the mean share of an offered answer's telling words that the question itself says; 0 without answers."""
    if len(plain) == len(text):
        return 0.0
    answers = [_telling(line) for line in _OPTION_LINE.findall(text)]
    known = _telling(plain)
    return sum(len(answer & known) / max(1, len(answer)) for answer in answers) / max(1, len(answers))


def _telling(text: str) -> set[str]:
    return {word for word in _WORD.findall(text.lower()) if len(word) >= TELLING_CHARS}


def _features(text: str, common: _Common) -> TextFeatures:
    words = _TOKEN.findall(text.lower())
    counted = Counter(_bucket(term) for term in _terms(words, common.longest_run))
    return TextFeatures(
        buckets=np.fromiter(counted.keys(), np.int64, len(counted)),
        counts=np.fromiter(counted.values(), np.float32, len(counted)),
        lexical=_lexical(text, words, common),
    )


def _terms(words: list[str], longest_run: int) -> list[str]:
    """Return words, pairs of neighbours and how many numbers the longest list holds.

    A number is replaced by its shape, so that 48 and 37 look alike; the length of a list is a term of its own, since
    "sort six" and "sort seven" are not on a line.
    """
    shaped = ["0" * min(len(word), 4) if word[0].isdigit() else word for word in words]
    return [*shaped, *(f"{first} {second}" for first, second in pairwise(shaped)), *[f"{longest_run} numbers"] * 2]


def _bucket(term: str) -> int:
    return zlib.crc32(term.encode()) & (BUCKETS - 1)


def _lexical(text: str, words: list[str], common: _Common) -> Floats:
    chars = max(1, len(text))
    alphabetic = [word for word in words if word[0].isalpha()]
    n_words = max(1, len(alphabetic))
    sentences = 1 + len(_SENTENCE_END.findall(text))
    numbers = _NUMBER.findall(text)
    tally = Counter(alphabetic)
    occurrences = {name: sum(tally[word] for word in members) for name, members in _WORD_SETS.items()}
    longest = max((len(number) for number in numbers), default=0)
    values = (
        math.log1p(len(text) + common.cut_chars),
        math.log1p(len(alphabetic)),
        sum(map(len, alphabetic)) / n_words,
        math.log(sentences),
        len(alphabetic) / sentences,
        sum(map(len, numbers)) / chars,
        math.log1p(len(numbers)),
        math.log1p(longest),
        math.log1p(len(numbers) * longest),
        math.log1p(len(_OPERATOR.findall(text))),
        math.log1p(len(_MATHEMATICS.findall(text))),
        math.log1p(len(_CODE.findall(text))),
        math.log1p(occurrences["negations"]),
        math.log1p(occurrences["comparisons"]),
        math.log1p(occurrences["reasons"]),
        math.log1p(occurrences["recall"]),
        math.log1p(occurrences["tasks"]),
        math.log1p(occurrences["quantities"]),
        sum(map(str.isupper, text)) / chars,
        math.log1p(text.count(",")),
        math.log1p(text.count("\n")),
        sum(len(word) > 8 for word in alphabetic) / n_words,
        len(tally) / n_words,
        non_latin_ratio(text),
        common.offered_known,
    )
    return np.array(values, dtype=np.float32)
