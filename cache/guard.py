"""Decide whether an answer kept for one prompt may be served for another: hard vetoes, then a probability; pure.

Cosine similarity cannot decide it: a swapped direction or a changed number is closer than most paraphrases. So numbers,
negations, symbols, quotations, names, dates, instructions on form and the order of shared words must agree whatever the
similarity. What the vetoes leave is named by a rule. Rule, similarity, margin and the words and forms in which the
prompts differ are the evidence (`cache.evidence`) for the probability that it may be served (`cache.calibration`):

- `same`: every content word agrees up to inflection, listed synonyms and spelling slips
- `owner`: the same, but one prompt says whose (`my`, `your`), or another generic subject asks
- `fuller`: one prompt has one everyday word more
- `asked-otherwise`: the same or fuller, under a question that asks the same in general (how to, what can I do to)
- `rewritten`: both have words of their own, three or more together
- `reordered`: fuller or rewritten, and the shared words, though no names, stand in another order
- `question`, `rewritten-question`, `rewritten-rare`: vetoes that a high probability overrules

One content word in place of another is never served: antonyms, names and opposites look exactly like that.

Vetoes (`NearHit.veto`): `surface` (spelling or code is the subject), `verbatim` (quotations, addresses), `number`,
`negation`, `symbol`, `direction`, `order`, `date`, `constraint`, `entity`, `antonym`, `rare`, `question`, `person`,
`tense`, `substitution`, `addition`, `similarity`, `rewritten-question`, `rewritten-rare`, `score` (the probability is
below the tenant's threshold), and from `cache.semantic_cache`: `feedback` (this pair was reported wrong).
"""

from dataclasses import dataclass
from functools import lru_cache

from cache import words
from cache.calibration import ScoreTable, shipped_score
from cache.difference import (
    Difference,
    difference_of,
    is_commuted,
    is_same_order,
    is_shuffled,
    plays_another_part,
    replaces_ending,
    same_numbers,
)
from cache.evidence import RULES, evidence_of
from cache.lexicon import NO_WORDS, Lexicon
from cache.reading import Content, Reading, read

_READINGS_KEPT = 2_048
_KINDS_ASKED = frozenset({"when", "where", "who", "whose"})
LEAST_SIMILARITY = 0.6
LEAST_SIMILARITY_OTHERWISE = 0.8
OVERRULED = frozenset({"question", "rewritten-question", "rewritten-rare"})
"""Vetoes that a high probability overrules; every other veto stands whatever the evidence."""


@dataclass(frozen=True, slots=True)
class Served:
    """The answer may be served; `score` is the estimated probability that it is right, in [0, 1]."""

    score: float
    kind: str


@dataclass(frozen=True, slots=True)
class Vetoed:
    """The answer must not be served; `veto` names the first rule that forbids it."""

    veto: str
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for and against a pair that no veto forbids; `values` in the order of `cache.evidence.NAMES`."""

    rule: str
    values: tuple[float, ...]


class Guard:
    """Judges pairs of prompts; without a lexicon it forgives no spelling slip and serves no rewritten prompt."""

    def __init__(self, lexicon: Lexicon = NO_WORDS, score: ScoreTable | None = None) -> None:
        self._lexicon = lexicon
        self._table = score
        self._read = lru_cache(maxsize=_READINGS_KEPT)(lambda text: read(text, lexicon.known))

    @property
    def table(self) -> ScoreTable:
        """Return the score in use; the shipped one is read on first use."""
        return self._table or shipped_score()

    def judge(
        self,
        cached_prompt: str,
        new_prompt: str,
        similarity: float,
        least_score: float | None = None,
        *,
        margin: float = 0.0,
    ) -> Served | Vetoed:
        """Judge one pair; symmetric in the prompts.

        Args:
            similarity: cosine of the prompts' vectors.
            least_score: serve from this probability on; the shipped threshold for the default rate when None.
            margin: similarity minus that of the next neighbour; 0 when there is no other.
        """
        found = self.evidence(cached_prompt, new_prompt, similarity, margin=margin)
        if isinstance(found, Vetoed):
            return found
        score = self.table.probability(found.values)
        if score >= (self.table.default_threshold if least_score is None else least_score):
            return Served(score, found.rule)
        return Vetoed(found.rule if found.rule in OVERRULED else "score", score)

    def evidence(
        self, cached_prompt: str, new_prompt: str, similarity: float, *, margin: float = 0.0
    ) -> Evidence | Vetoed:
        """Return what the probability is computed from, or the veto that no probability overrules; see `judge`."""
        cached, new = self._read(cached_prompt), self._read(new_prompt)
        veto = _veto_form(cached, new)
        if veto is not None:
            return Vetoed(veto)
        difference = difference_of(cached, new, self._lexicon.known)
        veto = _veto_words(cached, new, difference)
        if veto is not None:
            return Vetoed(veto)
        rule = "direction" if plays_another_part(difference) else self._rule(cached, new, difference)
        if rule in ("question", "rewritten-question") and _asks_for_another_kind(cached, new):
            return Vetoed("question")
        if rule not in RULES:
            return Vetoed(rule)
        if similarity < (LEAST_SIMILARITY if rule == "same" else LEAST_SIMILARITY_OTHERWISE):
            return Vetoed("similarity")
        values = evidence_of(cached, new, difference, rule, lexicon=self._lexicon, similarity=similarity, margin=margin)
        return Evidence(rule, tuple(values))

    def _rule(self, cached: Reading, new: Reading, difference: Difference) -> str:
        """Return the kind of agreement, the veto that the score may overrule, or a veto that it may not."""
        if is_commuted(cached.tokens, new.tokens):
            return "same"
        if not is_same_order(difference):
            return self._veto_reordering(cached, new, difference) or "reordered"
        if difference.only_cached and difference.only_new:
            return self._veto_rewriting(cached, new, difference) or "rewritten"
        veto = self._veto_addition(cached, new, difference) if difference.words else None
        if veto is not None:
            return veto
        if ("past" in cached.auxiliaries) != ("past" in new.auxiliaries):
            return "tense"
        if not _is_same_question(cached, new) or cached.auxiliaries != new.auxiliaries:
            return "asked-otherwise" if _is_related_question(cached, new) else "question"
        if difference.words:
            return "fuller"
        if cached.persons == new.persons:
            return "same"
        return "owner" if _is_generic_owner(cached, new) else "person"

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
        if len(difference.words) > 1:
            return "addition"
        if (cached.persons ^ new.persons) - words.GENERIC_PERSONS:
            return "person"
        if _adds_sentence(cached, new):
            return "constraint"
        return None if difference.words[0].written in self._lexicon.common else "rare"

    def _veto_rewriting(self, cached: Reading, new: Reading, difference: Difference) -> str | None:
        if len(difference.words) < 3 or replaces_ending(cached.tokens, new.tokens):
            return "substitution"
        if (cached.persons ^ new.persons) & words.THIRD_PERSONS:
            return "person"
        if _adds_sentence(cached, new):
            return "constraint"
        if not _is_related_question(cached, new):
            return "rewritten-question"
        return None if all(one.written in self._lexicon.known for one in difference.words) else "rewritten-rare"


def _veto_form(cached: Reading, new: Reading) -> str | None:
    """Return the first closed-class rule that forbids serving whatever the words."""
    if cached.is_surface_the_subject or new.is_surface_the_subject:
        return "surface"
    if cached.verbatim != new.verbatim:
        return "verbatim"
    if not same_numbers(cached, new) and not is_commuted(cached.tokens, new.tokens):
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
    written = {form for one in difference.words for form in (one.written, one.stem)}
    if written & words.QUANTITIES:
        return "number"
    if _is_negated_form(difference):
        return "negation"
    if written & words.CALENDAR_WORDS:
        return "date"
    if written & words.FORM_WORDS or _is_free_of(cached, difference.words, new):
        return "constraint"
    if written & (cached.entities | new.entities):
        return "entity"
    return "antonym" if _is_opposed(difference) else None


def _is_negated_form(difference: Difference) -> bool:
    """Whether a word of one prompt negates one of the other by its form: "employed" and "unemployed"."""
    for one in difference.only_cached:
        for other in difference.only_new:
            longer, shorter = sorted((one.written, other.written), key=len, reverse=True)
            if any(longer == prefix + shorter for prefix in words.NEGATIVE_PREFIXES):
                return True
            root, found, _ = longer.partition(words.NEGATIVE_SUFFIX)
            if found and root and shorter.startswith(root):
                return True
    return False


def _is_free_of(cached: Reading, only: tuple[Content, ...], new: Reading) -> bool:
    """Whether one prompt alone asks for what is free of something ("sugar free") or for what costs nothing."""
    ends = {cached.tokens[-1:], new.tokens[-1:]}
    return any(one.written == "free" and (one.preposition == "for" or ("free",) in ends) for one in only)


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


def _asks_for_another_kind(cached: Reading, new: Reading) -> bool:
    """Whether the prompts ask for different kinds of things: a place, a moment, a person, a measure."""
    asked = {cached.question, new.question}
    return len(asked) > 1 and any(one in _KINDS_ASKED or one.startswith("how ") for one in asked)


def _is_generic_owner(cached: Reading, new: Reading) -> bool:
    """Whether persons differ only by generic subjects and owners, in a question on how to do something."""
    return cached.question == new.question == "how-to" and not (cached.persons ^ new.persons) & words.THIRD_PERSONS


def _adds_sentence(cached: Reading, new: Reading) -> bool:
    """Whether the difference sits in a sentence of its own: one more, or beside sentences that stayed as they were."""
    if len(cached.sentences) == len(new.sentences) == 1:
        return False
    return len(cached.sentences) != len(new.sentences) or bool(set(cached.sentences) & set(new.sentences))
