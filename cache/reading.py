"""Read a prompt as the guard compares it: numbers, negators, persons, names, content words with their prepositions."""

import re
from functools import lru_cache

import msgspec

from cache import words
from cache.normalise import is_surface_the_subject, normalise
from cache.slips import is_one_slip

_LEAD_INS = re.compile(
    r"^(?:(?:and|so|ok|okay|well|also)\b[, ]+)*"
    r"(?:(?:can|could|would|will) (?:you|anyone|someone|anybody|somebody)(?: please| kindly)? (?:tell|inform)"
    r"(?: me| us)?|(?:tell|inform) (?:me|us)|(?:do|does) (?:you|anyone|anybody|someone) know"
    r"|i(?: really)? (?:want|need|wish|would like|wanted) to know|i (?:was|am) (?:wondering|curious)"
    r"|do you (?:really )?(?:think|believe)(?: that)?(?= (?:there|it|the|we|a|this|that|people|he|she|they)\b)"
    r"|is it (?:really )?true(?: that)?|in your opinion"
    r"|(?:let me know|any idea|i wonder))\b(?! about)[,:]?(?: (?:if|whether)\b)?[,: ]*"
)
_HOW_TO = re.compile(
    r"^(?:how (?:do|can|could|should|would|might|may|shall|does|must)"
    r" (?:i|you|we|one|someone|anyone|somebody|a person|people)(?: (?:best|possibly|go about))? "
    r"|what (?:is|are|would be) (?:the |some |a |some of the )*"
    r"(?:best |good |great |right |proper |correct |effective |possible )*(?:ways?|methods?|steps?|tips?)"
    r" (?:to|of|for|in which|on how to) (?:i can )?"
    r"|(?:is|are) there (?:any |a |some )?(?:good |possible )?(?:ways?|methods?) (?:to|of|for|in which|that)"
    r" (?:i can )?"
    r"|what (?:can|could|should|must) (?:i|we|you|one|someone) do to |how to (?:best )?)"
)
_ASKED_NOUN = re.compile(
    r"^(what|which) (?!(?:is|are|was|were|do|does|did|will|can|would|should|has|have)\b)([a-z]+)"
    r" (is|are|was|were) (?=the )"
)
_SAID_OTHERWISE = (
    (re.compile(r"\bwhat (?:is|are) (?:the )?(?:total )?(?:number|quantity|amount|count|no) of\b"), "how many"),
    (re.compile(r"^(?:the )?(?:number|count) of\b|\bwhat (?:number|amount|quantity) of\b"), "how many"),
    (re.compile(r"\bwhat (?:is|are) the (?:main |possible )?reasons? (?:for|behind|of|that|why)\b"), "why is"),
    (re.compile(r"^how come\b"), "why"),
    (re.compile(r"\bwhat is the (?:size|area) of\b|\bhow big is\b"), "how large is"),
    (re.compile(r"\bwhat is the (?:height|elevation) of\b|\bhow tall is\b"), "how high is"),
    (re.compile(r"\bwhat is the length of\b"), "how long is"),
    (
        re.compile(r"\b(what|which) (?:are|is) (?:the |some |a few |some of the |the some )*(?:good|best|great|top)\b"),
        r"\1 is best",
    ),
)
_TOKEN = re.compile(r"[^\W_]+(?:['.][^\W_]+)*(?:\+\+|#)?|[+*/=<>%$€£^&@°×÷-]")
_NUMBER_UNIT = re.compile(
    r"^(\d+(?:\.\d+)?)(st|nd|rd|th|k|m|b|bn|gb|mb|kb|tb|km|cm|mm|kg|g|mg|lb|lbs|ft|hrs?|mins?|secs?|ms|am|pm|s|x"
    r"|gbps|mbps|hz|ghz|mhz|w|kw|v|mah|mp|cc|rs|usd|l|ml)$"
)
_QUOTE = re.compile(r"[\"“”«»`]([^\"“”«»`]*)[\"“”«»`]|(?<!\w)'([^']+)'(?!\w)")
_BEFORE_MONTHS = frozenset(
    {"in", "of", "by", "since", "until", "from", "last", "next", "this", "during", "late", "early"}
)
_SENTENCE_BREAK = re.compile(r"[?!]+\s+|(?<!\bprof)(?<!\bdr)(?<!\bmr)(?<!\bmrs)(?<!\bms)(?<!\bst)(?<!\bvs)\.\s+|\n+")
_URL = re.compile(r"\b(?:https?://|www\.)\S+|\b[\w.-]+@[\w.-]+\.\w+")
_RAW_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_LONG_WORD = re.compile(r"\b[a-z]{5,}\b")
_LONG_FUNCTION_WORDS = tuple(
    sorted(
        word
        for word in words.FUNCTION_WORDS | words.STRONG_PREPOSITIONS | words.NEGATORS
        if len(word) >= 5 and word.isalpha()
    )
)
_SENTENCE_END = frozenset(".?!:;\n")


class Content(msgspec.Struct, frozen=True, gc=False):
    """One content word: its stem, the preposition right before it (or ""), and how it was written."""

    stem: str
    preposition: str
    written: str


class Reading(msgspec.Struct, frozen=True, gc=False):
    """What the guard knows of one prompt.

    `number_neighbours` holds, for each number, the stems next to it; `optional` the noun of "which city is the ...".
    """

    tokens: tuple[str, ...]
    sentences: tuple[str, ...]
    is_surface_the_subject: bool
    verbatim: tuple[str, ...]
    numbers: tuple[str, ...]
    number_neighbours: tuple[frozenset[str], ...]
    symbols: tuple[str, ...]
    negations: tuple[str, ...]
    persons: frozenset[str]
    entities: frozenset[str]
    names: tuple[str, ...]
    question: str
    auxiliaries: frozenset[str]
    strong_prepositions: tuple[str, ...]
    content: tuple[Content, ...]
    optional: str


def read(text: str, known_words: frozenset[str] = frozenset()) -> Reading:
    """Read one prompt, linear in its length; function words misspelt by one slip are mended when words are known."""
    plain = _mend(normalise(text), known_words)
    asked = _LEAD_INS.sub("", plain)
    is_how_to = _HOW_TO.match(asked) is not None
    asked = _HOW_TO.sub("", asked) if is_how_to else asked
    for pattern, usual in _SAID_OTHERWISE:
        asked = pattern.sub(usual, asked)
    noun = _ASKED_NOUN.match(asked)
    tokens = _in_fixed_order(_tokens(_ASKED_NOUN.sub(r"\1 \3 ", asked) if noun else asked, _acronyms(text)))
    numbers, neighbours = _numbers(tokens)
    entities = _entities(text)
    return Reading(
        tokens=tokens,
        sentences=_sentences(plain),
        is_surface_the_subject=is_surface_the_subject(text.strip()),
        verbatim=tuple(sorted({match.group(0) for pattern in (_QUOTE, _URL) for match in pattern.finditer(text)})),
        numbers=numbers,
        number_neighbours=neighbours,
        symbols=tuple(word for word in tokens if not word[0].isalnum()),
        negations=_negations(tokens),
        persons=frozenset(words.PERSONS[word] for word in tokens if word in words.PERSONS),
        entities=entities,
        names=tuple(word for word in tokens if word in entities),
        question="how-to" if is_how_to else _question(tokens),
        auxiliaries=_auxiliaries(tokens),
        strong_prepositions=tuple(sorted(word for word in tokens if word in words.STRONG_PREPOSITIONS)),
        content=_content(tokens),
        optional="" if noun is None else stem(noun[2]),
    )


def _mend(plain: str, known_words: frozenset[str]) -> str:
    if not known_words:
        return plain
    return _LONG_WORD.sub(lambda match: match[0] if match[0] in known_words else _mended(match[0]), plain)


@lru_cache(maxsize=4_096)
def _mended(word: str) -> str:
    """Return the one function word that `word` is a slip of, or `word` itself."""
    meant = [one for one in _LONG_FUNCTION_WORDS if is_one_slip(word, one)]
    return meant[0] if len(meant) == 1 else word


def stem(word: str) -> str:
    """Return a crude stem: irregular forms by table, then plural, -ing, -ed and a final e; then the synonym's name."""
    base = words.SYNONYMS.get(word) or words.IRREGULAR.get(word) or _strip_suffix(word)
    base = words.SYNONYMS.get(base, base)
    return base[:-1] if len(base) > 3 and base.endswith("e") else base


def _strip_suffix(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "ches", "shes", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    for suffix in ("ing", "ed"):
        if len(word) > len(suffix) + 2 and word.endswith(suffix):
            bare = word[: -len(suffix)]
            return bare[:-1] if len(bare) > 3 and bare[-1] == bare[-2] and bare[-1] not in "lsz" else bare
    return word


def _tokens(text: str, acronyms: frozenset[str]) -> tuple[str, ...]:
    found: list[str] = []
    for match in _TOKEN.finditer(text):
        word = match.group(0)
        if word == "-" and not _is_minus(text, match.start(), match.end()):
            continue
        word = word.rstrip(".'")
        if word.endswith("'s") and len(word) > 2:
            found += ["of'", word[:-2]]
            continue
        unit = _NUMBER_UNIT.match(word)
        if unit is not None:
            found += [unit[1], unit[2]]
        else:
            found.append(f"{word}^" if word in acronyms else word)
    found = _numbered(found)
    return tuple(f"{word}^" if word == "may" and _is_month(found, at) else word for at, word in enumerate(found))


def _numbered(tokens: list[str]) -> list[str]:
    """Write number words in digits, tens and a digit after them as one, and "one" where it counts: "name one river"."""
    found: list[str] = []
    tens = False
    for word in tokens:
        value = words.NUMBER_WORDS.get(word, word)
        if tens and (word == "one" or (len(value) == 1 and value != word and value != "0")):
            found[-1] = str(int(found[-1]) + (1 if word == "one" else int(value)))
        elif word == "one" and any(one in words.LISTING_VERBS for one in found[-2:]):
            found.append("1")
        else:
            found.append(value)
        tens = value != word and len(value) == 2 and value >= "20"
    return found


def _is_month(tokens: list[str], at: int) -> bool:
    """Whether "may" at this place is the month: after a preposition of time or beside a number."""
    before, after = tokens[at - 1] if at else "", tokens[at + 1] if at + 1 < len(tokens) else ""
    return _is_number(before) or _is_number(after) or before in _BEFORE_MONTHS


def _is_minus(text: str, start: int, end: int) -> bool:
    return text[end : end + 1].isdigit() and not text[start - 1 : start].isalnum()


def _acronyms(text: str) -> frozenset[str]:
    """Return function words written as acronyms (IT, US, WHO), unless the whole text is in capitals."""
    if text.isupper():
        return frozenset()
    raw = _RAW_WORD.findall(text)
    return frozenset(word.lower() for word in raw if len(word) > 1 and word.isupper()) & words.FUNCTION_WORDS


def _in_fixed_order(tokens: tuple[str, ...]) -> tuple[str, ...]:
    """Drop articles and put the two words around "and" or "or" in one order: "tea and milk" is "milk and tea"."""
    kept = [word for word in tokens if word not in ("a", "an", "the")]
    for at in range(1, len(kept) - 1):
        before, after = kept[at - 1], kept[at + 1]
        if kept[at] in ("and", "or") and _is_plain(before) and _is_plain(after) and stem(before) > stem(after):
            kept[at - 1], kept[at + 1] = after, before
    return tuple(kept)


def _is_plain(word: str) -> bool:
    return word.isalpha() and word not in words.FUNCTION_WORDS and word not in words.NEGATORS


def _sentences(plain: str) -> tuple[str, ...]:
    return tuple(part for part in _SENTENCE_BREAK.split(plain) if part)


def _is_number(word: str) -> bool:
    return not word.isalpha() and any(character.isdigit() for character in word)


def _numbers(tokens: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[frozenset[str], ...]]:
    at = [position for position, word in enumerate(tokens) if _is_number(word)]
    return tuple(tokens[position].strip(".,") for position in at), tuple(_around(tokens, position) for position in at)


def _around(tokens: tuple[str, ...], position: int) -> frozenset[str]:
    """Return the stems of the nearest content word on each side, none beyond another number."""
    found = set()
    for step in (-1, 1):
        near = position + step
        while 0 <= near < len(tokens) and tokens[near] in words.FUNCTION_WORDS:
            near += step
        if 0 <= near < len(tokens) and not _is_number(tokens[near]):
            found.add(stem(tokens[near]))
    return frozenset(found)


def _negations(tokens: tuple[str, ...]) -> tuple[str, ...]:
    """Return for each negator the stem of what it negates, in order of the alphabet."""
    found = []
    for position, word in enumerate(tokens):
        if word in words.NEGATORS:
            after = [one for one in tokens[position + 1 :] if one not in words.FUNCTION_WORDS]
            found.append(stem(after[0]) if after else "")
    return tuple(sorted(found))


def _question(tokens: tuple[str, ...]) -> str:
    """Return the kind of question: its question word (with the measure for how), the class of its auxiliary, or ""."""
    for position, word in enumerate(tokens):
        if word in ("what", "which"):
            return f"what {_auxiliary_after(tokens, position)}".rstrip()
        if word in ("who", "whom", "whose", "when", "where", "why"):
            return "who" if word == "whom" else word
        if word == "how":
            measure = tokens[position + 1] if position + 1 < len(tokens) else ""
            return "how" if measure in words.FUNCTION_WORDS else f"how {measure}"
    if tokens and tokens[0] in words.MOVABLE_PREPOSITIONS:
        return next((_AUXILIARY_CLASS[word] for word in tokens if word in _AUXILIARY_CLASS), "")
    return _AUXILIARY_CLASS.get(tokens[0], "") if tokens else ""


def _auxiliary_after(tokens: tuple[str, ...], position: int) -> str:
    following = (_AUXILIARY_CLASS.get(word) for word in tokens[position + 1 : position + 5])
    return next((found for found in following if found), "")


_AUXILIARY_CLASS = {
    word: name
    for name, members in {
        "be": ("is", "are", "was", "were", "am"),
        "do": ("do", "does", "did", "has", "have", "had"),
        "can": ("can", "could", "may", "might"),
        "should": ("should", "would", "must", "will", "shall"),
    }.items()
    for word in members
}


def _auxiliaries(tokens: tuple[str, ...]) -> frozenset[str]:
    present = set(tokens)
    classes = {"past": words.PAST, "future": words.FUTURE, "obligation": words.OBLIGATION, "wish": words.WISH}
    return frozenset(name for name, members in classes.items() if present & members)


def _entities(text: str) -> frozenset[str]:
    """Return capitalised words that do not open a sentence, in lower case; none when the text has no usual case."""
    if text.isupper():
        return frozenset()
    found = set()
    for match in _RAW_WORD.finditer(text):
        word = match.group(0)
        before = text[: match.start()].rstrip(" \"'“(")
        opens = not before or before[-1] in _SENTENCE_END
        if (word[0].isupper() and not opens) or (len(word) > 1 and word.isupper()):
            found.add(re.sub(r"['’]s$", "", word).lower())
    return frozenset(found) - words.FUNCTION_WORDS


def _content(tokens: tuple[str, ...]) -> tuple[Content, ...]:
    found = []
    preposition = ""
    for word in tokens:
        if word == "of'":
            preposition = "of"
        elif word in words.DIRECTED_PREPOSITIONS:
            preposition = word
        elif word in words.FUNCTION_WORDS or word in words.PERSONS or not word[0].isalnum():
            continue
        else:
            found.append(Content(stem(word), preposition, word))
            preposition = ""
    return tuple(found)
