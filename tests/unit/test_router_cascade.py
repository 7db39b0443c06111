"""What a small model's answer is rejected for, and when a cascade is planned at all."""

import math
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from core.plan import Complexity, Plan, Reason, Standing
from core.rules import CascadeRules
from router.cascade import refused
from router.decision import Inputs, decide
from tests.planning import chat, declared, deployment, policy, registry, two_tiers

RULES = CascadeRules(enabled=True)
SCHEMA = {
    "type": "object",
    "required": ["city"],
    "additionalProperties": False,
    "properties": {"city": {"type": "string"}, "kind": {"enum": ["a", "b"]}, "sizes": {"items": {"type": "integer"}}},
}


def verdict(content: str | None, *, format_: Any = None, max_tokens: int | None = None, **choice: Any) -> str | None:
    message = {"role": "assistant", "content": content, **choice.pop("message", {})}
    body = msgspec.json.encode({"choices": [{"message": message, "finish_reason": "stop", **choice}]})
    wanted = None if format_ is None else msgspec.Raw(msgspec.json.encode(format_))
    return refused(body, wanted, max_tokens, RULES)


def logprobs(*pairs: tuple[float, float]) -> dict[str, Any]:
    tokens = [{"token": "x", "top_logprobs": [{"logprob": math.log(p)} for p in pair]} for pair in pairs]
    return {"content": tokens}


def test_a_sound_answer_stands() -> None:
    assert verdict("Oslo lies further north.") is None
    assert verdict(None, message={"tool_calls": [{"id": "c"}]}) is None


def test_truncation_counts_only_where_the_client_set_no_limit() -> None:
    assert verdict("Oslo lies", finish_reason="length") == "truncated"
    assert verdict("Oslo lies", finish_reason="length", max_tokens=2) is None


@pytest.mark.parametrize(
    "text", ["I'm sorry, but no.", "I cannot help with that.", "As an AI, I", "I don't know.", "Sorry, no idea"]
)
def test_a_refusal_is_known_by_its_beginning(text: str) -> None:
    assert verdict(text) == "refusal"
    assert verdict(f'The letter begins with "{text}"') is None


def test_emptiness_and_a_refusal_field_are_seen() -> None:
    assert verdict("  ") == "empty"
    assert verdict("", message={"refusal": "no"}) == "refusal"


@pytest.mark.parametrize(
    ("content", "is_sound"),
    [
        ('{"city": "Oslo", "kind": "a", "sizes": [1, 2]}', True),
        ('{"city": "Oslo"} and more', False),
        ("Oslo", False),
        ('{"kind": "a"}', False),
        ('{"city": 5}', False),
        ('{"city": "Oslo", "kind": "c"}', False),
        ('{"city": "Oslo", "sizes": [1, true]}', False),
        ('{"city": "Oslo", "other": 1}', False),
        ('["Oslo"]', False),
    ],
)
def test_json_must_keep_to_its_schema(content: str, is_sound: bool) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    assert verdict(content, format_=wanted) == (None if is_sound else "invalid_json")


def test_a_json_object_is_one() -> None:
    assert verdict('{"a": 1}', format_={"type": "json_object"}) is None
    assert verdict("[1]", format_={"type": "json_object"}) == "invalid_json"


def test_a_small_margin_between_the_likeliest_tokens_is_uncertain() -> None:
    assert verdict("Oslo", logprobs=logprobs((0.5, 0.45), (0.6, 0.35))) == "uncertain"
    assert verdict("Oslo", logprobs=logprobs((0.9, 0.05), (0.6, 0.35))) is None
    assert verdict("Oslo", logprobs={"content": [{"token": "x", "top_logprobs": []}]}) is None


def planned(
    p: float, *, free: int | None = None, fallback: bool = True, stream: bool = False, ratio: float = 0.2
) -> Plan:
    effective = policy(fallback=fallback)
    rules = effective.tenant_policy
    routing = replace(rules.routing, cascade=replace(RULES, max_cost_ratio=ratio))
    effective = replace(effective, tenant_policy=replace(rules, routing=routing))
    facts = declared(chat(stream=stream, max_tokens=10))
    return decide(Inputs(facts, effective, Complexity(p, "model:x@1"), Standing(free), two_tiers())).plan


@pytest.mark.parametrize(
    ("p", "reason"), [(0.29, Reason.SCORE), (0.3, Reason.CASCADE), (0.79, Reason.CASCADE), (0.8, Reason.SCORE)]
)
def test_the_middle_band_is_cascaded(p: float, reason: Reason) -> None:
    assert planned(p).reason is reason


def test_a_cascade_holds_both_answers_in_full() -> None:
    made = planned(0.5)
    assert (made.tier, made.escalates_to) == ("small", 1)
    assert made.worst_case_nano_usd == sum(step.worst_case_nano_usd for step in made.steps)
    assert planned(0.5, free=made.worst_case_nano_usd).reason is Reason.CASCADE
    assert planned(0.5, free=made.worst_case_nano_usd - 1).reason is not Reason.CASCADE


def test_no_stream_no_dear_small_tier_and_no_policy_without_fallback_is_cascaded() -> None:
    assert planned(0.5, stream=True).reason is Reason.SCORE
    assert planned(0.5, ratio=0.05).reason is Reason.SCORE
    assert planned(0.5, fallback=False).reason is Reason.SCORE


def test_a_guard_leaves_nothing_to_try() -> None:
    effective = policy()
    routing = replace(effective.tenant_policy.routing, cascade=RULES)
    effective = replace(effective, tenant_policy=replace(effective.tenant_policy, routing=routing))
    tiers = registry([deployment("s", 1_000)], [deployment("l", 10_000)])
    facts = declared(chat(tools=[{"type": "function"}]))
    made = decide(Inputs(facts, effective, Complexity(0.5, "model:x@1"), Standing(), tiers)).plan
    assert (made.tier, made.reason, made.escalates_to) == ("large", Reason.GUARD_TOOLS, None)
