"""What the guard serves and what it forbids; the sentences are the test's own."""

import pytest

from cache.guard import Guard, Served, Vetoed

KNOWN = frozenset("what is the difference between bread and cake angel angle how do i repair a bicycle".split())  # noqa: SIM905


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
    assert isinstance(verdict, Served)
    assert 0.98 <= verdict.score <= 1.0
    assert Guard(KNOWN).judge(new, cached, 0.93) == verdict


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
        ("How do I freeze soup?", "How do I freeze pea soup?", "addition"),
        ("What is entropy?", "What is entropy? Answer in Spanish.", "constraint"),
        ("What is your name?", "What is my name?", "person"),
        ("Who paints the bridge?", "When is the bridge painted?", "question"),
        ("What is the capital of Brazil?", "What was the capital of Brazil?", "tense"),
        ("How do I do it in IT?", "How do I do it in it?", "addition"),
        ("What does `a` mean?", "What does `b` mean?", "surface"),
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
