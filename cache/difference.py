"""Compare two readings of prompts: which words only one of them has, up to spelling slips, and whether order agrees."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from cache import words
from cache.reading import Content, Reading, stem
from cache.slips import is_one_slip

_Tokens = tuple[str, ...]
_LONGEST_COMMUTED = 40
_LEAST_SHARED = 3
_LONG_UNKNOWN = 9
"""Shorter words that no vocabulary knows may be of another language, where one letter changes the meaning."""
_LONGEST_ENDING = 6
_COORDINATORS = frozenset({"and", "or", "versus", "vs"})


@dataclass(frozen=True, slots=True)
class Difference:
    """Content words that one prompt lacks, and those both have, each in its own order and under the new one's stems."""

    only_cached: tuple[Content, ...]
    only_new: tuple[Content, ...]
    shared_cached: tuple[Content, ...]
    shared_new: tuple[Content, ...]

    @property
    def words(self) -> tuple[Content, ...]:
        """Return every word that only one prompt has."""
        return (*self.only_cached, *self.only_new)


def difference_of(cached: Reading, new: Reading, known_words: frozenset[str]) -> Difference:
    """Align content words by stem, then by a single spelling slip where one form is no known word."""
    slips: dict[str, str] = {}
    only_new = _minus(new.content, cached.content)
    for one in _minus(cached.content, new.content):
        slip = next((other for other in only_new if _is_slip(one, other, cached, new, known_words)), None)
        if slip is not None and slip.stem not in slips.values():
            slips[one.stem] = slip.stem
    aligned = tuple(replace(one, stem=slips[one.stem]) if one.stem in slips else one for one in cached.content)
    only_cached, only_new = _minus(aligned, new.content), _minus(new.content, aligned)
    return Difference(
        only_cached=tuple(only_cached),
        only_new=tuple(only_new),
        shared_cached=tuple(one for one in aligned if one not in only_cached),
        shared_new=tuple(one for one in new.content if one not in only_new),
    )


def same_numbers(cached: Reading, new: Reading) -> bool:
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


def is_shuffled(cached: tuple[str, ...], new: tuple[str, ...]) -> bool:
    """Whether one text is the other's words in another order, unless whole ends changed places."""
    if cached == new or sorted(cached) != sorted(new):
        return False
    cached = tuple(word for word in cached if word not in words.AUXILIARIES)
    new = tuple(word for word in new if word not in words.AUXILIARIES)
    if cached == new or is_commuted(cached, new):
        return False
    return not any(cached[cut:] + cached[:cut] == new for cut in range(1, len(cached)))


def is_commuted(cached: tuple[str, ...], new: tuple[str, ...]) -> bool:
    """Whether the texts are one but for two parts that changed places around "and", "or" or "versus".

    The parts may share words: "private companies and public companies", "course 480 and course 600". Bare numbers do
    not commute.
    """
    if cached == new or sorted(cached) != sorted(new):
        return False
    start = next(at for at, (one, other) in enumerate(zip(cached, new, strict=True)) if one != other)
    end = next(at for at in range(len(cached), 0, -1) if cached[at - 1] != new[at - 1])
    one, other, after = cached[start:end], new[start:end], cached[end:]
    if len(one) > _LONGEST_COMMUTED:
        return False
    heads = [size for size in range(1, len(one)) if other[len(other) - size :] == one[:size]]
    tails = [size for size in range(1, len(one)) if other[:size] == one[len(one) - size :]]
    return any(_is_swap(cached, start, one, other, after, head, tail) for head in heads for tail in tails)


def _is_swap(cached: _Tokens, start: int, one: _Tokens, other: _Tokens, after: _Tokens, head: int, tail: int) -> bool:
    """Whether the first `head` and the last `tail` words changed places around a coordinator."""
    if head + tail >= len(one):
        return False
    middle = one[head : len(one) - tail]
    if other[tail : len(other) - head] != middle:
        return False
    return _is_coordination(cached[:start], one[:head], middle, one[len(one) - tail :], after)


def _is_coordination(before: _Tokens, head: _Tokens, middle: _Tokens, tail: _Tokens, after: _Tokens) -> bool:
    """Whether `middle` is a coordinator between what both parts share: words before them and words after them."""
    at = next((place for place, word in enumerate(middle) if word in _COORDINATORS), None)
    if at is None:
        return False
    follows, leads = middle[:at], middle[at + 1 :]
    if after[: len(follows)] != follows or before[len(before) - len(leads) :] != leads:
        return False
    return bool(leads) or not (_has_digit(head[0]) or _has_digit(tail[0]))


def replaces_ending(cached: tuple[str, ...], new: tuple[str, ...]) -> bool:
    """Whether the texts begin alike and each ends in a phrase of its own that a preposition leads: "in verse"."""
    shared = next((at for at, (one, other) in enumerate(zip(cached, new, strict=False)) if one != other), 0)
    while shared and cached[shared - 1] in words.ENDING_PREPOSITIONS:
        shared -= 1
    endings = cached[shared:], new[shared:]
    if shared < _LEAST_SHARED or not all(_is_phrase(ending) for ending in endings):
        return False
    one, other = (frozenset(stem(word) for word in ending) - words.FUNCTION_WORDS for ending in endings)
    return not one & other


def _is_phrase(ending: _Tokens) -> bool:
    """Whether an ending is one phrase of a preposition, or of adverbs of manner alone."""
    if not ending or len(ending) > _LONGEST_ENDING:
        return False
    return ending[0] in words.ENDING_PREPOSITIONS or (ending[0].endswith("ly") and ending[0] not in words.ADVERBS)


def is_same_order(difference: Difference) -> bool:
    """Whether the shared words stand in one order, but for one adverbial or possessive that moved."""
    cached, new = difference.shared_cached, difference.shared_new
    if [one.stem for one in cached] == [one.stem for one in new]:
        return True
    return _is_moved_adverbial(cached, new) or _is_moved_adverbial(new, cached)


def plays_another_part(difference: Difference) -> bool:
    """Whether a shared word stands after prepositions that give it different parts."""
    cached, new = difference.shared_cached, difference.shared_new
    return _has_opposed_role(cached, new) or _has_opposed_role(new, cached)


def _has_opposed_role(ones: tuple[Content, ...], others: tuple[Content, ...]) -> bool:
    roles = {(other.stem, other.preposition) for other in others}
    for one in ones:
        if (one.stem, one.preposition) in roles:
            continue
        same = [other for other in others if other.stem == one.stem and not _is_means(other)]
        if not _is_means(one) and same and all(_is_opposed(one.preposition, other.preposition) for other in same):
            return True
    return False


def _is_means(one: Content) -> bool:
    """Whether "by" tells the means, as in "by walking", and not who does it."""
    return one.preposition == "by" and one.written.endswith("ing")


def _is_opposed(one: str, other: str) -> bool:
    """Whether two prepositions of the same word give it different parts: by the dog, the dog; to Rome, from Rome."""
    if "by" in (one, other):
        return True
    return bool(one and other) and bool({one, other} & words.OPPOSED_PREPOSITIONS)


def _is_moved_adverbial(cached: tuple[Content, ...], new: tuple[Content, ...]) -> bool:
    """Whether one text is the other with one block moved, under the same preposition in both.

    A block that holds a number may lose its preposition: "for course 425, how many" and "how many has course 425".
    What stands before both places of the block and after both must be alike already, which leaves few to compare.
    """
    count = len(cached)
    if count != len(new):
        return False
    stems_cached, stems_new = [one.stem for one in cached], [one.stem for one in new]
    start, end = alike_at_start(stems_cached, stems_new), alike_at_start(stems_cached[::-1], stems_new[::-1])
    heads = [at for at, one in enumerate(cached) if one.preposition in words.MOVABLE_PREPOSITIONS]
    for head in heads:
        for at, one in enumerate(new):
            if one.stem != cached[head].stem or min(head, at) > start:
                continue
            behind = max(head, at)
            for size in range(max(1, count - end - behind), count - behind + 1):
                block = stems_cached[head : head + size]
                if stems_new[at : at + size] != block:
                    break
                if stems_new[:at] + stems_new[at + size :] != stems_cached[:head] + stems_cached[head + size :]:
                    continue
                numbered = not one.preposition and any(map(_has_digit, block))
                if numbered or one.preposition == cached[head].preposition:
                    return True
    return False


def alike_at_start(ones: Sequence[str], others: Sequence[str]) -> int:
    """Return how many words both begin with alike."""
    pairs = enumerate(zip(ones, others, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(ones), len(others)))


def _has_digit(text: str) -> bool:
    return any(character.isdigit() for character in text)


def _minus(ones: tuple[Content, ...], others: tuple[Content, ...]) -> list[Content]:
    left = Counter(other.stem for other in others)
    missing = []
    for one in ones:
        if left[one.stem]:
            left[one.stem] -= 1
        else:
            missing.append(one)
    return missing


def _is_slip(one: Content, other: Content, cached: Reading, new: Reading, known_words: frozenset[str]) -> bool:
    """Whether one word is the other misspelt: a known or a long word, by one slip, as no known word or name."""
    if not known_words or one.written in cached.entities or other.written in new.entities:
        return False
    known = (one.written in known_words) + (other.written in known_words)
    is_long = min(len(one.written), len(other.written)) >= _LONG_UNKNOWN
    return (known == 1 or (known == 0 and is_long)) and is_one_slip(one.written, other.written)
