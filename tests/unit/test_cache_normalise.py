"""Harmless variants of a prompt become equal, and nothing else does."""

import pytest

from cache.normalise import normalise

BASE = "What is the price of 1200 widgets?"


@pytest.mark.parametrize(
    "variant",
    [
        "what is the price of 1200 widgets",
        "  What  is the price of 1,200 widgets ?? ",
        "Hello! What is the price of 1200 widgets? Thank you.",
        "Hi there, what's the price of 1200 widgets, please",
        "Please, WHAT IS THE PRICE OF 1200 WIDGETS? Thanks in advance!",
        "Quick question: what’s the price of 1200 widgets?",
        "Could you please help me? What is the price of 1200 widgets?",
    ],
)
def test_surface_variants_are_equal(variant: str) -> None:
    assert normalise(variant) == normalise(BASE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 5!", "What is 5?"),
        ("Is 1,2,3 sorted?", "Is 123 sorted?"),
        ("Sort the numbers 1,200,300", "Sort the numbers 1200300"),
        ("Write hello in capital letters", "write HELLO in capital letters"),
        ("What does `Foo` do?", "What does `foo` do?"),
        ('Translate "Turkey"', 'Translate "turkey"'),
        ("Why can you swim?", "Why can't you swim?"),
        ("Do I know you?", "Do I not know you?"),
        ("Repeat the words Red and Blue", "Repeat the words red and blue"),
        ("Translate into French: May I?", "Translate into French: may I?"),
        ("Is x<Y true?", "Is x<y true?"),
    ],
)
def test_what_may_change_the_answer_stays(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


def test_a_greeting_alone_is_kept() -> None:
    assert normalise("Hello!") != ""
    assert normalise("Thank you") != normalise("Hello")


@pytest.mark.parametrize("unit", [".", " ", "!", "please ", "thanks ", "hi ", "'", '"', "1,000,", "can not "])
def test_long_runs_are_left_as_they_are(unit: str) -> None:
    text = "x" + unit * (200_000 // len(unit)) + "y"
    assert normalise(text) == text


@pytest.mark.parametrize("unit", [".", " ", "!", "please ", "thanks, ", "hi ", "thank you "])
def test_short_runs_of_politeness_end(unit: str) -> None:
    assert normalise("x" + unit * (1_900 // len(unit))).startswith("x")
