"""The graded tasks: seeded, distinct, honestly held out, and strict in grading."""

import re

import pytest

from backends.bundled import facts, phrasings
from backends.bundled.tasks import Question, families, generate, grade, sum_is_held_out

NAMES = [family.name for family in families()]
HARD = {"sort_long", "add2", "fact_tail"}


def wordings(family: str) -> phrasings.Phrasings:
    if family.startswith("sort"):
        return phrasings.SORT
    if family.startswith("add"):
        return phrasings.SUM
    if family.startswith("fact"):
        return phrasings.CAPITAL
    return {"copy": phrasings.COPY, "other": phrasings.OTHER}[family]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_arguments_give_the_same_questions(name: str) -> None:
    assert generate(name, 3, 50, "test") == generate(name, 3, 50, "test")
    assert generate(name, 3, 50, "test") != generate(name, 4, 50, "test")


@pytest.mark.parametrize("name", NAMES)
def test_every_family_has_a_thousand_distinct_prompts_even_in_its_smallest_split(name: str) -> None:
    questions = generate(name, 1, 1000, "rephrased")
    assert len({question.prompt for question in questions}) == 1000
    assert {question.family for question in questions} == {name}


def test_asking_for_more_than_there_is_is_refused() -> None:
    with pytest.raises(ValueError, match="family 'greet' has only"):
        generate("greet", 1, 5_000, "rephrased")


def test_the_large_model_learns_every_family_and_the_small_one_only_the_easy_ones() -> None:
    assert all(family.large for family in families())
    assert {family.name for family in families() if not family.small} == HARD


def test_sums_held_out_of_training_never_occur_there_in_either_order() -> None:
    def operands(question: Question) -> tuple[int, int]:
        a, b = re.findall(r"\d+", question.prompt)
        return int(a), int(b)

    for question in generate("add2", 1, 1000, "train"):
        a, b = operands(question)
        assert not sum_is_held_out(a, b)
        assert not sum_is_held_out(b, a)
        assert not question.held_out
    for question in generate("add2", 1, 300, "test"):
        assert sum_is_held_out(*operands(question))
        assert question.held_out


def test_about_a_tenth_of_the_sums_is_held_out() -> None:
    pairs = [(a, b) for a in range(10, 100) for b in range(a, 100)]
    assert 0.08 < sum(sum_is_held_out(a, b) for a, b in pairs) / len(pairs) < 0.12


@pytest.mark.parametrize("name", ["copy", "sort", "sort_long"])
def test_contents_of_the_test_split_never_occur_in_training(name: str) -> None:
    def contents(question: Question) -> str:
        if name == "copy":
            return question.answer
        return " ".join(re.findall(r"\d+", question.prompt))

    trained = {contents(question) for question in generate(name, 1, 1500, "train")}
    tested = {contents(question) for question in generate(name, 2, 300, "test")}
    assert not trained & tested


@pytest.mark.parametrize("name", [name for name in NAMES if name != "greet"])
def test_at_least_eight_wordings_are_trained_and_no_held_out_wording_is(name: str) -> None:
    kinds = wordings(name)
    assert len(kinds.trained) >= 8
    assert len(kinds.held_out) >= 3
    assert not set(kinds.trained) & set(kinds.held_out)


def test_held_out_greetings_are_not_trained() -> None:
    trained = {question.prompt.strip().lower() for question in generate("greet", 1, 1500, "train")}
    held_out = {question.prompt.strip().lower() for question in generate("greet", 1, 1000, "rephrased")}
    assert not trained & held_out


def test_sums_and_sorts_are_answered_correctly() -> None:
    for name in ("add1", "add2"):
        for question in generate(name, 1, 200, "rephrased"):
            assert question.answer == str(sum(map(int, re.findall(r"\d+", question.prompt))))
    for name in ("sort", "sort_long"):
        for question in generate(name, 1, 200, "rephrased"):
            numbers = [int(number) for number in re.findall(r"\d+", question.prompt)]
            assert question.answer == " ".join(map(str, sorted(numbers)))
            assert len(numbers) in (range(3, 7) if name == "sort" else range(7, 11))


def test_a_copy_is_part_of_its_prompt_to_the_letter() -> None:
    assert all(question.answer in question.prompt for question in generate("copy", 1, 300, "rephrased"))


def test_no_country_is_listed_twice() -> None:
    countries = [country for country, _ in facts.HEAD + facts.TAIL]
    assert len(countries) == len(set(countries))
    assert ("France", "Paris") in facts.HEAD
    assert len(facts.TAIL) >= 100


def test_grading_forgives_white_space_around_the_answer_and_nothing_else() -> None:
    question = Question("Sort these numbers: 7 3 9", "3 7 9", "sort", False)
    assert grade(question, " 3 7 9\n")
    assert not grade(question, "3, 7, 9")
    assert not grade(question, "3 7 9.")
    assert not grade(question, "")
