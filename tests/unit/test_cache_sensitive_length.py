"""Rules on sensitive texts stay cheap on long and hostile ones, and err on the side of not sharing."""

import pytest

from cache.eligibility import LONGEST_CACHED_BYTES, refuse_request
from cache.sensitive import has_secret, is_personal, is_time_dependent
from tests.caching import policy, request

HOSTILE = ["now and what is the ", "eyJ-eyJ-", "password:", "4111 1111 1111 ", "show my ", "what is my ", "sk-", "\n"]


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_repetition_is_judged_at_once(unit: str) -> None:
    text = unit * (LONGEST_CACHED_BYTES // len(unit))
    assert is_time_dependent(text) in (True, False)
    assert is_personal(text) in (True, False)
    assert has_secret(text) in (True, False)


def test_a_long_text_with_a_word_of_time_or_person_is_not_shared() -> None:
    filler = "lorem ipsum " * 300
    assert is_time_dependent(filler + "what is the weather today")
    assert is_personal(filler + "and what about my order")
    assert not is_personal(filler)
    assert not is_time_dependent(filler)


def test_a_conversation_beyond_the_limit_is_not_looked_up() -> None:
    assert refuse_request(request("a" * (LONGEST_CACHED_BYTES + 1)), policy()) == "too_long"
    assert refuse_request(request("a" * 1000), policy()) is None
