"""Decide whether an answer kept for one prompt may be served for another: hard vetoes, then a kind of agreement; pure.

Cosine similarity cannot decide it: a swapped direction or a changed number is closer than most paraphrases. So numbers,
negations, symbols, quotations, names, dates, instructions on form and the order of shared words must agree whatever the
similarity. What passes is one of few kinds of agreement, each with its own least similarity:

- `SAME`: every content word agrees up to inflection, listed synonyms and spelling slips
- `OWNER`: the same, but one prompt says whose (`my`, `your`), or another generic subject asks
- `FULLER`: one prompt has one everyday word more
- `ASKED_OTHERWISE`: the same or fuller, under a question that asks the same in general (how to, what can I do to)
- `REWRITTEN`: both have words of their own, three or more together
- `REORDERED`: fuller or rewritten, and the shared words, though no names, stand in another order

One content word in place of another is never served: antonyms, names and opposites look exactly like that.

Vetoes (`NearHit.veto`): `surface` (spelling or code is the subject), `verbatim` (quotations, addresses), `number`,
`negation`, `symbol`, `direction`, `order`, `date`, `constraint`, `entity`, `antonym`, `rare`, `question`, `person`,
`tense`, `substitution`, `addition`, `similarity`, `rate` (the tenant's `max_false_hit_rate` is below the kind's bound).
"""

from dataclasses import dataclass
from functools import lru_cache

from cache import words
from cache.difference import Difference, difference_of, is_same_order, is_shuffled, plays_another_part, same_numbers
from cache.lexicon import NO_WORDS, Lexicon
from cache.reading import Reading, read

_READINGS_KEPT = 2_048


@dataclass(frozen=True, slots=True)
class Agreement:
    """A kind of agreement that is served from `least_similarity` on, with the share of right pairs as `score`.

    `false_hit_bound` bounds false hits / requests when this kind and all stricter ones are served; see `KINDS`.
    """

    name: str
    least_similarity: float
    score: float
    false_hit_bound: float


# Bounds: false hits over all requests of an adversarial developer stream (4,683 requests; counts from
# benchmarks/cache_quality.py: 2, 2, 4, 5, 6, 6 cumulated from the strictest kind on), upper end of the one-sided 95 %
# Clopper-Pearson interval, doubled because the kinds were designed with that stream in sight.
SAME = Agreement("same", 0.60, 0.99, 0.0027)
OWNER = Agreement("owner", 0.90, 0.95, 0.0027)
FULLER = Agreement("fuller", 0.88, 0.93, 0.0039)
ASKED_OTHERWISE = Agreement("asked-otherwise", 0.84, 0.96, 0.0045)
REWRITTEN = Agreement("rewritten", 0.84, 0.92, 0.0050)
REORDERED = Agreement("reordered", 0.88, 0.90, 0.0050)
KINDS = (SAME, OWNER, FULLER, ASKED_OTHERWISE, REWRITTEN, REORDERED)


@dataclass(frozen=True, slots=True)
class Served:
    """The answer may be served; `score` is the estimated probability that it is right, in [0, 1]."""

    score: float
    kind: str


@dataclass(frozen=True, slots=True)
class Vetoed:
    """The answer must not be served; `veto` names the first rule that forbids it."""

    veto: str


class Guard:
    """Judges pairs of prompts; without a lexicon it forgives no spelling slip and serves no rewritten prompt."""

    def __init__(self, lexicon: Lexicon = NO_WORDS) -> None:
        self._lexicon = lexicon
        self._read = lru_cache(maxsize=_READINGS_KEPT)(read)

    def judge(
        self, cached_prompt: str, new_prompt: str, similarity: float, max_false_hit_rate: float = 0.005
    ) -> Served | Vetoed:
        """Judge one pair; symmetric in the prompts. `max_false_hit_rate` is false hits / requests."""
        cached, new = self._read(cached_prompt), self._read(new_prompt)
        veto = _veto_form(cached, new)
        if veto is not None:
            return Vetoed(veto)
        difference = difference_of(cached, new, self._lexicon.known)
        veto = _veto_words(cached, new, difference)
        if veto is not None:
            return Vetoed(veto)
        kind = "direction" if plays_another_part(difference) else self._kind(cached, new, difference)
        if isinstance(kind, str):
            return Vetoed(kind)
        if similarity < kind.least_similarity:
            return Vetoed("similarity")
        return Served(kind.score, kind.name) if kind.false_hit_bound <= max_false_hit_rate else Vetoed("rate")

    def _kind(self, cached: Reading, new: Reading, difference: Difference) -> Agreement | str:
        """Return the kind of agreement, or the veto that leaves none."""
        if not is_same_order(difference):
            return self._veto_reordering(cached, new, difference) or REORDERED
        if difference.only_cached and difference.only_new:
            return self._veto_rewriting(cached, new, difference) or REWRITTEN
        veto = self._veto_addition(cached, new, difference) if difference.words else None
        if veto is not None:
            return veto
        if ("past" in cached.auxiliaries) != ("past" in new.auxiliaries):
            return "tense"
        if not _is_same_question(cached, new) or cached.auxiliaries != new.auxiliaries:
            return ASKED_OTHERWISE if _is_related_question(cached, new) else "question"
        if difference.words:
            return FULLER
        if cached.persons == new.persons:
            return SAME
        return OWNER if _is_generic_owner(cached, new) else "person"

    def _veto_reordering(self, cached: Reading, new: Reading, difference: Difference) -> str | None:
        """Forbid the same words in another order, names in another order, and what no rewriting may change."""
        if not difference.words or cached.names != new.names:
            return "order"
        if difference.only_cached and difference.only_new:
            return self._veto_rewriting(cached, new, difference)
        if len(difference.words) > 1 and _adds_sentence(cached, new):
            return "constraint"
        known = all(one.written in self._lexicon.known for one in difference.words)
        return None if known and _is_related_question(cached, new) else "order"

    def _veto_addition(self, cached: Reading, new: Reading, difference: Difference) -> str | None:
        if len(difference.words) > 1 or (cached.persons ^ new.persons) - words.GENERIC_PERSONS:
            return "addition"
        if _adds_sentence(cached, new):
            return "constraint"
        return None if difference.words[0].written in self._lexicon.common else "rare"

    def _veto_rewriting(self, cached: Reading, new: Reading, difference: Difference) -> str | None:
        if len(difference.words) < 3:
            return "substitution"
        if (cached.persons ^ new.persons) & words.THIRD_PERSONS:
            return "person"
        if not _is_related_question(cached, new):
            return "question"
        if _adds_sentence(cached, new):
            return "constraint"
        return None if all(one.written in self._lexicon.known for one in difference.words) else "rare"


def _veto_form(cached: Reading, new: Reading) -> str | None:
    """Return the first closed-class rule that forbids serving whatever the words."""
    if cached.is_surface_the_subject or new.is_surface_the_subject:
        return "surface"
    if cached.verbatim != new.verbatim:
        return "verbatim"
    if not same_numbers(cached, new):
        return "number"
    if cached.negations != new.negations:
        return "negation"
    if cached.symbols != new.symbols:
        return "symbol"
    if cached.optional and new.optional and cached.optional != new.optional:
        return "substitution"
    if cached.strong_prepositions != new.strong_prepositions:
        return "direction"
    return "order" if is_shuffled(cached.tokens, new.tokens) else None


def _veto_words(cached: Reading, new: Reading, difference: Difference) -> str | None:
    """Return the rule that forbids words of these classes in only one prompt."""
    written = {one.written for one in difference.words}
    if written & words.CALENDAR_WORDS:
        return "date"
    if written & words.FORM_WORDS:
        return "constraint"
    if written & (cached.entities | new.entities):
        return "entity"
    return "antonym" if _is_opposed(difference) else None


def _is_opposed(difference: Difference) -> bool:
    """Whether words that have an opposite stand on one side only, or on both where the prompts were rewritten."""
    cached = {one.written for one in difference.only_cached} & words.POLES
    new = {one.written for one in difference.only_new} & words.POLES
    if len(difference.words) >= 3 and difference.only_cached and difference.only_new:
        return bool(cached and new and (cached | new) - words.USUAL_POLES)
    return bool((cached | new) - words.USUAL_POLES) or bool(cached and new)


def _is_same_question(cached: Reading, new: Reading) -> bool:
    return cached.question == new.question or {cached.question, new.question} == {"", "what be"}


def _is_related_question(cached: Reading, new: Reading) -> bool:
    """Whether a rewritten prompt may ask the same: equal, or both among kinds that paraphrase one another."""
    asked = {cached.question, new.question}
    return len(asked) == 1 or any(asked <= related for related in words.RELATED_QUESTIONS)


def _is_generic_owner(cached: Reading, new: Reading) -> bool:
    """Whether persons differ only by generic subjects and owners, in a question on how to do something."""
    return cached.question == new.question == "how-to" and not (cached.persons ^ new.persons) & words.THIRD_PERSONS


def _adds_sentence(cached: Reading, new: Reading) -> bool:
    """Whether the difference sits in a sentence of its own: one more, or beside sentences that stayed as they were."""
    if len(cached.sentences) == len(new.sentences) == 1:
        return False
    return len(cached.sentences) != len(new.sentences) or bool(set(cached.sentences) & set(new.sentences))
