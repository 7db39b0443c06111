"""What is looked for before an expensive pattern never hides a match of the pattern."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cache import normalise, sensitive

PIECES = [
    "upper case", "CamelCase", "snake-case", "capital letter", "uppercase letters", "capitalise", "punctuate",
    "whitespace", "spelling", "spelt", "anagram", "palindrome", "regex",
    "how many letters in", "vowels of", "each character in",
    "starts with", "ending with", "verbatim", "please copy", "Repeat", "echo", "retype", "recite", "transcribe",
    "reverse", "say", "quote", "proofread this:", "Summarize the text:",
    "translate:", "f(x", "a://b", "{", "`", "\t", "|", "\\",
    "-----BEGIN RSA PRIVATE KEY", "sk-live-" + "a1" * 12, "pk_" + "b" * 22, "rk-test_" + "c" * 24, "AKIA" + "A1" * 8,
    "ghp_" + "a" * 32, "github_pat_" + "x" * 32, "xoxb-" + "1" * 12, "AIza" + "z" * 32, "glpat-" + "q" * 22,
    "eyJ" + "a" * 12 + ".eyJ" + "b" * 12 + "." + "c" * 12, "Password: hunter2222", "API key = abc12345678",
    "access_token: 1234abcd5678", "secret is 12345678", "4111 1111 1111 1111", "4111-1111-1111-1", "123456789012345",
    "what is my balance", "where are my orders", "show me my last invoice", "who am I", "When is my birthday",
    "how much do I owe", "remember me", "how many points do I have left", "do I still owe any", "what did I order",
    "my account", "is my order here", "K", "ı", "ſ",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.text(string.printable, max_size=8), max_size=5).map(" ".join)


@given(texts)
def test_signs_of_a_subject_surface_hide_no_match(text: str) -> None:
    assert normalise.is_surface_the_subject(text) == (normalise._SURFACE_IS_SUBJECT.search(text) is not None)


@given(texts)
def test_signs_of_secrets_hide_no_match(text: str) -> None:
    assert sensitive.has_secret(text) == (sensitive._SECRET.search(text) is not None)


@given(texts)
@example("who am i")
def test_words_of_the_asker_hide_no_match(text: str) -> None:
    stripped = text.strip()
    found = sensitive._PERSONAL.search(stripped) is not None and sensitive._GENERIC.match(stripped) is None
    assert sensitive.is_personal(text) == found


@pytest.mark.parametrize("piece", PIECES)
def test_each_piece_alone_is_judged_as_by_the_patterns(piece: str) -> None:
    assert sensitive.has_secret(piece) == (sensitive._SECRET.search(piece) is not None)
    assert normalise.is_surface_the_subject(piece) == (normalise._SURFACE_IS_SUBJECT.search(piece) is not None)
    assert sensitive.is_personal(piece) == (
        sensitive._PERSONAL.search(piece) is not None and sensitive._GENERIC.match(piece) is None
    )
