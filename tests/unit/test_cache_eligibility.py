"""Each documented token keeps what it names out of the cache, and ordinary questions in."""

from typing import Any

import pytest

from cache.eligibility import refuse_answer, refuse_request, refuse_store
from cache.sensitive import has_secret, is_personal, is_time_dependent
from core.chat import CacheControls
from core.rules import DeploymentTarget, TierTarget
from tests.caching import answer, policy, request

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    ("fields", "token"),
    [
        ({"tools": [TOOL]}, "tools"),
        (
            {"messages": [{"role": "tool", "content": "4", "tool_call_id": "c"}, {"role": "user", "content": "a"}]},
            "tools",
        ),
        ({"n": 2}, "n"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]}, "media"),
        ({"logprobs": True}, "logprobs"),
        ({"audio": {"voice": "v"}}, "audio"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "no_text"),
    ],
)
def test_the_shape_of_a_request_may_forbid_caching(fields: dict[str, Any], token: str) -> None:
    assert refuse_request(request(**fields), policy()) == token


def test_policy_and_caller_may_forbid_caching() -> None:
    assert refuse_request(request(), policy(enabled=False)) == "policy"
    assert refuse_request(request(controls=CacheControls(bypass=True)), policy()) == "caller"
    assert refuse_request(request(controls=CacheControls(refresh=True)), policy()) == "refresh"
    assert refuse_request(request(), policy(per_user=True)) == "no_user"
    assert refuse_request(request(user="ann"), policy(per_user=True)) is None


@pytest.mark.parametrize(
    "text",
    [
        "What's the weather like in Oslo?",
        "What time is it?",
        "What is the time?",
        "Who won the game last night?",
        "How is the dollar doing right now?",
        "What are the latest headlines?",
        "What is the current price of copper?",
        "Give me the exchange rate from euro to yen",
        "How many days until Christmas?",
        "What is happening in the world?",
        "Which team is leading?",
    ],
)
def test_questions_about_the_moment_are_time_dependent(text: str) -> None:
    assert is_time_dependent(text)
    assert refuse_request(request(text), policy()) == "time"


@pytest.mark.parametrize(
    "text",
    ["What is a time series?", "Why is the sky blue?", "How do I get traffic for a blog?", "What is news value?"],
)
def test_timeless_questions_are_not_time_dependent(text: str) -> None:
    assert not is_time_dependent(text)


@pytest.mark.parametrize(
    "text",
    [
        "What is my account balance?",
        "Where is my package?",
        "When does my subscription renew?",
        "Show me my last invoices",
        "Has my refund been processed?",
        "How much do I owe?",
        "What did I order last?",
    ],
)
def test_questions_about_the_askers_records_need_a_user(text: str) -> None:
    assert is_personal(text)
    assert refuse_request(request(text), policy()) == "personal"
    assert refuse_request(request(text, user="ann"), policy()) is None


@pytest.mark.parametrize("text", ["How do I reset my password?", "Why does my dog bark?", "Can I cancel my order?"])
def test_general_advice_is_not_personal(text: str) -> None:
    assert not is_personal(text)


@pytest.mark.parametrize(
    "text", ["my key is sk-proj-abcdefghij0123456789abcd", "password: hunter2hunter2", "4111 1111 1111 1111"]
)
def test_credentials_are_never_cached(text: str) -> None:
    assert has_secret(text)
    assert refuse_request(request(text), policy()) == "secret"
    assert refuse_answer(request(), policy(), answer(text)) == "answer_secret"


def test_incomplete_answers_are_not_stored() -> None:
    assert refuse_store(request(), policy(), answer()) is None
    assert refuse_store(request(), policy(), answer(finish_reason="length")) == "finish"
    assert refuse_store(request(), policy(), answer("  ")) == "empty"
    assert refuse_store(request(controls=CacheControls(no_store=True)), policy(), answer()) == "no_store"
    assert refuse_store(request(controls=CacheControls(refresh=True)), policy(), answer()) is None
    assert refuse_store(request(n=2), policy(), answer()) == "n"


def test_a_fallbacks_answer_never_stands_for_the_tier_that_was_asked_for() -> None:
    assert refuse_answer(request(), policy(target=TierTarget("large")), answer(tier="small")) == "other_tier"
    assert refuse_answer(request(), policy(target=TierTarget("small")), answer(tier="small")) is None
    assert refuse_answer(request(), policy(target=DeploymentTarget("cloud")), answer()) == "other_tier"
