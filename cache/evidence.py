"""Turn two readings and their difference into the evidence that the guard's probability is computed from; pure."""

from collections.abc import Sequence
from itertools import pairwise

from cache import words
from cache.difference import Difference, alike_at_start
from cache.lexicon import Lexicon
from cache.reading import Reading

RULES = (
    "same", "owner", "fuller", "asked-otherwise", "rewritten", "reordered",
    "question", "rewritten-question", "rewritten-rare",
)  # fmt: skip
"""What the rules said of a pair: a kind of agreement, or a veto that the probability may overrule."""
NAMES = (
    "similarity", "similarity_above_80", "similarity_above_90", "similarity_above_95", "margin",
    "fewer_words", "more_words", "fewer_weight", "more_weight", "heaviest_word", "shared_weight", "shared_ratio",
    "token_overlap", "trigram_overlap", "token_order", "content_order",
    "question_other", "question_unrelated", "persons", "third_persons", "auxiliaries", "tense",
    "reordered", "added_sentence", "unknown_words", "uncommon_words", "names_other", "length_ratio", "short",
    "modified_words", "qualified_end", "adverb_words", "prepositional_words", "content_words",
    *(f"rule_{rule}" for rule in RULES),
)  # fmt: skip
_MARGIN_BOUND = 0.15
_SHORT_TOKENS = 6


def evidence_of(
    cached: Reading,
    new: Reading,
    difference: Difference,
    rule: str,
    *,
    lexicon: Lexicon,
    similarity: float,
    margin: float,
) -> list[float]:
    """Return the evidence in the order of `NAMES`, each about in [-1, 1]; symmetric in the prompts.

    Args:
        rule: what the rules said, one of `RULES`.
        similarity: cosine in [-1, 1].
        margin: similarity minus that of the next neighbour; bounded here.
    """
    return [
        similarity,
        *(max(0.0, similarity - knot) * 10 for knot in (0.80, 0.90, 0.95)),
        bounded_margin(margin),
        *_of_words(difference, lexicon),
        *_of_overlap(cached, new, difference),
        *_of_form(cached, new, difference),
        *_of_rarity(cached, new, difference, lexicon),
        *(float(rule == one) for one in RULES),
    ]


def bounded_margin(margin: float) -> float:
    """Return the margin as evidence in [-1, 1]."""
    return max(-_MARGIN_BOUND, min(_MARGIN_BOUND, margin)) / _MARGIN_BOUND


def _of_words(difference: Difference, lexicon: Lexicon) -> list[float]:
    only_cached = [lexicon.weight(one.written) for one in difference.only_cached]
    only_new = [lexicon.weight(one.written) for one in difference.only_new]
    shared = sum(lexicon.weight(one.written) for one in difference.shared_new)
    fewer, more = sorted((len(only_cached), len(only_new)))
    lighter, heavier = sorted((sum(only_cached), sum(only_new)))
    return [
        min(fewer, 4) / 4,
        min(more, 6) / 6,
        min(lighter, 4.0) / 4,
        min(heavier, 6.0) / 6,
        max(only_cached + only_new, default=0.0),
        min(shared, 6.0) / 6,
        shared / (shared + lighter + heavier) if shared else 0.0,
    ]


def _of_overlap(cached: Reading, new: Reading, difference: Difference) -> list[float]:
    return [
        _overlap(frozenset(cached.tokens), frozenset(new.tokens)),
        _overlap(_trigrams(cached.sentences), _trigrams(new.sentences)),
        _in_order(cached.tokens, new.tokens),
        _in_order([one.stem for one in cached.content], [one.stem for one in new.content]),
    ]


def _of_form(cached: Reading, new: Reading, difference: Difference) -> list[float]:
    persons = cached.persons ^ new.persons
    asked = {cached.question, new.question}
    shared_cached = [one.stem for one in difference.shared_cached]
    return [
        float(len(asked) > 1),
        float(len(asked) > 1 and not any(asked <= related for related in words.RELATED_QUESTIONS)),
        min(len(persons), 3) / 3,
        float(bool(persons & words.THIRD_PERSONS)),
        min(len(cached.auxiliaries ^ new.auxiliaries), 2) / 2,
        float(("past" in cached.auxiliaries) != ("past" in new.auxiliaries)),
        float(shared_cached != [one.stem for one in difference.shared_new]),
        min(abs(len(cached.sentences) - len(new.sentences)), 2) / 2,
    ]


def _of_rarity(cached: Reading, new: Reading, difference: Difference, lexicon: Lexicon) -> list[float]:
    fewer, more = sorted((len(cached.tokens), len(new.tokens)))
    written = [one.written for one in difference.words]
    return [
        min(sum(one.written not in lexicon.known for one in difference.words), 3) / 3,
        min(sum(one.written not in lexicon.common for one in difference.words), 3) / 3,
        float(cached.names != new.names),
        fewer / max(1, more),
        float(fewer < _SHORT_TOKENS),
        min(_modified(cached, new, difference), 2) / 2,
        float(_is_qualified_at_end(cached, difference) != _is_qualified_at_end(new, difference)),
        min(sum(map(_is_adverb, written)), 2) / 2,
        min(sum(one.preposition != "" for one in difference.words), 2) / 2,
        min(sum(map(_says_much, written)), 4) / 4,
    ]


def _modified(cached: Reading, new: Reading, difference: Difference) -> int:
    """Count shared words right before which one prompt alone has a word of its own that says more about it."""
    own = {one.stem for one in difference.words}
    before_cached, before_new = _before_shared(cached, own), _before_shared(new, own)
    return sum((stem in before_cached) != (stem in before_new) for stem in before_cached.keys() | before_new.keys())


def _before_shared(reading: Reading, own: set[str]) -> dict[str, str]:
    return {
        one.stem: before.stem
        for before, one in pairwise(reading.content)
        if one.stem not in own and not one.preposition and before.stem in own and _says_much(before.written)
    }


def _is_qualified_at_end(reading: Reading, difference: Difference) -> bool:
    """Whether the prompt ends in a word of its own that a preposition leads, as "for a baby" or "in winter" do."""
    if not reading.content:
        return False
    own = {one.stem for one in difference.words}
    ends = [one for one in reading.content[-2:] if one.stem in own and one.preposition]
    return bool(ends) and reading.content[-1].stem in own


def _says_much(word: str) -> bool:
    return not _is_adverb(word) and word not in words.LIGHT_WORDS


def _is_adverb(word: str) -> bool:
    """Whether `word` is one that seldom changes what is asked."""
    return word in words.ADVERBS or (word.endswith("ly") and len(word) > 4)


def _overlap(ones: frozenset[str], others: frozenset[str]) -> float:
    return len(ones & others) / max(1, len(ones | others))


def _trigrams(sentences: Sequence[str]) -> frozenset[str]:
    text = f" {' '.join(sentences)} "
    return frozenset(text[at : at + 3] for at in range(len(text) - 2))


def _in_order(ones: Sequence[str], others: Sequence[str]) -> float:
    """Return the longest common subsequence over the longer length; quadratic, so only the first 64 words count."""
    ones, others = ones[:64], others[:64]
    longer = max(1, len(ones), len(others))
    start = alike_at_start(ones, others)
    ones, others = ones[start:], others[start:]
    end = alike_at_start(ones[::-1], others[::-1])
    ones, others = ones[: len(ones) - end], others[: len(others) - end]
    row = [0] * (len(others) + 1)
    for one in ones:
        before = 0
        for at, other in enumerate(others, start=1):
            kept = row[at]
            row[at] = before + 1 if one == other else max(kept, row[at - 1])
            before = kept
    return (start + row[-1] + end) / longer
