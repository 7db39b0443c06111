"""Admission as the pipeline sees it: a standing with headers, and slots that always come back."""

from contextlib import AsyncExitStack

import pytest

from core.clock import ManualClock
from core.errors import RateLimited
from core.rules import Limits
from policies.admission import Admission
from policies.ledger_memory import MemoryLedger
from policies.rates import duration_text
from tests.policy_samples import CALLER, OTHER_KEY, budget_policy, tenant_policy


def gate() -> tuple[Admission, ManualClock]:
    clock = ManualClock()
    clock.advance(1000.0)
    return Admission(MemoryLedger(clock), clock), clock


async def test_concurrency_is_freed_when_the_request_ends_or_fails() -> None:
    admission, _ = gate()
    policy = tenant_policy("limits: {concurrency: 2}")

    async def fails() -> None:
        async with admission.admit(CALLER, policy, 1):
            raise ZeroDivisionError

    async with AsyncExitStack() as slots:
        await slots.enter_async_context(admission.admit(CALLER, policy, 1))
        with pytest.raises(ZeroDivisionError):
            await fails()
        await slots.enter_async_context(admission.admit(CALLER, policy, 1))
        with pytest.raises(RateLimited, match="All 2 concurrent requests of this tenant"):
            await fails()
    async with admission.admit(CALLER, policy, 1):
        pass


async def test_an_admitted_request_carries_its_headers_and_what_it_used_counts() -> None:
    admission, _ = gate()
    policy = tenant_policy("limits: {requests_per_minute: 10, tokens_per_minute: 1000}")
    async with admission.admit(CALLER, policy, 600) as admitted:
        assert admitted.limit_headers == {
            "x-ratelimit-limit-requests": "10",
            "x-ratelimit-remaining-requests": "9",
            "x-ratelimit-reset-requests": "6s",
            "x-ratelimit-limit-tokens": "1000",
            "x-ratelimit-remaining-tokens": "400",
            "x-ratelimit-reset-tokens": "36s",
        }
        admitted.used_tokens = 100
    async with admission.admit(CALLER, policy, 1) as admitted:
        assert admitted.limit_headers["x-ratelimit-remaining-tokens"] == "899"


async def test_limits_of_keys_hold_beside_those_of_the_tenant() -> None:
    admission, _ = gate()
    policy, each = tenant_policy("limits: {requests_per_minute: 3}"), Limits(requests_per_minute=2)
    for caller in (CALLER, CALLER):
        async with admission.admit(caller, policy, 1, each):
            pass
    with pytest.raises(RateLimited, match="The key's limit of 2 requests per minute"):
        async with admission.admit(CALLER, policy, 1, each):
            raise AssertionError("the body must not run")
    async with admission.admit(OTHER_KEY, policy, 1, each) as admitted:
        assert admitted.limit_headers["x-ratelimit-limit-requests"] == "3"
        assert admitted.limit_headers["x-ratelimit-remaining-requests"] == "0"


async def test_an_exhausted_budget_is_a_standing_and_not_a_refusal() -> None:
    admission, _ = gate()
    async with admission.admit(CALLER, budget_policy("0", more=", when_exhausted: cache_only"), 1) as admitted:
        assert (admitted.standing.free_nano_usd, admitted.standing.when_exhausted) == (0, "cache_only")


async def test_without_limits_there_are_no_headers_and_no_refusals() -> None:
    admission, _ = gate()
    policy = tenant_policy()
    for _ in range(1000):
        async with admission.admit(CALLER, policy, 10**9) as admitted:
            assert admitted.limit_headers == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0001, "1ms"), (0.12, "120ms"), (1.5, "1.5s"), (60, "1m0s"), (359.9996, "6m0s"), (61.25, "1m1.25s")],
)
def test_durations_read_as_openais_do(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
