"""What a caller may ask in headers, and what is refused by name."""

import pytest

from core.chat import CacheControls, Demands
from core.errors import InvalidApiKey, InvalidRequest
from gateway.wire.demands import parse_demands, relevant_headers


def refusal(name: str, value: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse_demands({name: value})
    return caught.value


def test_no_headers_are_no_demands() -> None:
    assert parse_demands({}) == Demands()
    assert parse_demands({"authorization": "Bearer x"}) == Demands()


def test_only_headers_that_are_read_are_kept() -> None:
    sent = [
        (b"authorization", b"Bearer x"),
        (b"x-headgate-cache", b"bypass"),
        (b"x-stainless-read-timeout", b"600"),
        (b"traceparent", b"00-a-b-01"),
        (b"cookie", b"secret=1"),
        (b"x-forwarded-for", b"10.0.0.1"),
    ]
    assert sorted(relevant_headers(sent)) == [
        "authorization",
        "traceparent",
        "x-headgate-cache",
        "x-stainless-read-timeout",
    ]


@pytest.mark.parametrize("second", [b"Bearer x", b"Bearer y"])
def test_two_keys_are_no_key(second: bytes) -> None:
    with pytest.raises(InvalidApiKey):
        relevant_headers([(b"authorization", b"Bearer x"), (b"host", b"h"), (b"authorization", second)])


@pytest.mark.parametrize(
    ("value", "controls"),
    [
        ("", CacheControls()),
        ("bypass", CacheControls(bypass=True)),
        ("refresh", CacheControls(refresh=True)),
        ("no-store", CacheControls(no_store=True)),
        ("only-if-cached", CacheControls(only_if_cached=True)),
        ("max-age=0", CacheControls(max_age_s=0)),
        ("Max-Age=60, NO-STORE ,", CacheControls(no_store=True, max_age_s=60)),
        ("min-score=0.97", CacheControls(min_score=0.97)),
        ("min-score=1, max-age=5", CacheControls(min_score=1.0, max_age_s=5)),
    ],
)
def test_cache_words_are_read_in_any_case_and_order(value: str, controls: CacheControls) -> None:
    assert parse_demands({"x-headgate-cache": value}).cache == controls


@pytest.mark.parametrize(
    "value",
    ["nope", "max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=²", "bypass=1", "max-age=" + "9" * 5000],
)
def test_an_unknown_cache_word_is_refused_by_name(value: str) -> None:
    error = refusal("x-headgate-cache", value)
    assert error.param == "x-headgate-cache"
    assert len(error.message) < 200


@pytest.mark.parametrize(("value", "deadline_ms"), [("250", 250), ("1.9", 1)])
def test_a_deadline_is_read_in_milliseconds(value: str, deadline_ms: int) -> None:
    assert parse_demands({"x-headgate-deadline-ms": value}) == Demands(deadline_ms=deadline_ms)


@pytest.mark.parametrize(
    ("value", "read_timeout_ms"), [("1.5", 1500), ("600", 600_000), ("NOT_GIVEN", None), ("inf", None), ("0", None)]
)
def test_the_read_timeout_of_the_sdk_is_kept_apart_and_ignored_when_it_is_no_number(
    value: str, read_timeout_ms: int | None
) -> None:
    headers = {"x-stainless-read-timeout": value, "x-headgate-deadline-ms": "250"}
    assert parse_demands(headers) == Demands(deadline_ms=250, read_timeout_ms=read_timeout_ms)


@pytest.mark.parametrize("value", ["0", "-5", "soon", "nan", "inf", "", "1e400"])
def test_a_deadline_that_is_no_positive_number_is_refused(value: str) -> None:
    assert refusal("x-headgate-deadline-ms", value).param == "x-headgate-deadline-ms"


def test_a_deadline_beyond_a_day_is_a_day() -> None:
    assert parse_demands({"x-headgate-deadline-ms": "1e300"}).deadline_ms == 86_400_000


def test_a_session_is_kept_and_bounded() -> None:
    assert parse_demands({"x-headgate-session": "s" * 128}).session == "s" * 128
    assert parse_demands({"x-headgate-session": ""}).session is None
    assert refusal("x-headgate-session", "s" * 129).param == "x-headgate-session"


@pytest.mark.parametrize(("value", "explain"), [("true", True), ("TRUE", True), ("1", False), ("", False)])
def test_an_explanation_is_asked_for_with_true(value: str, explain: bool) -> None:
    assert parse_demands({"x-headgate-explain": value}).explain is explain


def test_tags_are_distinct_and_keep_their_order() -> None:
    tags = parse_demands({"x-headgate-cache-tags": "handbook, v1.2 ,handbook,doc:7/a"}).cache.tags
    assert tags == ("handbook", "v1.2", "doc:7/a")


@pytest.mark.parametrize("value", ["a b", "-a", "a" * 65, "caf\u00e9", ",".join(f"t{n}" for n in range(9)), 'a"b'])
def test_tags_that_are_none_or_too_many_are_refused_by_name(value: str) -> None:
    assert refusal("x-headgate-cache-tags", value).param == "x-headgate-cache-tags"


@pytest.mark.parametrize("score", ["", "2", "-0.5", "1.5", "nan", "1e-3", "0,9", "high"])
def test_a_least_score_that_is_no_probability_is_refused(score: str) -> None:
    assert refusal("x-headgate-cache", f"min-score={score}").param == "x-headgate-cache"
