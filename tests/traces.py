"""Builders for finished traces with sensible defaults."""

from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from core.money import Usage
from core.trace import Attempt, AttemptOutcome, RequestTrace

RECEIVED_AT = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)

_ATTEMPT = Attempt(
    n=1,
    deployment="s1",
    tier="small",
    model="s1-model",
    started_ms=10.0,
    first_byte_ms=60.0,
    ended_ms=110.0,
    outcome=AttemptOutcome.COMPLETE,
    http_status=200,
    usage=Usage(20, 5),
    usage_source="reported",
    cost_nano_usd=1_500_000_000,
)
_TRACE = RequestTrace(
    request_id="req_1",
    received_at=RECEIVED_AT,
    tenant="acme",
    key_id="key_1",
    path="/v1/chat/completions",
    model_alias="auto",
    stream=True,
    status=200,
    error_code=None,
    cache="miss",
    cache_detail="",
    similarity=None,
    tier="small",
    deployment="s1",
    reason="score",
    degraded_from=None,
    p_small_suffices=0.9,
    complexity_source="model:test@1",
    policy_version="v1",
    attempts=(_ATTEMPT,),
    usage=Usage(20, 5),
    cost_nano_usd=1_500_000_000,
    saved_nano_usd=0,
    reserved_nano_usd=2_000_000_000,
    ttft_ms=61.5,
    total_ms=112.25,
    overhead_ms=12.25,
    sla_violated=False,
)
_HIT = replace(
    _TRACE,
    cache="semantic",
    similarity=0.97,
    reason="cache",
    attempts=(),
    cost_nano_usd=0,
    saved_nano_usd=1_500_000_000,
)
_REFUSAL = replace(
    _TRACE,
    status=429,
    error_code="insufficient_quota",
    cache="bypass",
    tier=None,
    deployment=None,
    reason=None,
    p_small_suffices=None,
    attempts=(),
    usage=None,
    cost_nano_usd=0,
    ttft_ms=None,
)


def an_attempt(**changes: Any) -> Attempt:
    return replace(_ATTEMPT, **changes)


def a_trace(**changes: Any) -> RequestTrace:
    """A stream that small answered: 20 tokens in, 5 out, 1.5 USD."""
    return replace(_TRACE, **changes)


def a_hit(**changes: Any) -> RequestTrace:
    """A semantic hit that saved 1.5 USD."""
    return replace(_HIT, **changes)


def a_refusal(**changes: Any) -> RequestTrace:
    """A request that an exhausted budget refused before a plan was made."""
    return replace(_REFUSAL, **changes)
