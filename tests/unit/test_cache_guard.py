"""What the guard serves and what it forbids; the sentences are the test's own."""

import re

import pytest

from cache.guard import KINDS, Guard, Served, Vetoed
from cache.lexicon import Lexicon

WORDS = frozenset(
    re.findall(
        r"\w+",
        "what is the difference between bread and cake angel angle repair bicycle learn easily cook rice good tasty way"
        " quickly prepare meal kitchen earn money spare time student make free hours worst",
    )
)
KNOWN = Lexicon(WORDS, WORDS)


@pytest.mark.parametrize(
    ("cached", "new"),
    [
        ("What is the capital of France?", "Which city is the capital of France?"),
        ("What is the capital of France?", "Tell me the capital of France"),
        ("What is the capital of France?", "What's France's capital?"),
        ("Sort these numbers: 7 3 9", "Please sort the numbers 7 3 9"),
        ("How do I repair a bicycle?", "What is the best way to repair a bike?"),
        ("How can one store two eggs?", "How do I store 2 eggs?"),
        ("Are there 3 ferries to Hydra in May 2020?", "In May 2020, are there 3 ferries to Hydra?"),
        ("What is the difference between bread and cake?", "What is the diference between bread and cake?"),
    ],
)
def test_paraphrases_are_served(cached: str, new: str) -> None:
    verdict = Guard(KNOWN).judge(cached, new, 0.93)
    assert verdict == Served(0.99, "same")
    assert Guard(KNOWN).judge(new, cached, 0.93) == verdict


@pytest.mark.parametrize(
    ("cached", "new", "kind"),
    [
        ("How do I repair my bicycle?", "How can one repair a bicycle?", "owner"),
        ("How do I learn to sail?", "How do I easily learn to sail?", "fuller"),
        ("How can I cook rice?", "What should I do to cook rice?", "asked-otherwise"),
        ("How can a student earn money in spare time?", "How can a student make money in free hours?", "rewritten"),
        (
            "In spare time, can a student cook a good meal?",
            "Can a student cook a tasty meal in free time?",
            "reordered",
        ),
    ],
)
def test_looser_agreement_needs_similarity_and_a_tenant_that_allows_it(cached: str, new: str, kind: str) -> None:
    verdict = Guard(KNOWN).judge(cached, new, 0.95)
    assert isinstance(verdict, Served)
    assert verdict.kind == kind
    assert Guard(KNOWN).judge(new, cached, 0.95) == verdict
    assert Guard(KNOWN).judge(cached, new, 0.83) == Vetoed("similarity")
    assert Guard(KNOWN).judge(cached, new, 0.95, 0.001) == Vetoed("rate")


def test_kinds_stand_from_the_strictest_to_the_loosest() -> None:
    bounds = [kind.false_hit_bound for kind in KINDS]
    assert bounds == sorted(bounds)
    assert bounds[-1] <= 0.005


@pytest.mark.parametrize(
    ("cached", "new", "veto"),
    [
        ("Sort these numbers: 7 3 9", "Sort these numbers: 7 3 8", "number"),
        ("Sort these numbers: 7 3 9", "Sort these numbers: 9 3 7", "number"),
        ("Name two rivers of Spain", "Name three rivers of Spain", "number"),
        ("Is it safe to eat raw rhubarb?", "Is it not safe to eat raw rhubarb?", "negation"),
        ("Can I fly with a ferret?", "Can I fly without a ferret?", "negation"),
        ("When is low tide in March?", "When is low tide in April?", "date"),
        ("How do I get from Leeds to York?", "How do I get from York to Leeds?", "order"),
        ("How far is it from Leeds to York?", "How far is it to Leeds from York?", "order"),
        ("How far is it from Leeds?", "How far is it to Leeds?", "direction"),
        ("Does Oslo border Bergen?", "Does Bergen border Oslo?", "order"),
        ("What is the capital of France?", "What is the capital of Peru?", "entity"),
        ("How do I freeze soup?", "How do I reheat soup?", "substitution"),
        ("How do I freeze soup?", "How do I freeze pea soup?", "rare"),
        ("How do I freeze soup?", "How do I freeze thin pea soup?", "antonym"),
        ("How do I freeze soup?", "How do I freeze creamed pea soup?", "addition"),
        ("What is the way to cook rice?", "What is the worst way to cook rice?", "antonym"),
        ("Is soup good? I prepare a meal.", "Is soup good? Make free hours.", "constraint"),
        ("What is entropy?", "What is entropy? Answer in Spanish.", "constraint"),
        ("What is your name?", "What is my name?", "person"),
        ("When do owls hunt?", "Why do owls hunt?", "question"),
        ("What is the capital of Brazil?", "What was the capital of Brazil?", "tense"),
        ("How do I do it in IT?", "How do I do it in it?", "addition"),
        ("What does `a` mean?", "What does `b` mean?", "surface"),
        ("Repeat the words red and blue", "Repeat the words blue and red", "surface"),
        ('Who said "be brave"?', 'Who said "Be Brave"?', "verbatim"),
        ("What is 4 + 4?", "What is 4 * 4?", "symbol"),
        ("Where can I see an angel?", "Where can I see an angle?", "substitution"),
    ],
)
def test_changes_of_meaning_are_vetoed(cached: str, new: str, veto: str) -> None:
    assert Guard(KNOWN).judge(cached, new, 0.99) == Vetoed(veto)
    assert Guard(KNOWN).judge(new, cached, 0.99) == Vetoed(veto)


def test_little_similarity_is_a_veto_of_its_own() -> None:
    assert Guard().judge("What is bread?", "what is bread", 0.2) == Vetoed("similarity")


def test_without_a_vocabulary_a_slip_is_a_substitution() -> None:
    assert Guard().judge("I like difference", "I like diference", 0.99) == Vetoed("substitution")
