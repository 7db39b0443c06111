"""Whatever stage a request reached, its record is complete."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from backends.tries import AttemptLog
from core.cached import Bypass, CachedAnswer, Entry, ExactHit, Found, Miss, NearHit, SemanticHit
from core.errors import BudgetExhausted, HeadgateError
from core.identity import Caller
from core.money import Usage
from core.plan import Complexity, Plan, PlannedStep, Reason
from core.rules import EffectivePolicy, Sla
from gateway.trace_draft import TraceDraft, cache_detail, cache_outcome
from tests.planning import chat, policy
from tests.traces import an_attempt

RECEIVED_AT = datetime(2026, 1, 2, tzinfo=UTC)
RECEIVED_S = 100.0
PLAN = Plan((PlannedStep("s1", "small", 10, None, 77, 7),), Reason.SCORE, "small")
ENTRY = Entry(
    entry_id="e1",
    tenant="acme",
    scope="s",
    exact_key="x",
    normalised_key="n",
    prompt="p",
    vector=None,
    encoder="",
    answer=CachedAnswer("hi", "stop", "m", "large", "l1", Usage(3, 4), 55),
    created_at_s=0.0,
    expires_at_s=1.0,
)


def draft(**values: Any) -> TraceDraft:
    made = TraceDraft(Caller("acme", "key_1"), chat(stream=True), "/v1/chat/completions", RECEIVED_AT, RECEIVED_S, None)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def under(sla: Sla) -> EffectivePolicy:
    rules = policy()
    return replace(rules, tenant_policy=replace(rules.tenant_policy, sla={"small": sla}))


def test_a_request_refused_before_any_stage_still_has_a_record() -> None:
    trace = draft(error=HeadgateError("m")).freeze(100.25)
    assert (trace.tenant, trace.key_id, trace.status, trace.error_code) == ("acme", "key_1", 500, "internal_error")
    assert (trace.cache, trace.tier, trace.reason, trace.usage, trace.ttft_ms) == ("bypass", None, None, None, None)
    assert (trace.cost_nano_usd, trace.reserved_nano_usd, trace.sla_violated) == (0, 0, False)
    assert (trace.total_ms, trace.overhead_ms) == (250.0, 250.0)


def test_a_model_name_is_recorded_only_once_a_policy_knows_it() -> None:
    assert draft().freeze(100.0).model_alias == ""
    assert draft(policy=policy()).freeze(100.0).model_alias == "auto"


def test_a_budget_refusal_keeps_what_was_known() -> None:
    trace = draft(
        policy=policy(), found=Miss(), complexity=Complexity(0.4, "model:x@1"), plan=PLAN, error=BudgetExhausted("m")
    ).freeze(100.1)
    assert (trace.status, trace.error_code, trace.cache) == (429, "insufficient_quota", "miss")
    assert (trace.reason, trace.p_small_suffices, trace.complexity_source) == ("score", 0.4, "model:x@1")
    assert (trace.reserved_nano_usd, trace.policy_version) == (77, "v1")


def test_an_answer_is_told_by_its_last_attempt_and_costs_what_all_of_them_cost() -> None:
    failed = an_attempt(deployment="s0", started_ms=0.0, ended_ms=100.0, usage=Usage(1, 0), cost_nano_usd=5)
    won = an_attempt(n=2, started_ms=100.0, ended_ms=400.0, cost_nano_usd=20)
    trace = draft(policy=policy(), found=Miss(), plan=PLAN, attempts=AttemptLog([failed, won]), first_sent_s=100.2)
    record = trace.freeze(100.5)
    assert (record.status, record.tier, record.deployment, record.usage) == (200, "small", "s1", Usage(20, 5))
    assert (record.cost_nano_usd, record.saved_nano_usd, len(record.attempts)) == (25, 0, 2)
    assert record.ttft_ms == pytest.approx(200.0)
    assert (record.total_ms, record.overhead_ms) == (500.0, 100.0)


@pytest.mark.parametrize(
    ("found", "outcome", "similarity"),
    [(ExactHit(ENTRY, 1.0), "exact", None), (SemanticHit(ENTRY, 1.0, 0.98, 0.9), "semantic", 0.98)],
)
def test_a_hit_is_told_by_its_entry(found: Found, outcome: str, similarity: float | None) -> None:
    trace = draft(policy=policy(), found=found).freeze(100.0)
    assert (trace.cache, trace.similarity, trace.reason) == (outcome, similarity, "cache")
    assert (trace.tier, trace.deployment, trace.usage) == ("large", "l1", Usage(3, 4))
    assert (trace.cost_nano_usd, trace.saved_nano_usd) == (0, 55)


@pytest.mark.parametrize(
    ("found", "outcome", "detail"),
    [
        (None, "bypass", ""),
        (Bypass("caller"), "bypass", "caller"),
        (Miss(), "miss", ""),
        (NearHit("e1", 0.9, "numbers", None), "miss", "near:numbers"),
        (ExactHit(ENTRY, 0.0), "exact", ""),
        (SemanticHit(ENTRY, 0.0, 0.9, 0.9), "semantic", ""),
    ],
)
def test_the_cache_is_told_in_documented_tokens(found: Found | None, outcome: str, detail: str) -> None:
    assert (cache_outcome(found), cache_detail(found)) == (outcome, detail)


def test_a_near_hit_tells_its_similarity() -> None:
    assert draft(found=NearHit("e1", 0.91, "numbers", None)).freeze(100.0).similarity == 0.91


@pytest.mark.parametrize(
    ("sla", "first_sent_s", "violated"),
    [
        (Sla(), 109.0, False),
        (Sla(ttft_ms=500), 100.5, False),
        (Sla(ttft_ms=500), 100.6, True),
        (Sla(total_ms=10_000), 100.1, False),
        (Sla(total_ms=9_999), 100.1, True),
        (Sla(ttft_ms=500, total_ms=9_999), None, True),
    ],
)
def test_an_sla_is_violated_beyond_its_limits_alone(sla: Sla, first_sent_s: float | None, violated: bool) -> None:
    made = draft(policy=under(sla), plan=PLAN, first_sent_s=first_sent_s)
    assert made.freeze(110.0).sla_violated is violated


def test_a_plain_answer_has_no_first_token_to_be_late() -> None:
    made = draft(policy=under(Sla(ttft_ms=1)), plan=PLAN, first_sent_s=105.0, request=chat())
    assert made.freeze(110.0).sla_violated is False


def test_the_record_is_bound_to_the_tier_of_its_plan() -> None:
    made = draft(policy=under(Sla(total_ms=1)), plan=msgspec.structs.replace(PLAN, tier="large"))
    assert made.freeze(110.0).sla_violated is False


def recording(*, is_asked_for: bool = True) -> EffectivePolicy:
    rules = policy()
    return replace(rules, tenant_policy=replace(rules.tenant_policy, record_content=is_asked_for))


def test_content_is_recorded_only_where_the_policy_asks_for_it() -> None:
    hit = ExactHit(ENTRY, 5.0)
    content = draft(policy=recording(), found=hit).freeze(101.0).content
    assert content is not None
    assert (b"Sort 3 1 2" in content.messages, content.answer, content.finish_reason) == (True, "hi", "stop")
    assert draft(policy=recording(is_asked_for=False), found=hit).freeze(101.0).content is None


def test_the_content_of_a_request_without_an_answer_is_its_messages() -> None:
    content = draft(policy=recording(), error=HeadgateError("m")).freeze(101.0).content
    assert content is not None
    assert content.answer is None


def test_a_record_says_what_the_request_was_held_to() -> None:
    sla = Sla(ttft_ms=300, total_ms=2000)
    trace = draft(policy=under(sla), plan=PLAN).freeze(101.0)
    assert (trace.sla_ttft_ms, trace.sla_total_ms, trace.is_sla_judged) == (300, 2000, True)
    assert not draft(policy=under(sla)).freeze(101.0).is_sla_judged
