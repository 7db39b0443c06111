"""Rules and examples as a tenant writes them: what is built, what is refused, and what can never decide."""

from itertools import starmap

import msgspec
import pytest

from core.errors import ConfigurationError
from core.rules import RuleCondition
from policies.explaining import rule_text
from policies.routing_rules import covers
from tests.policy_samples import tenant_policy

RULES = """
routing:
  quality: 0.9
  rules:
  - {name: legal, when: {tags: [legal, clinical], tools: false}, use: large}
  - {when: {script: han, min_context_tokens: 500}, use: [cloud, large-full]}
"""


def test_rules_become_values_in_their_order() -> None:
    legal, second = tenant_policy(RULES).routing.rules
    assert legal.when == RuleCondition(tags=("legal", "clinical"), tools=False)
    assert (second.name, second.use) == ("rule-2", ("cloud", "large-full"))
    assert rule_text(legal) == "legal: tools false, tags legal or clinical > large"
    assert rule_text(second) == "rule-2: min_context_tokens 500, script han > cloud, large-full"


def test_a_rule_changes_the_version_and_an_example_does_not() -> None:
    plain = tenant_policy("routing: {quality: 0.9}")
    example = "examples: [{request: {messages: [{role: user, content: hi}], temperature: 0.5}}]"
    assert tenant_policy(RULES).version != plain.version
    tested = tenant_policy(f"routing: {{quality: 0.9}}\n{example}")
    assert tested.version == plain.version
    body = msgspec.json.decode(tested.examples[0].body)
    assert (body["model"], body["temperature"]) == ("auto", 0.5)


@pytest.mark.parametrize(
    ("rules", "error"),
    [
        ("[{when: {tools: true}, use: huge}]", "routing.rules[0].use: unknown tier 'huge'"),
        ("[{when: {tools: true}, use: [nope]}]", "routing.rules[0].use: unknown deployment 'nope'"),
        ("[{when: {tools: true}, use: []}]", "routing.rules[0].use: the list is empty"),
        ("[{when: {}, use: large}]", "routing.rules[0].when: holds no condition"),
        ("[{when: {tags: []}, use: large}]", "routing.rules[0].when.tags: the list is empty"),
        ("[{when: {min_context_tokens: 9, max_context_tokens: 8}, use: large}]", "routing.rules[0].when.min_contex"),
        ("[{when: {tool: true}, use: large}]", "routing.rules[0].when: unknown key 'tool'; did you mean 'tools'?"),
        ("[{name: none, when: {tools: true}, use: large}]", "routing.rules[0].name: 'none' is not a rule's name"),
        ("[{name: a, when: {tools: true}, use: large}, {name: a, when: {media: true}, use: large}]", "routing.rules"),
    ],
)
def test_each_mistake_in_a_rule_is_one_line(rules: str, error: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        tenant_policy(f"routing: {{rules: {rules}}}")
    assert refusal.value.message.startswith(f"acme.yaml: {error}")


@pytest.mark.parametrize(
    ("example", "error"),
    [
        ("{request: {}}", "examples[0].request: The request body is not a valid chat request"),
        (
            "{request: {messages: [{role: user}]}, expect: {rule: gone}}",
            "examples[0].expect.rule: there is no rule 'go",
        ),
        (
            "{request: {messages: [{role: user}]}, expect: {tier: huge}}",
            "examples[0].expect.tier: there is no tier 'hu",
        ),
    ],
)
def test_each_mistake_in_an_example_is_one_line(example: str, error: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        tenant_policy(f"examples: [{example}]")
    assert refusal.value.message.startswith(f"acme.yaml: {error}")


def test_a_tier_that_the_tenant_may_not_use_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not among the tenant's `tiers`"):
        tenant_policy("tiers: [small]\nrouting: {rules: [{when: {tools: true}, use: large}]}")


def test_reading_finds_rules_that_an_earlier_one_always_wins_over() -> None:
    pairs = [
        (RuleCondition(tools=True), RuleCondition(tools=True, stream=True)),
        (RuleCondition(tags=("a", "b")), RuleCondition(tags=("b",))),
        (RuleCondition(models=("gpt-*",)), RuleCondition(models=("gpt-4*", "gpt-5"))),
        (RuleCondition(min_context_tokens=10), RuleCondition(min_context_tokens=20)),
        (RuleCondition(max_context_tokens=20), RuleCondition(max_context_tokens=10)),
    ]
    assert all(starmap(covers, pairs))
    assert not any(covers(later, earlier) for earlier, later in pairs)
