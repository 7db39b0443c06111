"""The dispatcher with the real driver and registry against the scripted upstream, over a real socket.

Each deployment's model name is the script it obeys, so that a plan of two steps meets two upstreams of one process.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from backends.attempt import LiveAnswer
from backends.deployment import Deployment
from backends.dispatch import Dispatcher, broken_off
from backends.health import FAILURES_TO_OPEN
from backends.protocol import AttemptError
from backends.registry import Registry
from backends.remote import RemoteBackend
from backends.transport import http_transport
from backends.tries import AttemptLog, Errand
from core.chat import ChatRequest, parse_chat_request
from core.clock import SystemClock
from core.deadline import Deadline
from core.errors import DeadlineExceeded, HeadgateError, InvalidRequest, Unavailable, UpstreamFailed
from core.money import Price, Usage, usd_text
from core.plan import Plan, PlannedStep, Readiness, Reason
from core.trace import Attempt, AttemptOutcome
from tests.upstream.process import RunningUpstream, unused_port

PRICE = Price(1_000, 2_000)
TEXT = "two words"
ANSWER = "answer to: two words"
REPORTED = Usage(2, 4)
NEVER = Deadline(None, None)
HEALTHY = "scripted"
LONG_MS = 600_000
CLOCK = SystemClock()


def chat(text: str = TEXT, **fields: Any) -> ChatRequest:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], **fields}
    return parse_chat_request(msgspec.json.encode(body), "req_test")


def within(ttft_ms: int | None = None, total_ms: int | None = None) -> Deadline:
    return Deadline.after(CLOCK.monotonic_s(), ttft_ms, total_ms)


class Caller:
    """Sends requests along a plan whose steps obey `scripts`, and keeps every attempt."""

    def __init__(self, base_urls: list[str | None], models: list[str], api_key: str | None = None) -> None:
        transport = http_transport()
        self.deployments = {
            f"d{n}": Deployment(
                f"d{n}",
                model,
                PRICE,
                RemoteBackend(lambda url=url: url, transport, CLOCK, api_key),  # type: ignore[misc]
            )
            for n, (url, model) in enumerate(zip(base_urls, models, strict=True))
        }
        self.registry = Registry(self.deployments, {"small": tuple(self.deployments)}, CLOCK)
        self.log = AttemptLog()
        self.live: LiveAnswer | None = None
        steps = tuple(PlannedStep(name, f"tier-{name}", 100, None, 0, 0) for name in self.deployments)
        self.plan = Plan(steps, Reason.SCORE, "small")

    @asynccontextmanager
    async def open(self, request: ChatRequest, deadline: Deadline = NEVER) -> AsyncIterator[LiveAnswer]:
        dispatcher = Dispatcher(self.registry, CLOCK)
        traceparent = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
        errand = Errand(self.plan, request, deadline, self.log, CLOCK.monotonic_s(), traceparent, "acme")
        async with dispatcher.open(errand) as self.live:
            yield self.live

    async def ask(self, deadline: Deadline = NEVER, **fields: Any) -> list[bytes]:
        async with self.open(chat(**fields), deadline) as live:
            return [chunk async for chunk in live.chunks()]

    async def stream(self, deadline: Deadline = NEVER, **fields: Any) -> list[bytes]:
        return await self.ask(deadline, stream=True, **fields)

    async def refused(self, deadline: Deadline = NEVER, **fields: Any) -> HeadgateError:
        with pytest.raises(HeadgateError) as caught:
            await self.ask(deadline, **fields)
        return caught.value

    async def cut(self, deadline: Deadline = NEVER, **fields: Any) -> tuple[list[bytes], AttemptError]:
        """Read a stream that breaks off after its first byte: what arrived, and why it ended."""
        received: list[bytes] = []
        with pytest.raises(AttemptError) as caught:
            await self._read_into(received, chat(stream=True, **fields), deadline)
        assert received, "something was sent before the answer broke off"
        return received, caught.value

    async def _read_into(self, received: list[bytes], request: ChatRequest, deadline: Deadline) -> None:
        async with self.open(request, deadline) as live:
            async for chunk in live.chunks():
                received.append(chunk)

    @property
    def outcomes(self) -> list[AttemptOutcome]:
        return [attempt.outcome for attempt in self.log.attempts]

    @property
    def only(self) -> Attempt:
        (attempt,) = self.log.attempts
        return attempt


@asynccontextmanager
async def calling(upstream: RunningUpstream, *scripts: str) -> AsyncIterator[Caller]:
    models = [f"{HEALTHY};{script}" if script else HEALTHY for script in scripts]
    caller = Caller([upstream.base_url] * len(models), models, api_key="sk-upstream")
    try:
        yield caller
    finally:
        await caller.registry.close()


@asynccontextmanager
async def calling_first(upstream: RunningUpstream, base_url: str | None) -> AsyncIterator[Caller]:
    """A plan whose first deployment is at `base_url` and whose second one is healthy."""
    caller = Caller([base_url, upstream.base_url], [HEALTHY, HEALTHY])
    try:
        yield caller
    finally:
        await caller.registry.close()


async def seen(upstream: RunningUpstream, settle_s: float = 5.0) -> list[dict[str, Any]]:
    return await asyncio.to_thread(upstream.seen, settle_s)


async def arrived(upstream: RunningUpstream) -> None:
    sightings: list[dict[str, Any]] = []
    while not sightings:
        sightings = await seen(upstream, settle_s=0.0)


def events(frames: list[bytes]) -> list[dict[str, Any]]:
    """Decode the JSON events of frames in any dialect."""
    decoded = []
    for frame in frames:
        lines = frame.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
        data = "\n".join(line.removeprefix("data:") for line in lines if line.startswith("data:")).strip()
        if data and data != "[DONE]":
            decoded.append(json.loads(data))
    return decoded


def text_of(frames: list[bytes]) -> str:
    choices = [choice for event in events(frames) for choice in event["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def tokens_in(frames: list[bytes]) -> int:
    """What the frames are billed as without a report: one token each, or a third of their text's bytes."""
    return max(len(events(frames)), -(-len(text_of(frames).encode()) // 3))


def count_done(frames: list[bytes]) -> int:
    return sum(b"[DONE]" in frame for frame in frames)


# A healthy upstream


async def test_a_stream_is_relayed_frame_by_frame_and_billed_as_reported(upstream: RunningUpstream) -> None:
    async with calling(upstream, "") as caller:
        frames = await caller.stream()
        assert (text_of(frames), count_done(frames)) == (ANSWER, 1)
        attempt = caller.only
        assert (attempt.outcome, attempt.http_status, attempt.error) == (AttemptOutcome.COMPLETE, 200, None)
        assert (attempt.usage, attempt.usage_source, attempt.cost_nano_usd) == (REPORTED, "reported", 10)
        assert attempt.first_byte_ms is not None
        assert attempt.started_ms <= attempt.first_byte_ms <= attempt.ended_ms
        assert caller.live is not None
        captured = caller.live.captured()
        assert captured is not None
        assert (captured.content, captured.finish_reason, captured.plain) == (ANSWER, "stop", True)


async def test_a_plain_answer_is_relayed_byte_for_byte(upstream: RunningUpstream) -> None:
    async with calling(upstream, "") as caller:
        (body,) = await caller.ask()
        assert json.loads(body)["choices"][0]["message"]["content"] == ANSWER
        assert caller.live is not None
        assert caller.live.complete
        assert caller.live.cost_nano_usd == 10
        assert (caller.only.usage, caller.only.cost_nano_usd) == (REPORTED, 10)
        captured = caller.live.captured()
        assert captured is not None
        assert captured.content == ANSWER


async def test_an_upstream_that_keeps_tenants_apart_gets_the_tenants_salt(
    upstream: RunningUpstream,
) -> None:
    async with calling(upstream, "", "") as caller:
        caller.deployments["d0"].salt = lambda tenant: f"salt of {tenant}"
        await caller.ask(cache_salt="chosen by the client")
        caller.deployments["d0"].salt = None
        await caller.ask(cache_salt="chosen by the client")
    salted, plain = await seen(upstream)
    assert salted["body"]["cache_salt"] == "salt of acme"
    assert "cache_salt" not in plain["body"]


async def test_the_upstream_sees_our_key_our_name_and_the_request_id_alone(upstream: RunningUpstream) -> None:
    async with calling(upstream, "") as caller:
        await caller.stream()
    (sighting,) = await seen(upstream)
    headers = {name.lower(): value for name, value in sighting["headers"].items()}
    assert headers["authorization"] == "Bearer sk-upstream"
    assert (headers["user-agent"], headers["x-request-id"]) == ("headgate", "req_test")
    assert headers["accept-encoding"] == "identity"
    assert "traceparent" not in headers
    assert sighting["path"] == "/v1/chat/completions"
    assert sighting["body"]["stream_options"] == {"include_usage": True}


async def test_a_second_request_uses_the_same_connection(upstream: RunningUpstream) -> None:
    async with calling(upstream, "") as caller:
        await caller.stream()
        await caller.ask()
    first, second = await seen(upstream)
    assert first["connection"] == second["connection"]


async def test_streams_one_after_the_other_share_connections(upstream: RunningUpstream) -> None:
    async with calling(upstream, "split;drip_gap=1") as caller:  # the end comes a moment after `[DONE]`
        for _ in range(20):
            await caller.stream()
    assert len({sighting["connection"] for sighting in await seen(upstream)}) < 10


async def test_the_cap_of_the_plan_is_what_goes_upstream(upstream: RunningUpstream) -> None:
    async with calling(upstream, "") as caller:
        caller.plan = Plan((PlannedStep("d0", "small", 2, 2, 0, 0),), Reason.SCORE, "small")
        frames = await caller.stream(max_tokens=50)
        assert caller.only.usage == Usage(2, 2)
        assert events(frames)[-1]["choices"][0]["finish_reason"] == "length"


async def test_tool_calls_pass_and_are_not_plain(upstream: RunningUpstream) -> None:
    async with calling(upstream, "tools=2") as caller:
        frames = await caller.stream()
        names = [
            call["function"].get("name")
            for event in events(frames)
            for choice in event["choices"]
            for call in choice["delta"].get("tool_calls") or []
        ]
        assert len([name for name in names if name]) == 2
        assert caller.live is not None
        captured = caller.live.captured()
        assert captured is not None
        assert not captured.plain


async def test_several_choices_pass_and_are_not_plain(upstream: RunningUpstream) -> None:
    async with calling(upstream, "") as caller:
        frames = await caller.stream(n=2)
        assert {choice["index"] for event in events(frames) for choice in event["choices"]} == {0, 1}
        assert caller.live is not None
        captured = caller.live.captured()
        assert captured is not None
        assert not captured.plain


@pytest.mark.parametrize(
    "dialect",
    [
        "eol=crlf",
        "eol=cr",
        "comment",
        "multiline",
        "multiline;eol=crlf",
        "space=0",
        "role=0",
        "role=3",
        "split;drip_gap=1",
        "drip=1;drip_gap=0",
        "drip=7;drip_gap=0;eol=crlf",
        "gzip=on",
        "wire=http10",
        "wire=hints",
        "keepalive=0",
        "drop=now",
    ],
)
async def test_every_dialect_of_a_sound_stream_reads_the_same(upstream: RunningUpstream, dialect: str) -> None:
    async with calling(upstream, f"{dialect};text=na%C3%AFve%20%F0%9F%98%80%20answer") as caller:
        frames = await caller.stream()
        assert (text_of(frames), count_done(frames)) == ("naïve 😀 answer", 1)
        assert (caller.only.outcome, caller.only.usage_source) == (AttemptOutcome.COMPLETE, "reported")


@pytest.mark.parametrize("wire", ["gzip=on", "wire=http10", "wire=chunked", "wire=hints", "drip=5;drip_gap=0"])
async def test_every_framing_of_a_sound_body_reads_the_same(upstream: RunningUpstream, wire: str) -> None:
    async with calling(upstream, wire) as caller:
        (body,) = await caller.ask()
        assert json.loads(body)["choices"][0]["message"]["content"] == ANSWER


async def test_a_large_frame_is_relayed_whole(upstream: RunningUpstream) -> None:
    async with calling(upstream, "huge=3000000") as caller:
        assert len(text_of(await caller.stream())) == 3_000_000 + len(ANSWER)
        assert caller.live is not None
        assert caller.live.captured() is None


async def test_done_is_relayed_once(upstream: RunningUpstream) -> None:
    async with calling(upstream, "done=2") as caller:
        assert count_done(await caller.stream()) == 1
        assert caller.outcomes == [AttemptOutcome.COMPLETE]


# Usage


async def test_the_usage_chunk_is_taken_out_for_a_client_that_did_not_ask(upstream: RunningUpstream) -> None:
    async with calling(upstream, "") as caller:
        assert all(event["choices"] and not event.get("usage") for event in events(await caller.stream()))


async def test_the_usage_chunk_carries_the_cost_for_a_client_that_asked(upstream: RunningUpstream) -> None:
    async with calling(upstream, "") as caller:
        frames = await caller.stream(stream_options={"include_usage": True})
        last = events(frames)[-1]
        assert last["choices"] == []
        assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (2, 4)
        assert last["headgate"] == {"cost_usd": "0.00000001"}
        assert frames[-1].strip() == b"data: [DONE]"


async def test_the_cost_in_the_stream_includes_attempts_that_failed(upstream: RunningUpstream) -> None:
    async with calling(upstream, "cut=0", "") as caller:
        last = events(await caller.stream(stream_options={"include_usage": True}))[-1]
        assert caller.log.attempts[0].cost_nano_usd > 0
        assert last["headgate"]["cost_usd"] == usd_text(caller.log.cost_nano_usd)


@pytest.mark.parametrize("script", ["usage=cumulative", "usage=last", "usage=finish", "usage=extra"])
async def test_usage_is_found_wherever_it_is_and_never_summed(upstream: RunningUpstream, script: str) -> None:
    async with calling(upstream, script) as caller:
        assert text_of(await caller.stream()) == ANSWER
        assert (caller.only.usage, caller.only.usage_source) == (REPORTED, "reported")


async def test_cached_tokens_are_reported_on(upstream: RunningUpstream) -> None:
    async with calling(upstream, "prompt=100;cached=90") as caller:
        await caller.stream()
        assert caller.only.usage == Usage(100, 4, cached_input_tokens=90)


async def test_a_stream_without_usage_is_billed_by_its_frames_or_its_bytes(upstream: RunningUpstream) -> None:
    async with calling(upstream, "usage=none") as caller:
        frames = await caller.stream()
        assert caller.only.usage == Usage(chat().estimated_input_tokens(), tokens_in(frames))
        assert caller.only.usage_source == "estimated"


async def test_an_upstream_that_refuses_the_usage_field_is_not_sent_it_where_the_deployment_says_so(
    upstream: RunningUpstream,
) -> None:
    async with calling(upstream, "usage=refuse") as caller:
        assert isinstance(await caller.refused(stream=True), InvalidRequest)
        caller.deployments["d0"].ask_usage = False
        assert text_of(await caller.stream()) == ANSWER
        assert caller.log.attempts[-1].usage_source == "estimated"
        sightings = await seen(upstream)
        assert "stream_options" not in sightings[-1]["body"]


async def test_a_plain_answer_without_usage_is_billed_by_its_bytes(upstream: RunningUpstream) -> None:
    async with calling(upstream, "usage=none") as caller:
        await caller.ask()
        assert caller.only.usage == Usage(chat().estimated_input_tokens(), 7)
        assert caller.only.usage_source == "estimated"


@pytest.mark.parametrize(("script", "fields"), [("", {"n": 3}), ("tools=3", {})])
async def test_a_plain_answer_without_usage_is_billed_for_all_that_it_holds(
    upstream: RunningUpstream, script: str, fields: dict[str, Any]
) -> None:
    async with calling(upstream, f"usage=none;{script}") as caller:
        (body,) = await caller.ask(**fields)
        messages = [choice["message"] for choice in json.loads(body)["choices"]]
        calls = [call["function"] for message in messages for call in message.get("tool_calls") or []]
        texts = [message["content"] or "" for message in messages]
        texts += [call["name"] + call["arguments"] for call in calls]
        assert len("".join(texts)) > len(ANSWER)
        assert caller.only.usage is not None
        assert caller.only.usage.output_tokens == -(-len("".join(texts).encode()) // 3)


# Failures before the first byte


BEFORE_THE_FIRST_BYTE = [
    ("status=500", AttemptOutcome.REFUSED),
    ("status=503", AttemptOutcome.REFUSED),
    ("status=429", AttemptOutcome.REFUSED),
    ("status=401", AttemptOutcome.REFUSED),
    ("status=403", AttemptOutcome.REFUSED),
    ("status=404", AttemptOutcome.REFUSED),
    ("status=302", AttemptOutcome.REFUSED),
    ("status=502;body=html", AttemptOutcome.REFUSED),
    ("status=500;gzip=broken", AttemptOutcome.REFUSED),
    ("status=500;drip=1;drip_gap=60000", AttemptOutcome.REFUSED),
    ("close=headers", AttemptOutcome.FAILED),
    ("reset=headers", AttemptOutcome.FAILED),
    ("wire=garbage", AttemptOutcome.FAILED),
    ("wire=bigheader", AttemptOutcome.FAILED),
]
STREAM_ONLY = [
    ("cut=0", AttemptOutcome.BROKEN_OFF),
    ("cut=0;role=0", AttemptOutcome.BROKEN_OFF),
    ("close=0", AttemptOutcome.BROKEN_OFF),
    ("reset=0", AttemptOutcome.BROKEN_OFF),
    ("error=0", AttemptOutcome.BROKEN_OFF),
    ("malformed=0", AttemptOutcome.BROKEN_OFF),
    ("gzip=broken", AttemptOutcome.BROKEN_OFF),
    ("huge=20000000", AttemptOutcome.BROKEN_OFF),
    ("gzip=on;huge=50000000", AttemptOutcome.BROKEN_OFF),
    ("type=text/plain", AttemptOutcome.FAILED),
    ("body=json", AttemptOutcome.FAILED),
    ("body=html", AttemptOutcome.FAILED),
]
PLAIN_ONLY = [
    ("close=0", AttemptOutcome.BROKEN_OFF),
    ("reset=0", AttemptOutcome.BROKEN_OFF),
    ("gzip=broken", AttemptOutcome.BROKEN_OFF),
    ("error=0", AttemptOutcome.FAILED),
    ("malformed=0", AttemptOutcome.FAILED),
    ("body=html", AttemptOutcome.FAILED),
    ("body=text", AttemptOutcome.FAILED),
    ("body=empty", AttemptOutcome.FAILED),
    ("body=array", AttemptOutcome.FAILED),
    ("body=nochoices", AttemptOutcome.FAILED),
    ("body=sse", AttemptOutcome.FAILED),
]


@pytest.mark.parametrize(("script", "outcome"), BEFORE_THE_FIRST_BYTE + STREAM_ONLY)
async def test_a_stream_that_fails_before_its_first_byte_is_answered_by_the_next_deployment(
    upstream: RunningUpstream, script: str, outcome: AttemptOutcome
) -> None:
    async with calling(upstream, script, "") as caller:
        frames = await caller.stream()
        assert (text_of(frames), count_done(frames)) == (ANSWER, 1)
        assert caller.outcomes == [outcome, AttemptOutcome.COMPLETE]
        assert [attempt.n for attempt in caller.log.attempts] == [1, 2]
        assert caller.log.attempts[0].error


@pytest.mark.parametrize(("script", "outcome"), BEFORE_THE_FIRST_BYTE + PLAIN_ONLY)
async def test_a_plain_answer_that_fails_is_given_by_the_next_deployment(
    upstream: RunningUpstream, script: str, outcome: AttemptOutcome
) -> None:
    async with calling(upstream, script, "") as caller:
        (body,) = await caller.ask()
        assert json.loads(body)["choices"][0]["message"]["content"] == ANSWER
        assert caller.outcomes == [outcome, AttemptOutcome.COMPLETE]


@pytest.mark.parametrize("stream", [True, False])
async def test_broken_framing_falls_back(upstream: RunningUpstream, stream: bool) -> None:
    async with calling(upstream, "badchunk=0;ttft=50", "") as caller:
        await caller.ask(stream=stream)
        failed, complete = caller.outcomes  # whether it failed or broke off depends on how the bytes came
        assert failed in (AttemptOutcome.FAILED, AttemptOutcome.BROKEN_OFF)
        assert complete is AttemptOutcome.COMPLETE


async def test_a_refused_connection_falls_back(upstream: RunningUpstream) -> None:
    async with calling_first(upstream, f"http://127.0.0.1:{unused_port()}/v1") as caller:
        assert text_of(await caller.stream()) == ANSWER
        first = caller.log.attempts[0]
        assert (first.outcome, first.usage, first.cost_nano_usd) == (AttemptOutcome.FAILED, None, 0)
        assert first.error == "the deployment cannot be reached"


async def test_a_server_without_tls_falls_back(upstream: RunningUpstream) -> None:
    async with calling_first(upstream, upstream.base_url.replace("http:", "https:")) as caller:
        assert text_of(await caller.stream()) == ANSWER
        assert caller.outcomes == [AttemptOutcome.FAILED, AttemptOutcome.COMPLETE]


async def test_an_engine_that_is_not_running_falls_back(upstream: RunningUpstream) -> None:
    async with calling_first(upstream, None) as caller:
        assert text_of(await caller.stream()) == ANSWER
        assert caller.log.attempts[0].usage_source == "none"


async def test_a_connection_that_dies_between_two_requests_is_no_failure(upstream: RunningUpstream) -> None:
    async with calling(upstream, "drop=next", "") as caller:
        await caller.stream()
        assert text_of(await caller.stream()) == ANSWER
        assert [attempt.deployment for attempt in caller.log.attempts] == ["d0", "d0"]
        assert caller.outcomes == [AttemptOutcome.COMPLETE, AttemptOutcome.COMPLETE]


async def test_a_refusal_and_a_failure_cost_nothing(upstream: RunningUpstream) -> None:
    async with calling(upstream, "status=500", "close=headers", "") as caller:
        await caller.stream()
        assert [attempt.cost_nano_usd for attempt in caller.log.attempts] == [0, 0, 10]
        assert [attempt.http_status for attempt in caller.log.attempts] == [500, None, 200]
        assert [attempt.tier for attempt in caller.log.attempts] == ["tier-d0", "tier-d1", "tier-d2"]


async def test_a_failed_attempt_leaves_no_request_open(upstream: RunningUpstream) -> None:
    async with calling(upstream, "huge=20000000", "malformed=0;gap=50", "") as caller:
        await caller.stream()
        states = [sighting["state"] for sighting in await seen(upstream)]
        assert "open" not in states
        assert states[-1] == "complete"


@pytest.mark.parametrize("script", ["status=500", "status=502", "status=401", "close=headers", "cut=0", "error=0"])
async def test_without_another_deployment_the_client_gets_502(upstream: RunningUpstream, script: str) -> None:
    async with calling(upstream, script) as caller:
        assert isinstance(await caller.refused(stream=True), UpstreamFailed)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_request_that_upstream_finds_at_fault_is_not_tried_again(
    upstream: RunningUpstream, status: int
) -> None:
    async with calling(upstream, f"status={status}", "") as caller:
        error = await caller.refused(stream=True)
        assert isinstance(error, InvalidRequest)
        assert "scripted" in error.message
        assert (caller.only.outcome, caller.only.http_status) == (AttemptOutcome.REFUSED, status)
        assert caller.only.cost_nano_usd == 0


@pytest.mark.parametrize("script", ["body=html", "body=empty", "gzip=broken"])
async def test_a_refusal_without_a_readable_message_is_still_a_refusal(upstream: RunningUpstream, script: str) -> None:
    async with calling(upstream, f"status=400;{script}") as caller:
        error = await caller.refused()
        assert isinstance(error, InvalidRequest)
        assert error.message == "the deployment answered 400"


async def test_a_refusal_whose_message_never_ends_is_given_at_the_deadline(upstream: RunningUpstream) -> None:
    async with calling(upstream, "status=400;drip=1;drip_gap=60000") as caller:
        assert isinstance(await caller.refused(within(total_ms=300)), InvalidRequest)


@pytest.mark.parametrize(
    ("script", "retry_after_s"),
    [
        ("status=429;retry_after=7", 7.0),
        ("status=503;retry_after=0.5", 0.5),
        ("status=429", 1.0),
        ("status=429;retry_after=soon", 1.0),
        ("status=503;retry_after=inf", 1.0),
        ("status=503;retry_after=nan", 1.0),
        ("status=503;retry_after=-5", 1.0),
        ("status=503;retry_after=1e300", 86_400.0),
    ],
)
async def test_an_overloaded_upstream_is_unavailable_for_as_long_as_it_says(
    upstream: RunningUpstream, script: str, retry_after_s: float
) -> None:
    async with calling(upstream, script) as caller:
        error = await caller.refused()
        assert isinstance(error, Unavailable)
        assert error.retry_after_s == retry_after_s
        assert int(error.headers()["retry-after"]) >= 1


async def test_the_error_is_that_of_the_last_deployment_tried(upstream: RunningUpstream) -> None:
    async with calling(upstream, "status=429", "status=500") as caller:
        assert isinstance(await caller.refused(), UpstreamFailed)


# Failures after the first byte


@pytest.mark.parametrize("script", ["cut=2", "close=2", "reset=2", "badchunk=2", "error=2", "malformed=2", "done=0"])
async def test_a_stream_that_breaks_off_is_an_error_and_no_other_deployment_is_tried(
    upstream: RunningUpstream, script: str
) -> None:
    async with calling(upstream, f"gap=50;{script}", "") as caller:
        received, failure = await caller.cut()
        assert count_done(received) == 0
        assert ANSWER.startswith(text_of(received))
        assert isinstance(broken_off(failure), UpstreamFailed)
        assert caller.outcomes == [AttemptOutcome.BROKEN_OFF]
        assert caller.only.http_status == 200
        assert caller.live is not None
        assert caller.live.captured() is None


async def test_a_broken_stream_is_billed_by_what_arrived(upstream: RunningUpstream) -> None:
    async with calling(upstream, "gap=10;n=20;cut=12") as caller:
        received, _ = await caller.cut()
        input_tokens = chat().estimated_input_tokens()
        assert len(received) == 13
        assert caller.only.usage == Usage(input_tokens, tokens_in(received))
        assert caller.only.usage_source == "estimated"
        assert caller.only.cost_nano_usd == input_tokens + 2 * tokens_in(received)


async def test_usage_that_was_reported_before_the_break_is_what_counts(upstream: RunningUpstream) -> None:
    async with calling(upstream, "usage=cumulative;completion=20;gap=50;cut=2") as caller:
        await caller.cut()
        assert (caller.only.usage, caller.only.usage_source) == (Usage(2, 20), "reported")


# Deadlines


@pytest.mark.parametrize("script", [f"headers={LONG_MS}", f"ttft={LONG_MS}", "stall=headers", "stall=0"])
async def test_no_first_token_in_time_is_a_deadline_exceeded_and_no_second_try(
    upstream: RunningUpstream, script: str
) -> None:
    async with calling(upstream, script, "") as caller:
        error = await caller.refused(within(ttft_ms=300), stream=True)
        assert isinstance(error, DeadlineExceeded)
        assert "tier-d0" in error.message
        assert caller.outcomes == [AttemptOutcome.TIMED_OUT]
        assert caller.only.usage_source == "estimated"
    assert [sighting["state"] for sighting in await seen(upstream)] == ["disconnected"]


async def test_a_plain_answer_that_takes_too_long_is_a_deadline_exceeded(upstream: RunningUpstream) -> None:
    async with calling(upstream, f"ttft={LONG_MS}", "") as caller:
        assert isinstance(await caller.refused(within(total_ms=300)), DeadlineExceeded)
        assert caller.outcomes == [AttemptOutcome.TIMED_OUT]
    assert [sighting["disconnected"] for sighting in await seen(upstream)] == [True]


async def test_the_total_limit_holds_after_the_first_token(upstream: RunningUpstream) -> None:
    async with calling(upstream, "stall=2") as caller:
        received, failure = await caller.cut(within(total_ms=400))
        assert text_of(received) == "answer to:"[: len(text_of(received))]
        assert isinstance(broken_off(failure), DeadlineExceeded)
        assert caller.outcomes == [AttemptOutcome.TIMED_OUT]
    assert [sighting["state"] for sighting in await seen(upstream)] == ["disconnected"]


async def test_the_first_token_limit_ends_with_the_first_token(upstream: RunningUpstream) -> None:
    async with calling(upstream, "stall=1;stall_for=900") as caller:
        assert text_of(await caller.stream(within(ttft_ms=600))) == ANSWER


async def test_role_frames_alone_are_no_first_token(upstream: RunningUpstream) -> None:
    async with calling(upstream, f"role=3;ttft={LONG_MS}") as caller:
        assert isinstance(await caller.refused(within(ttft_ms=300), stream=True), DeadlineExceeded)
        assert caller.only.first_byte_ms is None


# Clients that leave


async def test_a_client_that_stops_reading_releases_the_upstream(upstream: RunningUpstream) -> None:
    async with calling(upstream, "n=1000;gap=20") as caller:
        received = []
        async with caller.open(chat(stream=True)) as live:
            async for chunk in live.chunks():
                received.append(chunk)
                if len(received) == 3:
                    break
        (sighting,) = await seen(upstream)
        assert (sighting["state"], sighting["chunks_sent"] < 1000) == ("disconnected", True)
        attempt = caller.only
        assert (attempt.outcome, attempt.http_status, attempt.error) == (AttemptOutcome.CLIENT_GONE, 200, None)
        assert attempt.usage_source == "estimated"
        assert attempt.usage is not None
        assert attempt.usage.output_tokens >= len(received)
        assert attempt.cost_nano_usd > 0
        assert live.captured() is None


async def test_a_cancelled_task_releases_the_upstream_while_it_waits_for_a_token(upstream: RunningUpstream) -> None:
    async with calling(upstream, "stall=2", "") as caller:
        relayed = asyncio.Event()

        async def relay() -> None:
            async with caller.open(chat(stream=True)) as live:
                async for chunk in live.chunks():
                    if b"to:" in chunk:
                        relayed.set()

        task = asyncio.create_task(relay())
        await relayed.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [sighting["state"] for sighting in await seen(upstream)] == ["disconnected"]
        assert caller.outcomes == [AttemptOutcome.CLIENT_GONE]
        assert caller.only.usage == Usage(chat().estimated_input_tokens(), 4)
        assert caller.registry["d0"].health.failures_in_a_row == 0


@pytest.mark.parametrize(("stream", "script"), [(True, "stall=headers"), (True, "stall=0"), (False, "stall=headers")])
async def test_a_client_that_leaves_before_the_first_byte_is_charged_for_the_prompt(
    upstream: RunningUpstream, stream: bool, script: str
) -> None:
    async with calling(upstream, script, "") as caller:
        task = asyncio.create_task(caller.ask(stream=stream))
        await arrived(upstream)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [sighting["state"] for sighting in await seen(upstream)] == ["disconnected"]
        attempt = caller.only
        assert (attempt.outcome, attempt.usage_source) == (AttemptOutcome.CLIENT_GONE, "estimated")
        assert attempt.usage is not None
        assert attempt.usage.input_tokens == chat().estimated_input_tokens()


async def test_a_client_that_leaves_a_plain_answer_is_charged_at_the_pace_of_the_deployment(
    upstream: RunningUpstream,
) -> None:
    async with calling(upstream, "stall=headers") as caller:
        caller.deployments["d0"].ms_per_output_token = 0.001
        task = asyncio.create_task(caller.ask())
        await arrived(upstream)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert caller.only.usage is not None
        assert caller.only.usage.output_tokens == caller.plan.steps[0].max_tokens


async def test_an_answer_that_was_read_to_its_end_is_complete_though_the_client_left(upstream: RunningUpstream) -> None:
    async with calling(upstream, "") as caller:
        async with caller.open(chat()) as live:
            async for _ in live.chunks():
                break
        assert caller.outcomes == [AttemptOutcome.COMPLETE]


# The registry behind it


async def test_the_breaker_opens_after_failures_in_a_row_and_closes_on_success(upstream: RunningUpstream) -> None:
    async with calling(upstream, f"status=500;times={FAILURES_TO_OPEN}") as caller:
        for _ in range(FAILURES_TO_OPEN - 1):
            assert isinstance(await caller.refused(), UpstreamFailed)
        assert caller.registry.readiness_of("d0") is Readiness.READY
        assert isinstance(await caller.refused(), Unavailable)
        assert caller.registry.readiness_of("d0") is Readiness.DOWN
        await caller.ask()
        assert caller.registry.readiness_of("d0") is Readiness.READY


async def test_streams_that_break_off_open_the_breaker_too(upstream: RunningUpstream) -> None:
    async with calling(upstream, "gap=50;cut=2") as caller:
        for _ in range(FAILURES_TO_OPEN):
            await caller.cut()
        assert caller.registry.readiness_of("d0") is Readiness.DOWN


async def test_deadlines_too_tight_for_any_deployment_do_not_open_the_breaker(upstream: RunningUpstream) -> None:
    async with calling(upstream, "ttft=300") as caller:
        for stream in (True, False) * FAILURES_TO_OPEN:
            assert isinstance(await caller.refused(within(total_ms=30), stream=stream), DeadlineExceeded)
        assert caller.registry.readiness_of("d0") is Readiness.READY
        await caller.stream()


async def test_a_loading_deployment_is_waited_for(upstream: RunningUpstream) -> None:
    async with calling(upstream, "") as caller:
        states = [Readiness.LOADING, Readiness.LOADING, Readiness.READY]
        caller.deployments["d0"].readiness = lambda: states.pop(0) if len(states) > 1 else states[0]
        assert text_of(await caller.stream(within(ttft_ms=30_000))) == ANSWER


async def test_a_deployment_that_does_not_load_in_time_is_unavailable_and_no_failure(upstream: RunningUpstream) -> None:
    async with calling(upstream, "") as caller:
        caller.deployments["d0"].readiness = lambda: Readiness.LOADING
        caller.deployments["d0"].retry_after_s = lambda: 4.0
        error = await caller.refused(within(ttft_ms=1), stream=True)
        assert isinstance(error, Unavailable)
        assert error.retry_after_s == 4.0
        assert (caller.only.cost_nano_usd, caller.only.usage_source) == (0, "none")
        assert caller.registry["d0"].health.failures_in_a_row == 0
    assert await seen(upstream) == []


async def test_what_a_complete_answer_taught_is_in_the_next_snapshot(upstream: RunningUpstream) -> None:
    async with calling(upstream, "completion=1000") as caller:
        await caller.stream()
        assert caller.registry.snapshot().deployments["d0"].expected_output_tokens > 256
        assert caller.deployments["d0"].ms_per_output_token is not None
