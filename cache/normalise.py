"""Reduce a prompt to the form in which harmless surface variants are equal.

Only what cannot change an answer is removed: letter case outside quotations, runs of spaces, typographic and final
punctuation, thousands separators, greetings, thanks and contractions. A prompt whose surface is its subject (code,
questions about spelling or case, formatted lists) keeps everything but outer spaces.
"""

import re
import unicodedata
from functools import lru_cache

from cache.glance import as_words, glance, has_any

LONGEST_CHARS = 2_000
"""Longer prompts keep their surface: variants of them are rare, and the patterns' cost grows faster than the text."""
TAIL_CHARS = 120
_LATELY = 256
"""A request's text is normalised for its keys, by the guard, and again when its answer is kept."""
_TYPOGRAPHY = str.maketrans(
    {"‘": "'", "’": "'", "‛": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "\u00a0": " ", "\u202f": " "}
)
_SURFACE_IS_SUBJECT = re.compile(
    r"[`{}<>\\|\n\t]|://|\w\("
    r"|\b(?:upper|lower|title|camel|snake|kebab)[ -]?case|\b(?:capital|uppercase|lowercase|block) letters?\b"
    r"|\bcapitali[sz]|\bpunctuat|\bwhitespace|\b(?:spell|spelt|spelled|spelling|anagram|palindrome|regex)\b"
    r"|\b(?:how many|count|number of|each|every|first|last|the|\d+) (?:\w+ )?"
    r"(?:letters?|characters?|vowels?|consonants?) (?:in|of)\b"
    r"|\b(?:starts?|ends?|begins?|starting|ending|beginning) with\b|\bverbatim\b"
    r"|^\W*(?:please |can you |could you |would you )*(?:copy|repeat|echo|retype|recite|transcribe|reverse|say|quote)\b"
    r"|\b(?:proofread|rewrite|reword|rephrase|paraphrase|translate|correct|edit|summari[sz]e|shorten)\b[^.?!\n]{0,60}:",
    re.IGNORECASE,
)
_SUBJECT_SIGNS = ("`", "{", "}", "<", ">", "\\", "|", "\n", "\t", "(", "://")
_SUBJECT_STEMS = ("case", "capitali", "punctuat", "whitespace")
_SUBJECT_WORDS = as_words(
    "letter letters character characters vowel vowels consonant consonants spell spelt spelled spelling anagram",
    "palindrome regex verbatim copy repeat echo retype recite transcribe reverse say quote",
)
_EDGES = as_words("start starts starting end ends ending begin begins beginning")
_EDITING = as_words(
    "proofread rewrite reword rephrase paraphrase translate correct edit summarise summarize shorten",
)
_LISTS_NUMBERS = re.compile(
    r"\b(?:sort|order|numbers|sequence|values|coordinates?|sum|add|average|mean|median|max|min|list|array|copy|repeat)",
    re.IGNORECASE,
)
_GROUP = re.compile(r"\d,\d{3}")
_THOUSANDS = re.compile(r"(?<![\d.,(\[])(\d{1,3}(?:,\d{3})+)(?![\d,]|\.\d+,)")
_GREETING = re.compile(
    r"^(?:(?:hi|hello|hey|greetings|good (?:morning|afternoon|evening|day))(?: there| all| everyone)?\s*[,.!:;-]+\s*"
    r"|(?:hi|hello|hey) there\s+|(?:please|pls|kindly)\b\s*[,:]?\s*"
    r"|(?:quick question|(?:i have |just )?a (?:quick )?question"
    r"|(?:can|could|would|will) (?:you|anyone) (?:please )?help(?: me)?(?: out| with this)?"
    r"|excuse me|(?:tell|answer) me(?= ?:))\s*[.:?!,-]+\s*)+"
)
_THANKS = re.compile(
    r"(?:[\s,.;!?-]*(?<!\w)(?:please|pls|"
    r"(?:many thanks|thanks|thank you|thx|ty)(?: (?:so much|very much|a lot|a million|you))?(?: in advance)?)[\s.!]*)+$"
)
_FINAL = re.compile(r"(?<![\d)])[!\s?.]+$|[?\s.]+$")
_FINAL_MARKS = ("?", "!", ".", " ")
_THANKS_ENDS = (
    "please", "pls", "thanks", "thank you", "thx", "ty", "much", "a lot", "a million", " you", "in advance",
)  # fmt: skip
_CONTRACTIONS = (
    ("can't", re.compile(r"\bcan't\b"), "cannot"),
    ("can not", re.compile(r"\bcan not\b"), "cannot"),
    ("won't", re.compile(r"\bwon't\b"), "will not"),
    ("shan't", re.compile(r"\bshan't\b"), "shall not"),
    ("ain't", re.compile(r"\bain't\b"), "is not"),
    ("n't", re.compile(r"(?<=\w)n't\b"), " not"),
    ("'s", re.compile(r"\b(what|who|where|when|why|how|that|there|here|it|he|she)'s\b"), r"\1 is"),
    ("'m", re.compile(r"\b(i)'m\b"), r"\1 am"),
    ("'ve", re.compile(r"\b(i|you|we|they)'ve\b"), r"\1 have"),
    ("'re", re.compile(r"\b(you|we|they|what|who)'re\b"), r"\1 are"),
    ("'ll", re.compile(r"\b(i|you|he|she|it|we|they|there|what|who)'ll\b"), r"\1 will"),
)
"""What each pattern cannot do without and is found in a fraction of its time, the pattern, and the longer form."""
_MARKS = ("?", "!", ",", ";", ":")
_SPACED_MARKS = (" ?", " !", " ,", " ;", " :")
_SPACE_BEFORE_MARK = re.compile(r" +(?=[?!,;:](?:\s|$))")


@lru_cache(maxsize=_LATELY)
def normalise(text: str) -> str:
    """Return the form of `text` in which variants that ask for the same answer are equal.

    Idempotent. Never empty unless `text` is blank: what consists of greetings alone is kept.
    """
    trimmed = text.strip()
    if len(trimmed) > LONGEST_CHARS or is_surface_the_subject(trimmed):
        return trimmed
    if '"' not in trimmed and trimmed.isascii():
        plain = " ".join(glance(trimmed).folded.split())
    else:
        plain = unicodedata.normalize("NFC", trimmed).translate(_TYPOGRAPHY)
        plain = _lower_outside_quotations(" ".join(plain.split()))
    if "," in plain and _GROUP.search(plain) is not None and not _LISTS_NUMBERS.search(plain):
        plain = _THOUSANDS.sub(lambda match: match[1].replace(",", ""), plain)
    if has_any(_MARKS, plain) and has_any(_SPACED_MARKS, plain):
        plain = _SPACE_BEFORE_MARK.sub("", plain)
    plain = _expand(plain)
    return _peel(plain) or plain


@lru_cache(maxsize=_LATELY)
def is_surface_the_subject(text: str) -> bool:
    """Whether case, spaces or punctuation of `text` may matter to the answer (code, quotations, spelling)."""
    return _may_be_about_surface(text) and _SURFACE_IS_SUBJECT.search(text) is not None


def _may_be_about_surface(text: str) -> bool:
    """Whether a text holds what the pattern cannot do without; to look costs a fiftieth of the pattern."""
    seen = glance(text)
    words = seen.words
    return (
        has_any(_SUBJECT_SIGNS, text)
        or not words.isdisjoint(_SUBJECT_WORDS)
        or has_any(_SUBJECT_STEMS, seen.folded)
        or (b"with" in words and not words.isdisjoint(_EDGES))
        or (":" in text and not words.isdisjoint(_EDITING))
    )


def _lower_outside_quotations(text: str) -> str:
    if '"' not in text:
        return text.lower()
    return '"'.join(part if at % 2 else part.lower() for at, part in enumerate(text.split('"')))


def _expand(text: str) -> str:
    if "'" not in text and "can not" not in text:
        return text
    for sign, pattern, expanded in _CONTRACTIONS:
        if sign in text:
            text = pattern.sub(expanded, text)
    return text


def _peel(text: str) -> str:
    """Take greetings, politeness and final punctuation off both ends until nothing changes.

    All spaces of `text` are single ones.
    """
    while True:
        greeting = _GREETING.match(text)
        begun = text if greeting is None else text[greeting.end() :]
        peeled = _without_tail(begun)
        if peeled == text or not peeled:
            return peeled
        text = peeled


def _without_tail(text: str) -> str:
    if text.rstrip(" .!").endswith(_THANKS_ENDS):
        return text[:-TAIL_CHARS] + _FINAL.sub("", _THANKS.sub("", text[-TAIL_CHARS:]))
    if text.endswith(_FINAL_MARKS):
        return text[:-TAIL_CHARS] + _FINAL.sub("", text[-TAIL_CHARS:])
    return text
