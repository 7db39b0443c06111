"""Questions that are asked again: nearly the same, by the same caller, soon."""

from gateway.learning.retries import MOST_CALLERS, WITHIN_S, RetryWatch

ANNA = ("acme", "key1", "anna")
TEXT = "How do I change the oil of a small boat engine?"


def test_nearly_the_same_question_soon_after_is_a_retry() -> None:
    watch = RetryWatch()
    assert watch.noted(ANNA, "r1", TEXT, 0.0) is None
    assert watch.noted(ANNA, "r2", TEXT.lower() + " please", 30.0) == "r1"
    assert watch.noted(ANNA, "r3", TEXT, 60.0) == "r2"


def test_another_question_another_caller_or_a_late_one_is_none() -> None:
    watch = RetryWatch()
    watch.noted(ANNA, "r1", TEXT, 0.0)
    assert watch.noted(("acme", "key1", "bob"), "r2", TEXT, 1.0) is None
    assert watch.noted(ANNA, "r3", "Which oil is best for salads with tomatoes?", 2.0) is None
    watch.noted(ANNA, "r4", TEXT, 3.0)
    assert watch.noted(ANNA, "r5", TEXT, 4.0 + WITHIN_S) is None


def test_short_words_of_thanks_are_no_questions() -> None:
    watch = RetryWatch()
    watch.noted(ANNA, "r1", "go on", 0.0)
    assert watch.noted(ANNA, "r2", "go on", 1.0) is None


def test_only_so_many_callers_are_remembered_and_no_text() -> None:
    watch = RetryWatch()
    for n in range(MOST_CALLERS + 1):
        watch.noted(("acme", "key1", str(n)), f"r{n}", TEXT, 0.0)
    assert watch.noted(("acme", "key1", "0"), "again", TEXT, 1.0) is None
    assert watch.noted(("acme", "key1", str(MOST_CALLERS)), "again", TEXT, 1.0) == f"r{MOST_CALLERS}"
    assert "engine" not in repr(watch)
