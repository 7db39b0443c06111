"""Normalising is idempotent, never empties a prompt, and keeps every digit."""

import re

from hypothesis import given
from hypothesis import strategies as st

from cache.guard import Guard, Vetoed
from cache.normalise import normalise

TEXTS = st.text(max_size=60) | st.lists(
    st.sampled_from(
        ["hello", "Hi,", "please", "what's", "1,000", "7", "not", "sort", "?", "thanks", '"', "don't", "!"]
    ),
    max_size=8,
).map(" ".join)


@given(TEXTS)
def test_it_is_idempotent_and_keeps_digits(text: str) -> None:
    plain = normalise(text)
    assert normalise(plain) == plain
    assert re.findall(r"\d", plain) == re.findall(r"\d", text) or not text.isascii()
    assert bool(plain) == bool(text.strip())


@given(TEXTS, TEXTS)
def test_the_guard_is_symmetric_and_never_raises(one: str, other: str) -> None:
    guard = Guard()
    assert isinstance(guard.judge(one, other, 0.9), Vetoed) == isinstance(guard.judge(other, one, 0.9), Vetoed)
