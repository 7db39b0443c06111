"""Rules on declared facts: what fits, which one decides, and what comes before them."""

from dataclasses import replace

import msgspec
import pytest

from core.chat import Demands, parse_chat_request
from core.facts import RequestFacts
from core.rules import RoutingRule, RuleCondition, RuledTarget, TierTarget
from router.facts import facts_of
from router.rules import deciding_rule, fits, ruled
from tests.planning import chat, policy

FACTS = RequestFacts(
    model="gpt-4o",
    path="/v1/chat/completions",
    endpoint="/chat/completions",
    user="eve",
    tags=("legal", "urgent"),
    stream=False,
    has_tools=True,
    has_media=False,
    response_format="json_schema",
    input_tokens=100,
    max_tokens=None,
    n=1,
    script="latin",
    non_latin_ratio=0.1,
)


@pytest.mark.parametrize(
    ("when", "does_fit"),
    [
        (RuleCondition(tools=True), True),
        (RuleCondition(tools=False), False),
        (RuleCondition(media=False, stream=False), True),
        (RuleCondition(stream=True), False),
        (RuleCondition(response_format=("json_object", "json_schema")), True),
        (RuleCondition(response_format=("text",)), False),
        (RuleCondition(min_context_tokens=100, max_context_tokens=100), True),
        (RuleCondition(min_context_tokens=101), False),
        (RuleCondition(max_context_tokens=99), False),
        (RuleCondition(script=("latin",)), True),
        (RuleCondition(script=("han", "kana")), False),
        (RuleCondition(min_non_latin_ratio=0.1), True),
        (RuleCondition(min_non_latin_ratio=0.2), False),
        (RuleCondition(tags=("clinical", "legal")), True),
        (RuleCondition(tags=("clinical",)), False),
        (RuleCondition(models=("gpt-*",)), True),
        (RuleCondition(models=("gpt",)), False),
        (RuleCondition(users=("eve",)), True),
        (RuleCondition(users=("ev",)), False),
        (RuleCondition(paths=("/v1/chat/*",)), True),
        (RuleCondition(paths=("/v1/messages",)), False),
        (RuleCondition(tools=True, tags=("clinical",)), False),
    ],
)
def test_every_written_condition_must_hold(when: RuleCondition, does_fit: bool) -> None:
    assert fits(when, FACTS) is does_fit


def test_nobodys_request_fits_no_user() -> None:
    assert not fits(RuleCondition(users=("*",)), msgspec.structs.replace(FACTS, user=None))


def test_the_first_rule_that_fits_decides() -> None:
    no_tools, tools = RuleCondition(tools=False), RuleCondition(tools=True)
    rules = tuple(
        RoutingRule(n, when, "large") for n, when in (("never", no_tools), ("first", tools), ("second", tools))
    )
    decided = deciding_rule(rules, FACTS)
    assert decided is not None
    assert decided.name == "first"
    assert deciding_rule(rules[:1], FACTS) is None


def test_a_rule_speaks_only_where_the_caller_left_the_choice() -> None:
    rule = RoutingRule("tools", RuleCondition(tools=True), ("l", "s"))
    auto, named = policy(), policy(TierTarget("small"))
    for one in (auto, named):
        routing = replace(one.tenant_policy.routing, rules=(rule,))
        steered = ruled(replace(one, tenant_policy=replace(one.tenant_policy, routing=routing)), FACTS)
        assert steered.target == (RuledTarget("tools", ("l", "s")) if one is auto else TierTarget("small"))


def test_facts_tell_what_is_declared_and_nothing_of_the_text() -> None:
    body = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "Расскажи о Москве"}],
        "metadata": {"tags": "legal, urgent"},
        "response_format": {"type": "json_object"},
        "user": "eve",
        "stream": True,
    }
    request = parse_chat_request(msgspec.json.encode(body), "r", Demands(tags=("urgent", "beta")))
    facts = facts_of(request, "/v1/chat/completions")
    assert (facts.tags, facts.script, facts.non_latin_ratio) == (("beta", "legal", "urgent"), "cyrillic", 1.0)
    assert (facts.response_format, facts.stream, facts.user) == ("json_object", True, "eve")
    assert "Москве" not in repr(facts)
    assert facts_of(request, "/", user="bob").user == "bob"


@pytest.mark.parametrize("metadata", [None, "text", {"tags": 5}, {"tags": {"a": "b"}}, {"other": "x"}])
def test_metadata_of_another_shape_is_the_apps_own_affair(metadata: object) -> None:
    assert facts_of(chat(metadata=metadata), "/").tags == ()


def test_a_list_of_tags_is_bounded() -> None:
    tags = facts_of(chat(metadata={"tags": [f"t{n}" for n in range(99)] + ["x" * 999]}), "/").tags
    assert len(tags) == 16


def test_an_unknown_response_format_is_as_strict_as_a_schema() -> None:
    assert facts_of(chat(response_format={"type": "grammar"}), "/").response_format == "json_schema"
    assert facts_of(chat(response_format={"type": "text"}), "/").response_format == "text"
