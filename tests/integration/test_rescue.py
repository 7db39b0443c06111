"""What dispatch does for a request whose first attempt fails or is late, against the scripted upstream."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from backends.attempt import LiveAnswer
from backends.deployment import Deployment
from backends.dispatch import Dispatcher
from backends.protocol import AttemptError
from backends.registry import Registry
from backends.remote import RemoteBackend
from backends.rescue_budget import RescueRules
from backends.transport import http_transport
from backends.tries import AttemptLog, Errand
from core.chat import ChatRequest, parse_chat_request
from core.clock import SystemClock
from core.deadline import Deadline
from core.errors import DeadlineExceeded, HeadgateError, Unavailable, UpstreamFailed
from core.money import Price
from core.plan import Plan, PlannedStep, Readiness, Reason
from core.trace import AttemptKind, AttemptOutcome
from tests.upstream.process import RunningUpstream

PRICE = Price(1_000_000, 2_000_000)
CLOCK = SystemClock()
NEVER = Deadline(None, None)
RULES = RescueRules()
HEALTHY = "scripted"
FIRST, FALLBACK, RETRY, HEDGE, _ = AttemptKind
COMPLETE, OUTRUN, REFUSED = AttemptOutcome.COMPLETE, AttemptOutcome.OUTRUN, AttemptOutcome.REFUSED


def chat(**fields: Any) -> ChatRequest:
    body = {"model": "auto", "messages": [{"role": "user", "content": "two words"}], **fields}
    return parse_chat_request(msgspec.json.encode(body), "req_test")


def within(ttft_ms: int | None = None, total_ms: int | None = None) -> Deadline:
    return Deadline.after(CLOCK.monotonic_s(), ttft_ms, total_ms)


async def affordable(step: PlannedStep) -> bool:
    return True


class Rescued:
    """Dispatches along a plan whose deployments obey scripts."""

    def __init__(self, base_url: str, scripts: tuple[str, ...], rules: RescueRules, tiers: tuple[str, ...]) -> None:
        transport = http_transport()
        names = [f"d{n}" for n in range(len(scripts))]
        tiers = tiers or ("small",) * len(scripts)
        self.deployments = {
            name: Deployment(
                name,
                f"{HEALTHY};{script}" if script else HEALTHY,
                PRICE,
                RemoteBackend(lambda: base_url, transport, CLOCK),
            )
            for name, script in zip(names, scripts, strict=True)
        }
        of_tier = {
            tier: tuple(n for n, t in zip(names, tiers, strict=True) if t == tier) for tier in ("small", "large")
        }
        self.registry = Registry(self.deployments, of_tier, CLOCK)
        self.dispatcher = Dispatcher(self.registry, CLOCK, rules, random.Random(3))
        steps = tuple(PlannedStep(name, tier, 100, None, 0, 0) for name, tier in zip(names, tiers, strict=True))
        self.plan = Plan(steps, Reason.SCORE, tiers[0])
        self.log = AttemptLog()
        self.errand_fields: dict[str, Any] = {"afford": affordable}

    @asynccontextmanager
    async def open(self, deadline: Deadline = NEVER, **fields: Any) -> AsyncIterator[LiveAnswer]:
        errand = Errand(self.plan, chat(**fields), deadline, self.log, CLOCK.monotonic_s())
        async with self.dispatcher.open(replace(errand, **self.errand_fields)) as live:
            yield live

    async def ask(self, deadline: Deadline = NEVER, **fields: Any) -> bytes:
        async with self.open(deadline, **fields) as live:
            return b"".join([chunk async for chunk in live.chunks()])

    async def refused(self, deadline: Deadline = NEVER, **fields: Any) -> HeadgateError:
        with pytest.raises(HeadgateError) as caught:
            await self.ask(deadline, **fields)
        return caught.value

    @property
    def story(self) -> list[tuple[str, AttemptKind, AttemptOutcome]]:
        return [(attempt.deployment, attempt.kind, attempt.outcome) for attempt in self.log.attempts]


@asynccontextmanager
async def rescued(
    upstream: RunningUpstream, *scripts: str, rules: RescueRules = RULES, tiers: tuple[str, ...] = ()
) -> AsyncIterator[Rescued]:
    caller = Rescued(upstream.base_url, scripts, rules, tiers)
    try:
        yield caller
    finally:
        await caller.registry.close()


async def seen(upstream: RunningUpstream) -> list[dict[str, Any]]:
    return await asyncio.to_thread(upstream.seen)


# Retries


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
async def test_the_only_deployment_is_tried_again_after_a_passing_failure(
    upstream: RunningUpstream, status: int
) -> None:
    async with rescued(upstream, f"status={status};times=1") as caller:
        assert b"answer to: two words" in await caller.ask()
        assert caller.story == [("d0", FIRST, REFUSED), ("d0", RETRY, COMPLETE)]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_nothing_is_tried_again_that_will_not_pass(upstream: RunningUpstream, status: int) -> None:
    async with rescued(upstream, f"status={status}") as caller:
        await caller.refused()
        assert caller.story == [("d0", FIRST, REFUSED)]


async def test_another_deployment_goes_before_a_retry(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "status=500", "status=500;times=1") as caller:
        await caller.ask()
        assert [(name, kind) for name, kind, _ in caller.story] == [("d0", FIRST), ("d1", FALLBACK), ("d1", RETRY)]


async def test_a_request_is_retried_twice_at_most(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "status=500") as caller:
        assert isinstance(await caller.refused(), UpstreamFailed)
        assert len(caller.story) == 1 + RULES.max_retries


async def test_retries_end_when_their_share_is_used_up(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "status=400") as caller:
        while caller.dispatcher.retries.use():
            pass
        caller.deployments["d0"].model = f"{HEALTHY};status=500"
        await caller.refused()
        assert caller.story == [("d0", FIRST, REFUSED)]


async def test_a_retry_waits_as_long_as_the_deployment_asked(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "status=429;retry_after=1;times=1") as caller:
        await caller.ask()
        first, second = caller.log.attempts
        assert second.started_ms - first.ended_ms >= 1000


async def test_a_wait_beyond_the_deadline_is_told_to_the_client_instead(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "status=429;retry_after=7") as caller:
        error = await caller.refused(within(total_ms=3_000))
        assert isinstance(error, Unavailable)
        assert (error.retry_after_s, len(caller.story)) == (7.0, 1)
        assert caller.registry.readiness_of("d0") is Readiness.DOWN


async def test_a_retry_of_what_already_cost_needs_money(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "cut=0") as caller:

        async def too_dear(step: PlannedStep) -> bool:
            return False

        caller.errand_fields["afford"] = too_dear
        await caller.refused(stream=True)
        assert [kind for _, kind, _ in caller.story] == [FIRST]
        assert caller.log.cost_nano_usd > 0


# A connection that the upstream closed meanwhile


async def test_a_request_that_met_a_closed_connection_is_sent_once_more_on_a_new_one(
    upstream: RunningUpstream,
) -> None:
    async with rescued(upstream, "drop=next", rules=RescueRules(retry_ratio=0.0)) as caller:
        await caller.ask()
        await caller.ask()
        assert caller.story == [("d0", FIRST, COMPLETE)] * 2
        states = [one["state"] for one in await seen(upstream)]
        assert states.count("complete") == 2


async def test_a_new_connection_that_is_closed_is_not_tried_again(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "close=headers", rules=RescueRules(retry_ratio=0.0)) as caller:
        await caller.refused()
        assert len(await seen(upstream)) == 1


# Hedges


async def test_a_hedge_answers_for_a_deployment_that_is_late(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "ttft=3000", "") as caller:
        assert b"[DONE]" in await caller.ask(within(ttft_ms=400), stream=True)
        assert caller.story == [("d0", FIRST, OUTRUN), ("d1", HEDGE, COMPLETE)]
        winner = caller.log.attempts[1]
        assert winner.first_byte_ms is not None
        assert winner.first_byte_ms < 400


async def test_a_plain_answer_is_hedged_for_its_end(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "ttft=3000", "") as caller:
        await caller.ask(within(total_ms=400))
        assert caller.story == [("d0", FIRST, OUTRUN), ("d1", HEDGE, COMPLETE)]


async def test_the_loser_is_cancelled_at_once_and_billed(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "ttft=3000", "ttft=20") as caller:
        await caller.ask(within(ttft_ms=400), stream=True)
        loser = next(attempt for attempt in caller.log.attempts if attempt.outcome is OUTRUN)
        winner = next(attempt for attempt in caller.log.attempts if attempt.outcome is COMPLETE)
        assert winner.first_byte_ms is not None
        assert loser.ended_ms - winner.first_byte_ms < 50
        assert loser.cost_nano_usd > 0
        by_state = {one["state"]: one for one in await seen(upstream)}
        assert by_state.keys() == {"complete", "disconnected"}


async def test_the_first_attempt_wins_when_it_answers_before_its_hedge(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "ttft=250", "ttft=3000") as caller:
        await caller.ask(within(ttft_ms=400), stream=True)
        assert sorted(caller.story) == [("d0", FIRST, COMPLETE), ("d1", HEDGE, OUTRUN)]


async def test_a_deployment_in_time_is_not_hedged(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "ttft=20", "") as caller:
        await caller.ask(within(ttft_ms=2_000), stream=True)
        assert caller.story == [("d0", FIRST, COMPLETE)]


async def test_nothing_is_hedged_without_a_limit(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "ttft=300", "") as caller:
        await caller.ask(stream=True)
        await caller.ask()
        assert [kind for _, kind, _ in caller.story] == [FIRST, FIRST]


async def test_nothing_is_hedged_where_it_may_not_be(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "ttft=3000", "") as caller:
        caller.errand_fields["may_hedge"] = False
        assert isinstance(await caller.refused(within(ttft_ms=200), stream=True), DeadlineExceeded)
        assert [kind for _, kind, _ in caller.story] == [FIRST]


async def test_a_hedge_needs_money(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "ttft=3000", "") as caller:
        asked: list[str] = []

        async def too_dear(step: PlannedStep) -> bool:
            asked.append(step.deployment)
            return False

        caller.errand_fields["afford"] = too_dear
        await caller.refused(within(ttft_ms=800), stream=True)
        assert (asked, len(caller.story)) == (["d1"], 1)


async def test_hedges_end_when_their_share_is_used_up(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "ttft=3000", "") as caller:
        while caller.dispatcher.hedging.share.use():
            pass
        await caller.refused(within(ttft_ms=200), stream=True)
        assert [kind for _, kind, _ in caller.story] == [FIRST]


async def test_a_cheaper_tier_is_no_hedge(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "ttft=3000", "", tiers=("large", "small")) as caller:
        await caller.refused(within(ttft_ms=200), stream=True)
        assert [kind for _, kind, _ in caller.story] == [FIRST]


async def test_a_dearer_tier_may_be_a_hedge(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "ttft=3000", "", tiers=("small", "large")) as caller:
        await caller.ask(within(ttft_ms=400), stream=True)
        assert [kind for _, kind, _ in caller.story] == [FIRST, HEDGE]


async def test_nothing_is_hedged_after_the_first_byte(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "n=3;stall=1", "") as caller:
        with pytest.raises(AttemptError):
            await caller.ask(within(ttft_ms=200, total_ms=500), stream=True)
        assert caller.story == [("d0", FIRST, AttemptOutcome.TIMED_OUT)]


async def test_when_an_attempt_and_its_hedge_fail_the_plan_goes_on(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "headers=400;status=500", "status=500", "") as caller:
        await caller.ask(within(total_ms=600))
        assert [(name, kind) for name, kind, _ in caller.story] == [("d1", HEDGE), ("d0", FIRST), ("d2", FALLBACK)]


async def test_a_client_that_leaves_during_a_hedge_releases_both(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "ttft=5000", "ttft=5000") as caller:
        asking = asyncio.create_task(caller.ask(within(ttft_ms=2_000), stream=True))
        sightings: list[dict[str, Any]] = []
        while len(sightings) < 2:
            sightings = await asyncio.to_thread(upstream.seen, 0.0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert {one["state"] for one in await seen(upstream)} == {"disconnected"}
        assert [outcome for _, _, outcome in caller.story] == [AttemptOutcome.CLIENT_GONE] * 2
        assert all(one.latency.in_flight == 0 for one in caller.deployments.values())


async def test_who_was_outrun_is_known_to_be_late(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "", "") as caller:
        for _ in range(6):
            await caller.ask(stream=True)
        slow = caller.deployments["d0"]
        slow.model = f"{HEALTHY};ttft=3000"
        await caller.ask(within(ttft_ms=400), stream=True)
        assert caller.story[-2:] == [("d0", FIRST, OUTRUN), ("d1", HEDGE, COMPLETE)]
        assert slow.latency.wait_ms(CLOCK.monotonic_s()) > 100


# The flow of a stream


async def test_a_gap_after_the_first_content_cuts_the_answer(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "n=3;stall=1") as caller:
        with pytest.raises(AttemptError, match="nothing came for 100 ms"):
            await caller.ask(replace(NEVER, idle_s=0.1), stream=True)
        assert caller.story == [("d0", FIRST, AttemptOutcome.TIMED_OUT)]


async def test_a_gap_before_the_first_content_sends_the_request_elsewhere(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "stall=0", "") as caller:
        await caller.ask(replace(NEVER, idle_s=0.1), stream=True)
        assert [(name, kind) for name, kind, _ in caller.story] == [("d0", FIRST), ("d1", FALLBACK)]


async def test_a_stream_slower_than_promised_is_cut_after_a_grace(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "n=40;gap=250") as caller:
        with pytest.raises(AttemptError, match="slower than 20 tokens per second"):
            await caller.ask(replace(NEVER, min_output_tokens_per_s=20.0), stream=True)
        (attempt,) = caller.log.attempts
        assert attempt.first_byte_ms is not None
        assert attempt.ended_ms - attempt.first_byte_ms >= 2_000
        assert attempt.cost_nano_usd > 0


async def test_a_stream_as_fast_as_promised_is_not_cut(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "n=60;gap=50") as caller:
        await caller.ask(replace(NEVER, min_output_tokens_per_s=10.0), stream=True)
        assert caller.story == [("d0", FIRST, COMPLETE)]


# A client that leaves


async def left(caller: Rescued, upstream: RunningUpstream, *, stream: bool) -> None:
    """Ask, and leave once the answer is under way: some of a stream was received, or some of a body sent."""
    has_begun = asyncio.Event()

    async def ask() -> None:
        async with caller.open(stream=stream) as live:
            async for _ in live.chunks():
                has_begun.set()

    asking = asyncio.create_task(ask())
    sightings: list[dict[str, Any]] = []
    if stream:
        await has_begun.wait()
    while not sightings or sightings[-1]["bytes_sent"] < 100:
        sightings = await asyncio.to_thread(upstream.seen, 0.0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize("stream", [True, False])
async def test_an_upstream_is_cancelled_at_once_when_its_client_leaves(upstream: RunningUpstream, stream: bool) -> None:
    async with rescued(upstream, "n=100;gap=50" if stream else "drip=4;drip_gap=50") as caller:
        await left(caller, upstream, stream=stream)
        (sighting,) = await seen(upstream)
        assert sighting["disconnected"]
        (attempt,) = caller.log.attempts
        assert (attempt.outcome, attempt.usage_source) == (AttemptOutcome.CLIENT_GONE, "estimated")
        assert caller.registry.readiness_of("d0") is Readiness.READY


@pytest.mark.parametrize("stream", [True, False])
async def test_a_provider_that_bills_anyway_is_read_to_its_usage(upstream: RunningUpstream, stream: bool) -> None:
    async with rescued(upstream, "n=20;gap=20" if stream else "drip=8;drip_gap=30") as caller:
        caller.deployments["d0"].drain_s = 5.0
        await left(caller, upstream, stream=stream)
        (sighting,) = await seen(upstream)
        assert sighting["state"] == "complete"
        (attempt,) = caller.log.attempts
        assert (attempt.outcome, attempt.usage_source) == (AttemptOutcome.CLIENT_GONE, "reported")


async def test_reading_on_without_a_client_has_a_bound(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "n=500;gap=50") as caller:
        caller.deployments["d0"].drain_s = 0.3
        await left(caller, upstream, stream=True)
        (sighting,) = await seen(upstream)
        assert sighting["disconnected"]
        assert caller.log.attempts[0].outcome is AttemptOutcome.CLIENT_GONE


async def test_the_loser_of_a_race_is_not_read_on(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "ttft=3000", "") as caller:
        for deployment in caller.deployments.values():
            deployment.drain_s = 5.0
        await caller.ask(within(ttft_ms=400), stream=True)
        assert caller.story == [("d0", FIRST, OUTRUN), ("d1", HEDGE, COMPLETE)]
        assert {one["state"] for one in await seen(upstream)} == {"complete", "disconnected"}


# Slots


async def test_requests_wait_for_a_slot_and_the_wait_is_told(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "ttft=150") as caller:
        caller.deployments["d0"].gate.max_concurrency = 1
        await asyncio.gather(caller.ask(stream=True), caller.ask(stream=True))
        assert caller.log.queued_s > 0.1
        assert caller.deployments["d0"].gate.taken == 0
        assert (
            max(one["arrived_s"] for one in await seen(upstream))
            - min(one["arrived_s"] for one in await seen(upstream))
            > 0.1
        )


async def test_no_slot_is_lost_however_a_request_ends(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "status=500", "cut=1") as caller:
        for deployment in caller.deployments.values():
            deployment.gate.max_concurrency = 2
        for _ in range(4):
            with pytest.raises((AttemptError, HeadgateError)):
                await caller.ask(stream=True)
        assert [deployment.gate.taken for deployment in caller.deployments.values()] == [0, 0]


# What travels to our engines


async def test_an_engine_of_ours_is_told_how_long_it_has(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "") as caller:
        caller.deployments["d0"].local = True
        await caller.ask(within(total_ms=5_000))
        (sighting,) = await seen(upstream)
        left_ms = int(sighting["headers"]["x-headgate-deadline-ms"])
        assert 1_000 < left_ms <= 5_000


async def test_a_provider_is_told_nothing_of_deadlines(upstream: RunningUpstream) -> None:
    async with rescued(upstream, "") as caller:
        await caller.ask(within(total_ms=5_000))
        (sighting,) = await seen(upstream)
        assert not any(name.startswith("x-headgate") for name in sighting["headers"])
