"""Rate and concurrency limits: truthful waits, exact counts, and slots that always come back."""

from contextlib import AsyncExitStack

import pytest

from core.clock import ManualClock
from core.errors import RateLimited
from core.plan import Standing
from core.rules import TenantPolicy
from policies.admission import Admission, duration_text
from policies.ledger_memory import MemoryLedger
from tests.policy_samples import CALLER, budget_policy, tenant_policy


async def admit(admission: Admission, policy: TenantPolicy, tokens: int = 1) -> Standing:
    async with admission.admit(CALLER, policy, tokens) as standing:
        return standing


def gate() -> tuple[Admission, ManualClock]:
    clock = ManualClock()
    clock.advance(1000.0)
    return Admission(MemoryLedger(clock), clock), clock


async def test_a_minutes_allowance_passes_at_once_and_not_one_more() -> None:
    admission, _ = gate()
    policy = tenant_policy("limits: {requests_per_minute: 60}")
    for _ in range(60):
        await admit(admission, policy)
    with pytest.raises(RateLimited) as refusal:
        await admit(admission, policy)
    assert refusal.value.retry_after_s == pytest.approx(1.0)
    headers = refusal.value.headers()
    assert headers["retry-after"] == "1"
    assert headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"] == "1m0s"


async def test_waiting_as_told_is_enough_and_a_little_less_is_not() -> None:
    admission, clock = gate()
    policy = tenant_policy("limits: {tokens_per_minute: 700}")
    await admit(admission, policy, 650)
    with pytest.raises(RateLimited) as refusal:
        await admit(admission, policy, 100)
    clock.advance(refusal.value.retry_after_s - 0.001)
    with pytest.raises(RateLimited):
        await admit(admission, policy, 100)
    clock.advance(0.001)
    await admit(admission, policy, 100)


async def test_a_refusal_by_one_limit_takes_nothing_from_the_other() -> None:
    admission, _ = gate()
    policy = tenant_policy("limits: {requests_per_minute: 10, tokens_per_minute: 100}")
    await admit(admission, policy, 100)
    with pytest.raises(RateLimited, match="100 tokens per minute"):
        await admit(admission, policy, 1)
    assert admission.limit_headers(policy)["x-ratelimit-remaining-requests"] == "9"
    assert admission.limit_headers(policy)["x-ratelimit-remaining-tokens"] == "0"


async def test_a_request_larger_than_the_allowance_passes_when_it_is_whole_and_leaves_a_debt() -> None:
    admission, clock = gate()
    policy = tenant_policy("limits: {tokens_per_minute: 100}")
    await admit(admission, policy, 300)
    with pytest.raises(RateLimited) as refusal:
        await admit(admission, policy, 1)
    assert refusal.value.retry_after_s == pytest.approx(120.6)
    clock.advance(180)
    await admit(admission, policy, 300)


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
        with pytest.raises(RateLimited, match="All 2 concurrent requests"):
            await admit(admission, policy)
    await admit(admission, policy)


async def test_tenants_do_not_share_limits() -> None:
    admission, _ = gate()
    first, second = (tenant_policy("limits: {requests_per_minute: 1}", tenant) for tenant in ("acme", "globex"))
    await admit(admission, first)
    await admit(admission, second)
    with pytest.raises(RateLimited):
        await admit(admission, first)


async def test_an_exhausted_budget_is_a_standing_and_not_a_refusal() -> None:
    admission, _ = gate()
    standing = await admit(admission, budget_policy("0", more=", when_exhausted: cache_only"))
    assert (standing.free_nano_usd, standing.when_exhausted) == (0, "cache_only")


async def test_without_limits_there_are_no_headers_and_no_refusals() -> None:
    admission, _ = gate()
    policy = tenant_policy()
    for _ in range(1000):
        await admit(admission, policy, 10**9)
    assert admission.limit_headers(policy) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0001, "1ms"), (0.12, "120ms"), (1.5, "1.5s"), (60, "1m0s"), (359.9996, "6m0s"), (61.25, "1m1.25s")],
)
def test_durations_read_as_openais_do(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
