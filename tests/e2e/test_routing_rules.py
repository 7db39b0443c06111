"""Rules, tags and the tier by header, through a real gateway process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.gateway_process import REMOTE, RunningGateway, headgate, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream

ACME = """
tenant: acme
tiers: [small, large]
fallback: false
routing:
  quality: 0
  rules:
  - {name: legal, when: {tags: legal}, use: large}
  - {name: tools, when: {tools: true}, use: small}
  - {name: mail, when: {models: "mail-*"}, use: [two, one]}
  - {name: unseen, when: {users: nobody}, use: large}
models: {mail-1: auto}
examples:
- {request: {messages: [{role: user, content: May I?}]}, tags: [legal], expect: {rule: legal, tier: large}}
- {request: {messages: [{role: user, content: hi}], tools: [{type: function}]}, expect: {tier: small, reason: rule}}
- {request: {model: mail-1, messages: [{role: user, content: hi}]}, expect: {deployment: two}}
"""
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def gateway(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder: Path = tmp_path_factory.mktemp("rules")
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
    write_configuration(folder, operator, {"acme": ACME})
    with run_gateway(folder) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url, api_key=gateway.key("acme"), max_retries=0) as client:
        yield client


def routed(client: openai.OpenAI, text: str, model: str = "auto", **options: Any) -> tuple[str, str, str]:
    answer = client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": text}],
        **options,
    )
    names = ("x-headgate-tier", "x-headgate-reason", "x-headgate-cache")
    tier, reason, cache = (answer.headers[name] for name in names)
    return tier, reason, cache


def test_rules_decide_by_tags_tools_and_names(client: openai.OpenAI) -> None:
    assert routed(client, "one") == ("small", "score", "miss")
    assert routed(client, "two", extra_headers={"x-headgate-tags": "beta, legal"})[:2] == ("large", "rule")
    assert routed(client, "three", metadata={"tags": "legal"})[:2] == ("large", "rule")
    assert routed(client, "four", tools=[TOOL])[:2] == ("small", "rule")
    assert routed(client, "five", model="mail-1")[:2] == ("large", "rule")


def test_an_answer_under_a_rule_is_not_shared_with_requests_outside_it(client: openai.OpenAI) -> None:
    tagged = {"x-headgate-tags": "legal"}
    assert routed(client, "Is a verbal contract binding?") == ("small", "score", "miss")
    assert routed(client, "Is a verbal contract binding?", extra_headers=tagged) == ("large", "rule", "miss")
    assert routed(client, "Is a verbal contract binding?", extra_headers=tagged) == ("large", "cache", "exact")
    assert routed(client, "Is a verbal contract binding?") == ("small", "cache", "exact")


def test_an_explicit_choice_comes_before_rules_also_by_header(client: openai.OpenAI) -> None:
    tagged = {"x-headgate-tags": "legal"}
    assert routed(client, "six", model="small", extra_headers=tagged)[:2] == ("small", "requested")
    assert routed(client, "seven", extra_headers=tagged | {"x-headgate-tier": "small"})[:2] == ("small", "requested")
    with pytest.raises(openai.NotFoundError):
        routed(client, "eight", extra_headers={"x-headgate-tier": "huge"})


def test_a_tag_that_cannot_be_used_is_told_instead_of_dropped(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="x-headgate-tags"):
        routed(client, "nine", extra_headers={"x-headgate-tags": "x" * 65})


def test_a_key_without_the_rules_tier_is_refused_and_never_served_below_it(gateway: RunningGateway) -> None:
    narrow_key = gateway.key("acme", "--tier", "small")
    with openai.OpenAI(base_url=gateway.base_url, api_key=narrow_key, max_retries=0) as narrow:
        assert routed(narrow, "ten")[0] == "small"
        with pytest.raises(openai.PermissionDeniedError, match="rule 'legal'"):
            routed(narrow, "eleven", extra_headers={"x-headgate-tags": "legal"})


def test_policy_test_runs_the_examples_and_check_tells_of_rules_without_one(gateway: RunningGateway) -> None:
    tried = headgate("policy", "test", "acme", "--json", folder=gateway.folder)
    results = json.loads(tried.stdout)["acme"]
    assert [(one["rule"], one["missed"]) for one in results] == [("legal", []), ("tools", []), ("mail", [])]
    found = json.loads(headgate("policy", "check", "--json", folder=gateway.folder).stdout)["findings"]
    assert [one["key"] for one in found if one["code"] == "no-example"] == ["routing.rules[3]"]


def test_an_example_that_does_not_come_out_fails_the_test(upstream: RunningUpstream, tmp_path: Path) -> None:
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
    write_configuration(
        tmp_path, operator, {"acme": ACME.replace("rule: legal, tier: large", "rule: none, tier: small")}
    )
    done = headgate("policy", "test", folder=tmp_path, check=False)
    assert done.returncode == 1
    assert "rule none was expected" in done.stdout
