"""What the registry learns from attempts, and when its breaker takes a deployment out."""

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from backends.deployment import Deployment
from backends.health import FAILURES_TO_OPEN, OPEN_S
from backends.protocol import AttemptError, UpstreamCall, UpstreamResponse
from backends.registry import Registry
from core.clock import ManualClock, SystemClock
from core.deadline import Deadline
from core.money import Price, Usage
from core.plan import Readiness
from core.trace import Attempt, AttemptOutcome, UsageSource

FAULTS = [AttemptOutcome.FAILED, AttemptOutcome.BROKEN_OFF]


class ClosedBackend:
    """A backend that answers nothing and remembers that it was closed."""

    def __init__(self) -> None:
        self.closed = False

    def open(self, call: UpstreamCall, deadline: Deadline) -> AbstractAsyncContextManager[UpstreamResponse]:
        raise AttemptError(AttemptOutcome.FAILED, "closed")

    async def close(self) -> None:
        self.closed = True


def attempt(
    outcome: AttemptOutcome = AttemptOutcome.COMPLETE,
    http_status: int | None = 200,
    usage: Usage | None = None,
    usage_source: UsageSource = "reported",
    took_ms: float = 100.0,
    first_byte_ms: float | None = None,
) -> Attempt:
    return Attempt(
        n=1,
        deployment="a",
        tier="small",
        model="m",
        started_ms=5.0,
        first_byte_ms=first_byte_ms,
        ended_ms=5.0 + took_ms,
        outcome=outcome,
        http_status=http_status,
        usage=usage,
        usage_source=usage_source,
        cost_nano_usd=0,
    )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def deployment() -> Deployment:
    return Deployment("a", "m", Price(1, 1), ClosedBackend())


@pytest.fixture
def registry(deployment: Deployment, clock: ManualClock) -> Registry:
    return Registry({"a": deployment}, {"small": ("a",)}, clock)


def learn(registry: Registry, outcome: AttemptOutcome, times: int, http_status: int | None = None) -> None:
    for _ in range(times):
        registry.learn(attempt(outcome, http_status), streamed=False)


@pytest.mark.parametrize("outcome", FAULTS)
def test_failures_in_a_row_open_the_breaker(registry: Registry, outcome: AttemptOutcome) -> None:
    learn(registry, outcome, FAILURES_TO_OPEN - 1)
    assert registry.readiness_of("a") is Readiness.READY
    learn(registry, outcome, 1)
    assert registry.readiness_of("a") is Readiness.DOWN
    assert registry.snapshot().deployments["a"].readiness is Readiness.DOWN


@pytest.mark.parametrize("status", [204, 307, 401, 500, 502, 503, 529])
def test_a_refusal_by_the_servers_own_fault_counts(registry: Registry, status: int) -> None:
    learn(registry, AttemptOutcome.REFUSED, FAILURES_TO_OPEN, status)
    assert registry.readiness_of("a") is Readiness.DOWN


@pytest.mark.parametrize("status", [400, 403, 404, 422, 429])
def test_a_refusal_by_the_requests_fault_does_not_count(registry: Registry, status: int) -> None:
    learn(registry, AttemptOutcome.REFUSED, 2 * FAILURES_TO_OPEN, status)
    assert registry.readiness_of("a") is Readiness.READY


def test_a_refusal_that_says_when_to_come_again_does_not_count(registry: Registry) -> None:
    for _ in range(2 * FAILURES_TO_OPEN):
        registry.learn(attempt(AttemptOutcome.REFUSED, 503), streamed=False, rests=True)
    assert registry.readiness_of("a") is Readiness.READY


def test_a_client_that_goes_away_does_not_count(registry: Registry) -> None:
    learn(registry, AttemptOutcome.CLIENT_GONE, 2 * FAILURES_TO_OPEN)
    assert registry.readiness_of("a") is Readiness.READY


def miss_deadlines(registry: Registry, took_ms: float, *, streamed: bool = False, **fields: Any) -> Readiness:
    for _ in range(FAILURES_TO_OPEN):
        registry.learn(attempt(AttemptOutcome.TIMED_OUT, None, took_ms=took_ms, **fields), streamed=streamed)
    return registry.readiness_of("a")


def test_deadlines_that_leave_a_deployment_less_than_it_needs_do_not_count(registry: Registry) -> None:
    registry.learn(attempt(took_ms=500.0), streamed=False)
    assert miss_deadlines(registry, 30.0) is Readiness.READY
    assert miss_deadlines(registry, 2000.0) is Readiness.READY
    assert miss_deadlines(registry, 2001.0) is Readiness.DOWN


def test_a_fast_deployment_is_given_a_second(registry: Registry) -> None:
    registry.learn(attempt(took_ms=3.0), streamed=False)
    assert miss_deadlines(registry, 1000.0) is Readiness.READY
    assert miss_deadlines(registry, 1001.0) is Readiness.DOWN


def test_a_deployment_of_which_nothing_is_known_is_given_ten_seconds(registry: Registry) -> None:
    assert miss_deadlines(registry, 10_000.0) is Readiness.READY
    assert miss_deadlines(registry, 10_001.0) is Readiness.DOWN


def test_a_stream_without_its_first_byte_is_judged_by_the_usual_first_byte(registry: Registry) -> None:
    registry.learn(attempt(took_ms=60_000.0, first_byte_ms=405.0), streamed=True)
    assert miss_deadlines(registry, 1600.0, streamed=True) is Readiness.READY
    assert miss_deadlines(registry, 1601.0, streamed=True) is Readiness.DOWN


def test_a_stream_is_judged_by_the_pace_of_what_it_produced(registry: Registry) -> None:
    registry.learn(attempt(took_ms=1000.0, first_byte_ms=505.0, usage=Usage(1, 100)), streamed=True)
    long, stalled = Usage(1, 1000), Usage(1, 3)
    assert miss_deadlines(registry, 30_000.0, streamed=True, first_byte_ms=505.0, usage=long) is Readiness.READY
    assert miss_deadlines(registry, 30_000.0, streamed=True, first_byte_ms=505.0, usage=stalled) is Readiness.DOWN


def test_a_plain_answer_teaches_no_first_byte(registry: Registry, deployment: Deployment) -> None:
    registry.learn(attempt(took_ms=800.0, first_byte_ms=805.0), streamed=False)
    assert (deployment.usual_first_byte_ms, deployment.usual_total_ms) == (None, 800.0)


def test_a_success_between_failures_starts_the_count_again(registry: Registry) -> None:
    learn(registry, AttemptOutcome.FAILED, FAILURES_TO_OPEN - 1)
    learn(registry, AttemptOutcome.COMPLETE, 1, 200)
    learn(registry, AttemptOutcome.FAILED, FAILURES_TO_OPEN - 1)
    assert registry.readiness_of("a") is Readiness.READY


def test_an_open_breaker_lets_requests_through_after_its_time(registry: Registry, clock: ManualClock) -> None:
    learn(registry, AttemptOutcome.FAILED, FAILURES_TO_OPEN)
    clock.advance(OPEN_S - 0.001)
    assert registry.readiness_of("a") is Readiness.DOWN
    clock.advance(0.001)
    assert registry.readiness_of("a") is Readiness.READY


def test_one_more_failure_after_its_time_opens_the_breaker_again(registry: Registry, clock: ManualClock) -> None:
    learn(registry, AttemptOutcome.FAILED, FAILURES_TO_OPEN)
    clock.advance(OPEN_S)
    learn(registry, AttemptOutcome.FAILED, 1)
    assert registry.readiness_of("a") is Readiness.DOWN


def test_a_success_closes_the_breaker_at_once(registry: Registry) -> None:
    learn(registry, AttemptOutcome.FAILED, FAILURES_TO_OPEN)
    learn(registry, AttemptOutcome.COMPLETE, 1, 200)
    assert registry.readiness_of("a") is Readiness.READY


def test_the_wait_told_is_until_the_breaker_closes(registry: Registry, clock: ManualClock) -> None:
    assert registry.snapshot().deployments["a"].retry_after_s == 1.0
    learn(registry, AttemptOutcome.FAILED, FAILURES_TO_OPEN)
    clock.advance(3.0)
    assert registry.snapshot().deployments["a"].retry_after_s == OPEN_S - 3.0


@pytest.mark.parametrize("own", [Readiness.LOADING, Readiness.DOWN])
def test_a_supervised_deployment_keeps_its_own_state_under_an_open_breaker(
    registry: Registry, deployment: Deployment, own: Readiness
) -> None:
    deployment.readiness = lambda: own
    learn(registry, AttemptOutcome.FAILED, FAILURES_TO_OPEN)
    assert registry.readiness_of("a") is own


def test_a_snapshot_holds_what_the_planner_asks_for(clock: ManualClock) -> None:
    deployment = Deployment("a", "m", Price(1, 2), ClosedBackend(), context_tokens=10, max_output_tokens=20)
    seen = Registry({"a": deployment}, {"small": ("a",)}, clock).snapshot()
    one = seen.deployments["a"]
    assert (one.name, one.model, one.price, one.context_tokens, one.max_output_tokens) == (
        "a",
        "m",
        Price(1, 2),
        10,
        20,
    )
    assert one.expected_output_tokens == 256
    assert seen.tier_of("a") == "small"
    assert seen.tier_of("b") == "direct"


def test_output_length_and_pace_are_learned_from_reported_usage(registry: Registry, deployment: Deployment) -> None:
    registry.learn(attempt(usage=Usage(1, 100), took_ms=400.0), streamed=False)
    assert deployment.ms_per_output_token == 4.0
    registry.learn(attempt(usage=Usage(1, 100), took_ms=800.0), streamed=False)
    assert deployment.ms_per_output_token == pytest.approx(4.4)
    assert 100 < deployment.expected_output_tokens < 256


@pytest.mark.parametrize(
    "silent",
    [
        attempt(usage=None, usage_source="none"),
        attempt(usage=Usage(1, 0)),
        attempt(usage=Usage(1, 100), usage_source="estimated"),
        attempt(AttemptOutcome.CLIENT_GONE, usage=Usage(1, 100)),
    ],
)
def test_nothing_is_learned_from_what_was_not_told(registry: Registry, deployment: Deployment, silent: Attempt) -> None:
    registry.learn(silent, streamed=False)
    assert (deployment.expected_output_tokens, deployment.ms_per_output_token) == (256.0, None)


async def test_waiting_ends_when_the_deployment_is_ready(deployment: Deployment) -> None:
    states = [Readiness.LOADING, Readiness.LOADING, Readiness.READY]
    deployment.readiness = lambda: states.pop(0) if len(states) > 1 else states[0]
    assert await Registry({"a": deployment}, {}, SystemClock()).wait_ready("a", 30.0)


async def test_waiting_ends_at_once_when_the_deployment_goes_down(deployment: Deployment) -> None:
    states = [Readiness.LOADING, Readiness.DOWN]
    deployment.readiness = lambda: states.pop(0) if len(states) > 1 else states[0]
    assert not await Registry({"a": deployment}, {}, SystemClock()).wait_ready("a", 30.0)


async def test_waiting_ends_when_the_time_is_over(deployment: Deployment, registry: Registry) -> None:
    deployment.readiness = lambda: Readiness.LOADING
    assert not await registry.wait_ready("a", 0.0)


async def test_closing_the_registry_closes_every_backend(clock: ManualClock) -> None:
    backends = [ClosedBackend(), ClosedBackend()]
    deployments = {str(n): Deployment(str(n), "m", Price(1, 1), backend) for n, backend in enumerate(backends)}
    await Registry(deployments, {}, clock).close()
    assert [backend.closed for backend in backends] == [True, True]


def test_a_snapshot_forecasts_once_a_stream_has_answered(registry: Registry, clock: ManualClock) -> None:
    assert registry.snapshot().deployments["a"].forecast is None
    flight = registry.take_off("a", 100, streamed=True)
    clock.advance(0.05)
    registry.began("a", flight)
    clock.advance(0.05)
    registry.land("a", flight)
    registry.learn(attempt(usage=Usage(100, 11), took_ms=100.0), streamed=True, flight=flight)
    forecast = registry.snapshot().deployments["a"].forecast
    assert forecast is not None
    assert forecast.ttft_ms(100) == pytest.approx(50.0, rel=0.06)
    assert forecast.total_ms(100, 10) == pytest.approx(100.0, rel=0.06)


def test_an_attempt_that_failed_teaches_no_pace(registry: Registry, clock: ManualClock) -> None:
    flight = registry.take_off("a", 100, streamed=False)
    clock.advance(0.05)
    registry.land("a", flight)
    registry.learn(attempt(AttemptOutcome.BROKEN_OFF, usage=Usage(100, 11)), streamed=False, flight=flight)
    assert registry.snapshot().deployments["a"].forecast is None
