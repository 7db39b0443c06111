"""What the text head sees of a prompt."""

import numpy as np
import pytest

from router.features import (
    BUCKETS,
    HEAD_CHARS,
    HEAD_WORDS,
    LEXICAL_NAMES,
    STRIPPED_BELOW_WORDS,
    TAIL_CHARS,
    TextFeatures,
    capped,
    text_views,
    without_options,
)
from router.script import non_latin_ratio

STEM = "Which planet is the largest?"
OFFERED = f"{STEM}\nA. Mars\nB. Jupiter\nC. Venus\nAnswer:"


def whole(text: str) -> TextFeatures:
    return text_views(text).whole


def lexical(text: str, name: str) -> float:
    return float(whole(text).lexical[LEXICAL_NAMES.index(name)])


def test_a_short_text_is_kept_whole() -> None:
    assert capped("hello") == ("hello", 0)


def test_a_long_text_keeps_its_head_and_tail_and_records_the_cut() -> None:
    text = "a" * HEAD_CHARS + "x" * 500 + "z" * TAIL_CHARS
    kept, cut_chars = capped(text)
    assert (kept[0], kept[-1], "x" in kept, cut_chars) == ("a", "z", False, 500)
    assert text_views(text).cut_chars == 500


def test_offered_answers_that_the_question_does_not_mention_change_nothing() -> None:
    plain, offered = whole(STEM), whole(OFFERED)
    assert set(plain.buckets) == set(offered.buckets)
    np.testing.assert_array_equal(plain.lexical, offered.lexical)


def test_the_share_of_offered_words_that_the_question_says_is_seen_in_every_view() -> None:
    views = text_views("Which of these is larger, the planet Venus or the planet Mars?\nA. Mars\nB. a larger moon")
    known = {float(view.lexical[LEXICAL_NAMES.index("offered_known_ratio")]) for view in views.each}
    assert known == {0.75}  # all of "mars", half of "larger moon"


def test_a_single_line_that_looks_like_an_answer_is_kept() -> None:
    assert without_options("A. Turing wrote which paper?") == "A. Turing wrote which paper?"


def test_a_text_of_nothing_but_offered_answers_is_kept() -> None:
    assert without_options("A. yes\nB. no") == "A. yes\nB. no"


def test_numbers_of_one_length_look_alike() -> None:
    assert set(whole("What is 48 plus 37?").buckets) == set(whole("What is 15 plus 62?").buckets)
    assert set(whole("What is 4 plus 3?").buckets) != set(whole("What is 48 plus 37?").buckets)


def test_the_length_of_a_list_of_numbers_is_seen() -> None:
    six, seven = whole("sort 1 1 1 1 1 1"), whole("sort 1 1 1 1 1 1 1")
    assert set(six.buckets) != set(seven.buckets)


def test_every_view_knows_the_length_of_the_list_in_the_whole() -> None:
    short, long = text_views("sort 5 6 7 for me at once please"), text_views("sort 3 4 5 6 7 for me at once please")
    assert set(short.tail.buckets) != set(long.tail.buckets)


def test_the_body_lacks_the_head_and_the_tail_is_the_end() -> None:
    views = text_views("one two three four five six seven eight nine ten")
    assert set(views.tail.buckets) == set(whole("seven eight nine ten").buckets)
    assert set(views.body.buckets) == set(whole("six seven eight nine ten").buckets)


def test_of_a_long_prompt_the_body_lacks_a_bounded_head() -> None:
    words = [f"w{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(200)]
    assert set(text_views(" ".join(words)).body.buckets) == set(whole(" ".join(words[HEAD_WORDS:])).buckets)


@pytest.mark.parametrize(("n", "place"), [(1, 0), (2, 1), (4, 2), (8, 3)])
def test_so_many_words_before_a_prompt_leave_a_view_of_it_alone(n: int, place: int) -> None:
    prompt = "tell me who wrote the longest of all the novels that came out in that year"
    stripped = text_views(f"{'theorem ' * n}{prompt}").stripped[place]
    assert sorted(stripped.buckets) == sorted(whole(prompt).buckets)
    assert stripped.lexical == pytest.approx(whole(prompt).lexical)


def test_short_and_long_prompts_are_not_stripped_word_by_word_in_vain() -> None:
    assert text_views("three words only").stripped == ()
    assert text_views("word " * STRIPPED_BELOW_WORDS).stripped == ()


def test_a_single_word_is_all_views_at_once() -> None:
    views = text_views("hello")
    assert views.whole is views.body is views.tail


def test_word_order_is_seen() -> None:
    assert set(whole("dog bites man").buckets) != set(whole("man bites dog").buckets)


def test_buckets_are_distinct_and_in_range() -> None:
    found = whole("the cat and the dog and the bird")
    assert len(set(found.buckets)) == len(found.buckets)
    assert found.buckets.min() >= 0
    assert found.buckets.max() < BUCKETS
    assert found.counts.sum() == 8 + 7 + 2


@pytest.mark.parametrize(
    ("name", "plain", "marked"),
    [
        ("log_numbers", "sort these", "sort 3 1 2"),
        ("code", "write a poem", "def f(x): return x"),
        ("mathematics", "tell me a story", "solve the equation"),
        ("negations", "which is right", "which is not right"),
        ("log_chars", "short", "a much longer prompt than the other one"),
    ],
)
def test_lexical_counts_see_what_they_are_named_after(name: str, plain: str, marked: str) -> None:
    assert lexical(plain, name) < lexical(marked, name)


@pytest.mark.parametrize("text", ["", " ", "\n", "🙂", "\u0000", "日本語"])
def test_any_text_has_finite_features(text: str) -> None:
    assert np.isfinite(whole(text).lexical).all()


@pytest.mark.parametrize(
    ("text", "ratio"),
    [("", 0.0), ("123 !?", 0.0), ("naïve café", 0.0), ("Привет", 1.0), ("abПр", 0.5), ("你好ab", 0.5)],
)
def test_the_share_of_other_scripts_counts_letters_only(text: str, ratio: float) -> None:
    assert non_latin_ratio(text) == ratio
