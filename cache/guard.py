"""Decide whether an answer kept for one prompt may be served for another: hard vetoes, then a score; pure.

Cosine similarity cannot decide it: a swapped direction or a changed number is closer than most paraphrases. The rules
are structural. Numbers, negations, persons, symbols, quotations and prepositions must agree, and so must every content
word up to inflection, listed synonyms and spelling slips: a changed content word is a veto whatever the word is.

Vetoes (`NearHit.veto`): `surface` (spelling or code is the subject), `verbatim` (quotations, addresses), `number`,
`date`, `negation`, `person`, `symbol`, `question`, `tense`, `entity`, `constraint`, `substitution`, `addition`,
`direction`, `order`, `similarity`.
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from cache import words
from cache.reading import Content, Reading, read

LEAST_SIMILARITY = 0.75
_READINGS_KEPT = 2_048
_PLACING_PREPOSITIONS = frozenset({"", "in", "on", "at", "of"})


@dataclass(frozen=True, slots=True)
class Served:
    """The answer may be served; `score` is the estimated probability that it is right, in [0, 1]."""

    score: float


@dataclass(frozen=True, slots=True)
class Vetoed:
    """The answer must not be served; `veto` names the first rule that forbids it."""

    veto: str


class Guard:
    """Judges pairs of prompts.

    Args:
        known_words: correctly spelt words in lower case; a word outside it may be a slip for one inside.
        least_similarity: cosine below which nothing is served.
    """

    def __init__(
        self, known_words: frozenset[str] = frozenset(), *, least_similarity: float = LEAST_SIMILARITY
    ) -> None:
        self._known_words = known_words
        self._least_similarity = least_similarity
        self._read = lru_cache(maxsize=_READINGS_KEPT)(read)

    def judge(self, cached_prompt: str, new_prompt: str, similarity: float) -> Served | Vetoed:
        """Judge one pair; symmetric in the prompts."""
        cached, new = self._read(cached_prompt), self._read(new_prompt)
        veto = _veto_form(cached, new) or self._veto_content(cached, new)
        if veto is None and similarity < self._least_similarity:
            veto = "similarity"
        return Served(_score(similarity)) if veto is None else Vetoed(veto)

    def _veto_content(self, cached: Reading, new: Reading) -> str | None:
        difference = self._difference(cached, new)
        if difference.only_cached or difference.only_new:
            return _name_difference(cached, new, difference)
        return _veto_order(difference.shared_cached, difference.shared_new)

    def _difference(self, cached: Reading, new: Reading) -> "_Difference":
        only_cached = _minus(cached.content, new.content)
        only_new = _minus(new.content, cached.content)
        slips: dict[str, str] = {}
        for one in only_cached:
            other = next((two for two in only_new if self._is_slip(one, two, cached, new)), None)
            if other is not None and other.stem not in slips.values():
                slips[one.stem] = other.stem
        shared_cached = [Content(slips.get(one.stem, one.stem), one.preposition, one.written) for one in cached.content]
        return _Difference(
            only_cached=tuple(one for one in only_cached if one.stem not in slips),
            only_new=tuple(one for one in only_new if one.stem not in slips.values()),
            shared_cached=shared_cached,
            shared_new=list(new.content),
        )

    def _is_slip(self, one: Content, other: Content, cached: Reading, new: Reading) -> bool:
        """Whether one word is the other misspelt: a single slip, and the misspelt form is no known word or name."""
        if not self._known_words or one.written in cached.entities or other.written in new.entities:
            return False
        both_known = one.written in self._known_words and other.written in self._known_words
        return not both_known and _is_one_slip(one.written, other.written)


@dataclass(frozen=True, slots=True)
class _Difference:
    only_cached: tuple[Content, ...]
    only_new: tuple[Content, ...]
    shared_cached: list[Content]
    shared_new: list[Content]


def _veto_form(cached: Reading, new: Reading) -> str | None:
    """Return the first closed-class rule that forbids serving."""
    if cached.is_surface_the_subject or new.is_surface_the_subject:
        return "surface"
    if cached.verbatim != new.verbatim:
        return "verbatim"
    if not _same_numbers(cached, new):
        return "number"
    if cached.negations != new.negations:
        return "negation"
    if cached.symbols != new.symbols:
        return "symbol"
    if cached.question != new.question and {cached.question, new.question} != {"", "what be"}:
        return "question"
    if cached.persons != new.persons:
        return "person"
    if cached.optional and new.optional and cached.optional != new.optional:
        return "substitution"
    if cached.strong_prepositions != new.strong_prepositions:
        return "direction"
    if cached.auxiliaries != new.auxiliaries:
        return "tense"
    return "order" if _is_shuffled(cached.tokens, new.tokens) else None


def _is_shuffled(cached: tuple[str, ...], new: tuple[str, ...]) -> bool:
    """Whether one text is the other's words in another order, unless whole ends changed places."""
    if cached == new or sorted(cached) != sorted(new):
        return False
    return not any(cached[cut:] + cached[:cut] == new for cut in range(1, len(cached)))


def _same_numbers(cached: Reading, new: Reading) -> bool:
    """Whether the numbers agree in order, or are distinct and each stands beside a word of its own in both texts."""
    if cached.numbers == new.numbers:
        return True
    if cached.symbols or len(set(cached.numbers)) < len(cached.numbers) or set(cached.numbers) != set(new.numbers):
        return False
    if len(cached.numbers) != len(new.numbers):
        return False
    near_new = dict(zip(new.numbers, new.number_neighbours, strict=True))
    claimed: set[str] = set()
    for number, near in zip(cached.numbers, cached.number_neighbours, strict=True):
        common = near & near_new[number]
        if not common or common & claimed:
            return False
        claimed |= near | near_new[number]
    return True


def _name_difference(cached: Reading, new: Reading, difference: _Difference) -> str:
    """Name the rule for words that only one prompt has; every name is a veto, the name serves explanation."""
    only = (*difference.only_cached, *difference.only_new)
    written = {one.written for one in only}
    if written & words.CALENDAR_WORDS:
        return "date"
    if written & words.FORM_WORDS:
        return "constraint"
    if written & (cached.entities | new.entities):
        return "entity"
    return "substitution" if difference.only_cached and difference.only_new else "addition"


def _veto_order(cached: list[Content], new: list[Content]) -> str | None:
    """Veto another order of the same words, unless one adverbial or possessive moved, and another preposition."""
    stems_cached, stems_new = [one.stem for one in cached], [one.stem for one in new]
    if stems_cached != stems_new and not _is_moved_adverbial(cached, new):
        return "order"
    roles = Counter((one.stem, one.preposition) for one in new)
    for one in cached:
        if (one.stem, one.preposition) in roles:
            continue
        others = {two.preposition for two in new if two.stem == one.stem}
        if not {one.preposition, *others} <= _PLACING_PREPOSITIONS:
            return "direction"
    return None


def _is_moved_adverbial(cached: list[Content], new: list[Content]) -> bool:
    """Whether one text is the other with its last or first block moved, under the same preposition in both."""
    size = len(cached)
    for cut in range(1, size):
        if [one.stem for one in cached[cut:] + cached[:cut]] != [one.stem for one in new]:
            continue
        heads = (cached[cut], new[0]), (cached[0], new[size - cut])
        return any(a.preposition == b.preposition and a.preposition in words.MOVABLE_PREPOSITIONS for a, b in heads)
    return False


def _minus(ones: tuple[Content, ...], others: tuple[Content, ...]) -> list[Content]:
    left = Counter(other.stem for other in others)
    missing = []
    for one in ones:
        if left[one.stem]:
            left[one.stem] -= 1
        else:
            missing.append(one)
    return missing


def _is_one_slip(one: str, other: str) -> bool:
    """Whether the words of five letters or more differ by one letter added, dropped, changed or two swapped inside."""
    if min(len(one), len(other)) < 5 or one[0] != other[0] or not (one.isalpha() and other.isalpha()):
        return False
    if one == other:
        return True
    start = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    rest_one, rest_other = one[start:], other[start:]
    if len(one) == len(other):
        swapped = rest_one[1:2] + rest_one[:1] == rest_other[:2]
        return rest_one[1:] == rest_other[1:] or (swapped and rest_one[2:] == rest_other[2:])
    longer, shorter = (rest_one, rest_other) if len(one) > len(other) else (rest_other, rest_one)
    return longer[1:] == shorter


def _score(similarity: float) -> float:
    """Rise from .98 at the least similarity to .999 at 1: what passed every veto is seldom wrong."""
    return min(0.999, 0.98 + 0.019 * max(0.0, similarity - LEAST_SIMILARITY) / (1.0 - LEAST_SIMILARITY))
