"""What the guard serves and what it forbids; the sentences are the test's own."""

import re

import pytest

from cache.calibration import NEVER
from cache.guard import Guard, Served, Vetoed
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
    assert isinstance(verdict, Served)
    assert (verdict.kind, verdict.score > 0.9) == ("same", True)
    assert Guard(KNOWN).judge(new, cached, 0.93) == verdict


@pytest.mark.parametrize(
    ("cached", "new", "kind"),
    [
        ("How do I repair my bicycle?", "How can one repair a bicycle?", "owner"),
        ("How do I learn to sail?", "How do I easily learn to sail?", "fuller"),
        ("How can I cook rice?", "What can be cooked with rice?", "asked-otherwise"),
        ("How can a student earn money in spare time?", "How can a student make money in free hours?", "rewritten"),
        (
            "In spare time, can a student cook a good meal?",
            "Can a student cook a tasty meal in free time?",
            "reordered",
        ),
    ],
)
def test_looser_agreement_needs_similarity_and_a_threshold_that_allows_it(cached: str, new: str, kind: str) -> None:
    verdict = Guard(KNOWN).judge(cached, new, 0.98)
    assert isinstance(verdict, Served)
    assert verdict.kind == kind
    assert Guard(KNOWN).judge(new, cached, 0.98) == verdict
    assert Guard(KNOWN).judge(cached, new, 0.79) == Vetoed("similarity")
    strict = Guard(KNOWN).judge(cached, new, 0.98, NEVER)
    assert isinstance(strict, Vetoed)
    assert strict.score == verdict.score


@pytest.mark.parametrize(
    ("cached", "new"),
    [
        ("What is the size of a private law firm and a public law firm?",
         "What is the size of a public law firm and a private law firm?"),
        ("Is course 480 or course 600 taught?", "Is course 600 or course 480 taught?"),
        ("How do I save money by walking?", "How do I save money through walking?"),
        ("What is the number of moons of Mars?", "How many moons does Mars have?"),
    ],
)  # fmt: skip
def test_parts_around_a_coordinator_and_ways_of_asking_are_the_same(cached: str, new: str) -> None:
    assert isinstance(Guard(KNOWN).judge(cached, new, 0.98), Served)


def test_only_a_coordinator_lets_parts_change_places() -> None:
    for cached, new in (
        ("Does the red team beat the blue team?", "Does the blue team beat the red team?"),
        ("Is it 480 or 600 here?", "Is it 600 or 480 here?"),
        ("Can a dog eat cat food and dog biscuits?", "Can a cat eat dog food and dog biscuits?"),
    ):
        assert isinstance(Guard(KNOWN).judge(cached, new, 0.99), Vetoed)


def test_more_similarity_and_more_margin_never_lower_the_score() -> None:
    guard = Guard(KNOWN)
    pair = ("How can a student earn money in spare time?", "How can a student make money in free hours?")
    scores = [guard.judge(*pair, similarity, 0.0).score for similarity in (0.8, 0.85, 0.9, 0.95, 1.0)]
    margins = [guard.judge(*pair, 0.9, 0.0, margin=margin).score for margin in (-0.1, 0.0, 0.1)]
    assert scores == sorted(scores, key=lambda score: score or 0.0)
    assert margins == sorted(margins, key=lambda score: score or 0.0)
    assert scores[0] != scores[-1]


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


@pytest.mark.parametrize(
    ("cached", "new", "veto"),
    [
        ("What is twenty one plus four?", "What is twenty plus four?", "number"),
        ("What is twenty-one?", "What is twenty-two?", "number"),
        ("Name one river in Europe", "Name all rivers in Europe", "number"),
        ("Name one river in Europe", "Name some rivers in Europe", "number"),
        ("What can I do with a couple of eggs?", "What can I do with a half dozen of eggs?", "number"),
        ("How much does a dozen of eggs cost?", "How much does a half dozen of eggs cost?", "number"),
        ("What is the second law of motion?", "What is the law of motion?", "number"),
        ("Does it come in a double room?", "Does it come in a room?", "number"),
        ("What drinks are sugar free?", "What drinks have sugar?", "constraint"),
        ("How do I learn chess for free?", "How do I learn chess?", "constraint"),
        ("What if I pay rent?", "What if I stop paying rent?", "antonym"),
        ("Explain how a fridge works", "Explain how a fridge works as a haiku", "constraint"),
        ("What is inflation?", "What is inflation in Welsh?", "constraint"),
        ("Explain how a fridge works for kids", "Explain how a fridge works using metric units", "constraint"),
        ("Explain how a fridge works in pirate speak", "Explain how a fridge works with good humour", "substitution"),
        ("Explain how a fridge works angrily", "Explain how a fridge works like a pirate", "substitution"),
        ("How do I buy 5 kg of rice in town?", "What is the cost of purchasing 5 lb of rice?", "number"),
        ("How can an employed person get a loan?", "What loan does an unemployed person have?", "negation"),
        ("What harmful effects has tea on health?", "Which harmless effects does tea have on us?", "negation"),
        ("What should I bake for friends at Christmas?", "What can I roast for friends at Easter?", "date"),
        ("Can I be fit again in 6 months?", "Is it possible to be fit anew in 6 days?", "date"),
        ("\u5496\u5561\u5065\u5eb7\u5417", "\u5496\u5561\u4e0d\u5065\u5eb7\u5417", "substitution"),
        ("Hat der Wirt keinen Wein?", "Hat der Wirt kleinen Wein?", "substitution"),
        ("Explain how it works in a court", "Explain how it works on an open sea", "substitution"),
    ],
)
def test_quantities_and_wishes_on_form_are_vetoed_however_they_are_put(cached: str, new: str, veto: str) -> None:
    assert Guard(KNOWN).judge(cached, new, 0.99) == Vetoed(veto)
    assert Guard(KNOWN).judge(new, cached, 0.99) == Vetoed(veto)


@pytest.mark.parametrize(
    ("cached", "new"),
    [
        ("What is twenty one plus four?", "What is 21 plus 4?"),
        ("Name one river in Europe", "Name 1 river in Europe"),
        ("How can one cook rice?", "How can I cook rice?"),
    ],
)
def test_numbers_in_words_and_digits_are_the_same(cached: str, new: str) -> None:
    assert isinstance(Guard(KNOWN).judge(cached, new, 0.95), Served)


def test_little_similarity_is_a_veto_of_its_own() -> None:
    assert Guard().judge("What is bread?", "what is bread", 0.2) == Vetoed("similarity")


def test_without_a_vocabulary_a_slip_is_a_substitution() -> None:
    assert Guard().judge("I like certainty", "I like certanty", 0.99) == Vetoed("substitution")
