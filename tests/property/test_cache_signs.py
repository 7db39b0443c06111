"""What is looked for before an expensive pattern never hides a match of the pattern."""

import re
import string
import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cache import glance, normalise, sensitive

PIECES = [
    "upper case",
    "CamelCase",
    "snake-case",
    "capital letter",
    "uppercase letters",
    "capitalise",
    "punctuate",
    "whitespace",
    "spelling",
    "spelt",
    "anagram",
    "palindrome",
    "regex",
    "how many letters in",
    "vowels of",
    "each character in",
    "starts with",
    "ending with",
    "verbatim",
    "please copy",
    "Repeat",
    "echo",
    "retype",
    "recite",
    "transcribe",
    "reverse",
    "say",
    "quote",
    "proofread this:",
    "Summarize the text:",
    "translate:",
    "f(x",
    "a://b",
    "{",
    "`",
    "\t",
    "|",
    "\\",
    "-----BEGIN RSA PRIVATE KEY",
    "sk-live-" + "a1" * 12,
    "pk_" + "b" * 22,
    "rk-test_" + "c" * 24,
    "AKIA" + "A1" * 8,
    "ghp_" + "a" * 32,
    "github_pat_" + "x" * 32,
    "xoxb-" + "1" * 12,
    "AIza" + "z" * 32,
    "glpat-" + "q" * 22,
    "eyJ" + "a" * 12 + ".eyJ" + "b" * 12 + "." + "c" * 12,
    "Password: hunter2222",
    "API key = abc12345678",
    "access_token: 1234abcd5678",
    "secret is 12345678",
    "4111 1111 1111 1111",
    "4111-1111-1111-1",
    "123456789012345",
    "what is my balance",
    "where are my orders",
    "show me my last invoice",
    "who am I",
    "When is my birthday",
    "how much do I owe",
    "remember me",
    "how many points do I have left",
    "do I still owe any",
    "what did I order",
    "my account",
    "is my order here",
    "K",
    "ı",
    "ſ",
    "today",
    "right now",
    "at this moment",
    "next week",
    "last Friday",
    "the latest stable version",
    "prices now",
    "weather",
    "any news",
    "what is new",
    "what's going on",
    "which day is it",
    "the time please",
    "time is it",
    "real-time traffic",
    "up-to-date stock",
    "gold price",
    "exchange rates",
    "price of oil",
    "shares at",
    "traffic on",
    "how manyuntil",
    "how much time is left",
    "how long till",
    "how many more days remaining",
    "is it raining",
    "will it snow",
    "is it going to freeze",
    "how hot is it",
    "two days ago",
    "who is winning",
    "what is the score",
    "is it open now",
    "training",
    "ceremony",
    "how",
    "it",
]
TIES = [
    "Hello, ",
    "hi there ",
    "please",
    "Thanks!",
    "thank you",
    " thx",
    "ty",
    "in advance.",
    "so much",
    "a lot",
    "can't",
    "can not",
    "what's",
    "1,000",
    "12,345.67",
    "sort 1,2",
    "don't",
    " ?",
    "  !",
    ", ;",
    '"Quoted  Text"',
    "\u00a0",
    "’",
    "“",
    "…",
    "\x0b",
    "\x1c",
    "e\u0301",
    "K",
    ". ",
    "?",
    "!!",
    "quick question: ",
    "tell me",
    "city",
    "(1,000)",
    "7?",
]
GLUE = st.sampled_from(["", " ", "  ", "\n", "_", "é", "'", "-", "7", ": ", "\u2003"])
TWISTED = {"s": "ſ", "k": "\u212a", "i": "ı", "I": "İ"}  # fmt: skip


@st.composite
def glued(draw: st.DrawFn, pieces: list[str]) -> str:
    """Return pieces and noise, tied together by what may or may not end a word, in any case and with odd letters."""
    text = ""
    for piece in draw(st.lists(st.sampled_from(pieces) | st.text(string.printable, max_size=8) | st.text(max_size=3))):
        text += piece + draw(GLUE)
    if draw(st.booleans()):
        text = draw(st.sampled_from([str.upper, str.title, str.swapcase]))(text)
    if draw(st.booleans()):
        letter = draw(st.sampled_from(sorted(TWISTED)))
        text = text.replace(letter, TWISTED[letter])
    return text


texts = glued(PIECES)


def is_surface_by_the_pattern(text: str) -> bool:
    return normalise._SURFACE_IS_SUBJECT.search(text) is not None


def is_secret_by_the_pattern(text: str) -> bool:
    return sensitive._SECRET.search(text) is not None


def is_personal_by_the_patterns(text: str) -> bool:
    stripped = text.strip()
    return sensitive._PERSONAL.search(stripped) is not None and sensitive._GENERIC.match(stripped) is None


def is_time_by_the_pattern(text: str) -> bool:
    return sensitive._TIME.search(text.strip()) is not None


def normalised_by_the_patterns(text: str) -> str:
    trimmed = text.strip()
    if is_surface_by_the_pattern(trimmed):
        return trimmed
    plain = unicodedata.normalize("NFC", trimmed).translate(normalise._TYPOGRAPHY)
    plain = normalise._lower_outside_quotations(re.sub(r"\s+", " ", plain))
    if not normalise._LISTS_NUMBERS.search(plain):
        plain = normalise._THOUSANDS.sub(lambda match: match[1].replace(",", ""), plain)
    plain = normalise._SPACE_BEFORE_MARK.sub("", plain)
    for _, pattern, expanded in normalise._CONTRACTIONS:
        plain = pattern.sub(expanded, plain)
    return peeled_by_the_patterns(plain) or plain


def peeled_by_the_patterns(text: str) -> str:
    while True:
        begun = normalise._GREETING.sub("", text)
        tail = normalise._FINAL.sub("", normalise._THANKS.sub("", begun[-normalise.TAIL_CHARS :]))
        peeled = begun[: -normalise.TAIL_CHARS] + tail
        if peeled == text or not peeled:
            return peeled
        text = peeled


@given(texts)
def test_signs_of_a_subject_surface_hide_no_match(text: str) -> None:
    assert normalise.is_surface_the_subject(text) == is_surface_by_the_pattern(text)


@given(texts)
def test_signs_of_secrets_hide_no_match(text: str) -> None:
    assert sensitive.has_secret(text) == is_secret_by_the_pattern(text)


@given(texts)
@example("who am i")
def test_words_of_the_asker_hide_no_match(text: str) -> None:
    assert sensitive.is_personal(text) == is_personal_by_the_patterns(text)


@given(texts)
@example("is it ſtorming")
@example("how manyuntil")
def test_words_of_time_hide_no_match(text: str) -> None:
    assert sensitive.is_time_dependent(text) == is_time_by_the_pattern(text)


@given(glued(TIES + PIECES))
@example("a" * 200 + " thanks")
def test_a_text_is_normalised_as_by_the_patterns_alone(text: str) -> None:
    assert normalise.normalise(text) == normalised_by_the_patterns(text)


@pytest.mark.parametrize("piece", PIECES)
def test_each_piece_alone_is_judged_as_by_the_patterns(piece: str) -> None:
    assert sensitive.has_secret(piece) == is_secret_by_the_pattern(piece)
    assert normalise.is_surface_the_subject(piece) == is_surface_by_the_pattern(piece)
    assert sensitive.is_personal(piece) == is_personal_by_the_patterns(piece)
    assert sensitive.is_time_dependent(piece) == is_time_by_the_pattern(piece)


def test_every_letter_that_a_pattern_takes_for_an_ascii_one_is_folded_to_it() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    for letter in string.ascii_lowercase:
        taken = re.findall(letter, everything, re.IGNORECASE)
        assert glance.fold("".join(taken) + "é") == letter * len(taken) + "é"


@given(st.text())
def test_the_words_are_the_runs_of_letters_of_the_folded_text(text: str) -> None:
    seen = glance.glance(text)
    assert seen.words == {word.encode() for word in re.findall("[a-z]+", seen.folded)}
