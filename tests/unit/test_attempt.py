"""One answer, read from bytes that an upstream might send, without a socket between."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from backends.attempt import LAST_READS, LiveAnswer
from backends.deployment import Deployment
from backends.frames import MAX_KEPT_BYTES
from backends.opened import Opened
from backends.protocol import AttemptError, Iterated, UpstreamCall, UpstreamResponse
from core.chat import parse_chat_request
from core.clock import ManualClock
from core.deadline import Deadline
from core.money import Price, Usage
from core.plan import PlannedStep
from core.time_limit import TimeLimit
from core.trace import AttemptOutcome

NEVER = Deadline(None, None)
CALL = UpstreamCall("/chat/completions", b"{}", "req_1")
DONE = b"data: [DONE]\n\n"


def frame(content: str | None = None, **fields: Any) -> bytes:
    choices = [] if content is None else [{"index": 0, "delta": {"content": content}}]
    return b"data: " + msgspec.json.encode({"model": "m", "choices": choices, **fields}) + b"\n\n"


class Bytes:
    """A backend that sends the given pieces, and moves the clock before each one."""

    def __init__(self, pieces: Iterable[bytes], clock: ManualClock, step_s: float = 0.0) -> None:
        self._pieces = pieces
        self._clock = clock
        self._step_s = step_s
        self.left = False
        self.read_to_end = False

    @asynccontextmanager
    async def open(self, call: UpstreamCall, deadline: Deadline) -> AsyncIterator[UpstreamResponse]:
        try:
            yield UpstreamResponse("text/event-stream", Iterated(self._chunks()))
        finally:
            self.left = True

    async def close(self) -> None:
        self.left = True

    async def _chunks(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            self._clock.advance(self._step_s)
            yield piece
        self.read_to_end = True


def an_answer(backend: Bytes) -> tuple[LiveAnswer, Deployment]:
    """A streamed answer of a deployment behind `backend`, not yet begun."""
    deployment = Deployment("s1", "m", Price(1_000, 1_000), backend)
    body = b'{"model": "auto", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
    step = PlannedStep("s1", "small", 10, None, 0, 0)
    return LiveAnswer(1, step, deployment, parse_chat_request(body, "req_1"), NEVER, ManualClock(), 0.0), deployment


async def read(
    *pieces: bytes, step_s: float = 0.0, include_usage: bool = False
) -> tuple[LiveAnswer, list[bytes], AttemptError | None]:
    """Read a streamed answer to its end; what was relayed is kept when it breaks off."""
    clock = ManualClock()
    backend = Bytes(list(pieces), clock, step_s)
    deployment = Deployment("s1", "m", Price(1_000, 1_000), backend)
    fields = {"stream": True, "stream_options": {"include_usage": include_usage}}
    body = msgspec.json.encode({"model": "auto", "messages": [{"role": "user", "content": "hi"}], **fields})
    step = PlannedStep("s1", "small", 10, None, 0, 0)
    answer = LiveAnswer(1, step, deployment, parse_chat_request(body, "req_1"), NEVER, clock, 0.0)
    relayed: list[bytes] = []
    try:
        async with Opened(answer, deployment, CALL, NEVER):
            async for chunk in answer.chunks():
                relayed.append(chunk)
    except AttemptError as failure:
        return answer, relayed, failure
    finally:
        assert backend.left, "the connection is released however the answer ends"
    return answer, relayed, None


async def test_an_answer_in_one_piece_is_relayed_up_to_done() -> None:
    answer, relayed, failure = await read(frame("a") + frame("b") + DONE + DONE + frame("c"))
    assert relayed == [frame("a"), frame("b"), DONE]
    assert failure is None
    assert answer.record().outcome is AttemptOutcome.COMPLETE


async def test_an_error_after_done_is_not_looked_at() -> None:
    answer, _, failure = await read(frame("a") + DONE + b'data: {"error": {"message": "late"}}\n\n')
    assert (failure, answer.complete) == (None, True)


async def test_what_follows_done_is_neither_relayed_nor_looked_at() -> None:
    _, relayed, failure = await read(frame("a"), DONE, b"data: broken")
    assert (relayed, failure) == ([frame("a"), DONE], None)


@pytest.mark.parametrize(("pieces", "read_to_end"), [([frame("a"), DONE], True), ([frame("a"), frame("b")], False)])
async def test_a_complete_stream_is_read_to_its_end_so_that_its_connection_lives(
    pieces: list[bytes], read_to_end: bool
) -> None:
    backend = Bytes(pieces, ManualClock())
    answer, deployment = an_answer(backend)
    async with Opened(answer, deployment, CALL, NEVER):
        chunks = answer.chunks()
        for piece in pieces:
            assert await anext(chunks) == piece
        assert not backend.read_to_end
    assert backend.read_to_end is read_to_end


async def test_an_upstream_that_sends_on_after_done_is_left() -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield frame("a") + DONE
        while True:
            sent += 1
            yield frame("more")

    answer, deployment = an_answer(Bytes(endless(), ManualClock()))
    async with Opened(answer, deployment, CALL, NEVER):
        assert [chunk async for chunk in answer.chunks()] == [frame("a"), DONE]
        assert sent == 0
    assert 0 < sent <= LAST_READS


async def test_comments_and_other_events_pass_and_cost_nothing() -> None:
    ping = b": ping\n\n"
    answer, relayed, _ = await read(ping, frame("a"), ping, b"event: x\n\n", DONE)
    assert relayed == [ping, frame("a"), ping, b"event: x\n\n", DONE]
    assert answer.usage is not None
    assert answer.usage.output_tokens == 1


async def test_an_event_named_error_breaks_off_whatever_it_holds() -> None:
    _, relayed, failure = await read(frame("a"), b'event: error\ndata: {"detail": "boom"}\n\n', DONE)
    assert relayed == [frame("a")]
    assert failure is not None
    assert failure.outcome is AttemptOutcome.BROKEN_OFF


@pytest.mark.parametrize(
    "broken",
    [
        b"data: nonsense\n\n",
        b'data: {"half": \n\n',
        b'data: {"usage": {"prompt_tokens": }}\n\n',
        b'data: {"usage": {}, "choices": [{"delta": {"content": "\xff"}}]}\n\n',
    ],
)
async def test_a_frame_that_cannot_be_an_event_breaks_off(broken: bytes) -> None:
    answer, relayed, failure = await read(frame("a"), broken, frame("b"), DONE)
    assert relayed == [frame("a")]
    assert failure is not None
    assert failure.outcome is AttemptOutcome.BROKEN_OFF
    assert answer.captured() is None


async def test_an_answer_with_a_frame_that_only_looks_like_json_is_not_kept() -> None:
    answer, _, failure = await read(frame("a"), b'data: {"choices": oops}\n\n', DONE)
    assert (failure, answer.complete) == (None, True)
    assert answer.captured() is None


async def test_an_answer_that_ends_without_content_failed() -> None:
    answer, relayed, failure = await read(frame(), DONE)
    assert relayed == []
    assert failure is not None
    assert answer.record().outcome is AttemptOutcome.BROKEN_OFF


async def test_what_is_kept_is_the_text_with_its_model_and_reason() -> None:
    last = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
    answer, _, _ = await read(frame("na\u00efve "), frame("text"), last, DONE)
    captured = answer.captured()
    assert captured is not None
    assert (captured.content, captured.model, captured.finish_reason) == ("na\u00efve text", "m", "stop")
    assert captured.plain


async def test_content_in_parts_passes_and_is_not_plain() -> None:
    parts = b'data: {"choices": [{"delta": {"content": [{"type": "text", "text": "a"}]}}]}\n\n'
    answer, relayed, _ = await read(parts, DONE)
    assert relayed == [parts, DONE]
    captured = answer.captured()
    assert captured is not None
    assert not captured.plain


async def test_an_answer_beyond_the_limit_is_relayed_and_not_kept() -> None:
    piece = frame("x" * 100_000)
    answer, relayed, _ = await read(*[piece] * (MAX_KEPT_BYTES // 100_000 + 1), DONE)
    assert relayed.count(piece) == MAX_KEPT_BYTES // 100_000 + 1
    assert answer.complete
    assert answer.captured() is None


async def test_the_last_of_several_usages_counts() -> None:
    usages = [{"prompt_tokens": 5, "completion_tokens": n} for n in (1, 2, 3)]
    answer, relayed, _ = await read(*[frame("a", usage=usage) for usage in usages], frame(usage=usages[-1]), DONE)
    assert answer.record().usage == Usage(5, 3)
    assert len(relayed) == 4


async def test_a_usage_that_is_not_whole_does_not_replace_one_that_is() -> None:
    whole = frame("a", usage={"prompt_tokens": 5, "completion_tokens": 1})
    answer, _, _ = await read(whole, frame("b", usage={"prompt_tokens": None, "completion_tokens": 9}), DONE)
    assert answer.record().usage == Usage(5, 1)


async def test_a_stream_without_a_report_is_billed_by_its_bytes_where_frames_hold_many_tokens() -> None:
    answer, _, _ = await read(frame("\u00e9" * 300), DONE)
    assert answer.usage is not None
    assert answer.usage.output_tokens == 200


async def test_all_choices_and_tool_calls_of_a_stream_are_billed() -> None:
    call = {"index": 0, "id": "call_1", "function": {"name": "n" * 10, "arguments": "a" * 80}}
    deltas: list[dict[str, object]] = [{"content": "c" * 90}, {"tool_calls": [call]}, {"reasoning_content": "r" * 90}]
    choices = [{"index": index, "delta": delta} for index, delta in enumerate(deltas)]
    answer, _, _ = await read(b"data: " + msgspec.json.encode({"choices": choices}) + b"\n\n", DONE)
    assert answer.usage is not None
    assert answer.usage.output_tokens == 90


async def test_what_was_too_long_to_keep_is_billed_like_what_was_kept() -> None:
    count = 2 * MAX_KEPT_BYTES // 30_000
    answer, _, _ = await read(*[frame("x" * 30_000)] * count, DONE)
    assert answer.usage is not None
    assert answer.usage.output_tokens == pytest.approx(count * 10_000, rel=0.01)


async def test_a_report_at_the_start_of_a_stream_that_breaks_off_does_not_count_as_the_whole() -> None:
    first = frame("a", usage={"prompt_tokens": 5, "completion_tokens": 0})
    answer, _, failure = await read(first, *[frame("b")] * 7)
    assert failure is not None
    attempt = answer.record()
    assert (attempt.usage, attempt.usage_source) == (Usage(5, 8), "estimated")


async def test_the_report_at_the_end_counts_though_done_never_came() -> None:
    last = frame(usage={"prompt_tokens": 5, "completion_tokens": 3})
    answer, _, failure = await read(*[frame("b")] * 7, last)
    assert failure is not None
    attempt = answer.record()
    assert (attempt.usage, attempt.usage_source) == (Usage(5, 3), "reported")


async def test_the_usage_chunk_keeps_what_it_carries_and_gains_the_cost() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "x": 1.50}
    _, relayed, _ = await read(frame("a"), frame(usage=usage, service_tier="flex"), DONE, include_usage=True)
    said = msgspec.json.decode(relayed[1].removeprefix(b"data: "))
    assert said["usage"] == usage
    assert (said["service_tier"], said["headgate"]) == ("flex", {"cost_usd": "0.000000006"})


async def test_times_count_from_when_the_request_was_received() -> None:
    answer, _, _ = await read(frame("a"), frame("b"), DONE, step_s=0.5)
    attempt = answer.record()
    assert (attempt.started_ms, attempt.first_byte_ms, attempt.ended_ms) == (0.0, 500.0, 1500.0)


def test_an_attempt_that_was_never_sent_costs_nothing_and_has_no_status() -> None:
    clock = ManualClock()
    deployment = Deployment("s1", "m", Price(1_000, 1_000), Bytes([], clock))
    request = parse_chat_request(b'{"model": "a", "messages": [{"role": "user", "content": "hi"}]}', "req_1")
    step = PlannedStep("s1", "small", 10, None, 0, 0)
    attempt = LiveAnswer(1, step, deployment, request, NEVER, clock, 0.0).record()
    assert (attempt.outcome, attempt.http_status) == (AttemptOutcome.CLIENT_GONE, None)
    assert (attempt.usage, attempt.usage_source, attempt.cost_nano_usd) == (None, "none", 0)


class Flowing:
    """A body that a test feeds, past its reader where somebody takes it, and the outlet that takes it."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.take: Callable[[bytes], int] | None = None
        self.limits_s: list[float] = []
        self.sent: list[list[bytes]] = []
        self.keeps_up = True

    @asynccontextmanager
    async def open(self, call: UpstreamCall, deadline: Deadline) -> AsyncIterator[UpstreamResponse]:
        yield UpstreamResponse("text/event-stream", self, flow=self)

    async def close(self) -> None:
        raise AssertionError("nobody closes the backend here")

    def arrived(self) -> bytes | None:
        return b""

    async def next(self, limit_s: float | None) -> bytes | None:
        with TimeLimit(limit_s):
            return await self._arrived.get()

    def flow_to(self, take: Callable[[bytes], int] | None) -> None:
        self.take = take

    def limit(self, limit_s: float) -> None:
        self.limits_s.append(limit_s)

    def is_ready(self) -> bool:
        return self.keeps_up

    def send(self, frames: Sequence[bytes]) -> None:
        self.sent.append(list(frames))

    def arrives(self, data: bytes) -> None:
        """Do as a connection does: what nobody takes is for the reader."""
        taken = 0 if self.take is None else self.take(data)
        if taken < len(data):
            self._arrived.put_nowait(data[taken:])


@asynccontextmanager
async def begun(body: Flowing, deadline: Deadline = NEVER) -> AsyncIterator[LiveAnswer]:
    """Open a streamed answer whose first frame has arrived."""
    deployment = Deployment("s1", "m", Price(1_000, 1_000), body)
    asked = b'{"model": "auto", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
    step = PlannedStep("s1", "small", 10, None, 0, 0)
    answer = LiveAnswer(1, step, deployment, parse_chat_request(asked, "req_1"), deadline, ManualClock(), 0.0)
    body.arrives(frame("a"))
    async with Opened(answer, deployment, CALL, deadline):
        assert await answer.next() == frame("a")
        yield answer


async def test_plain_frames_pass_the_reader_in_their_order_and_count_as_read() -> None:
    body = Flowing()
    async with begun(body) as answer:
        answer.flow_to(body)
        reading = asyncio.create_task(answer.next())
        await asyncio.sleep(0)
        body.arrives(frame("b") + frame("c"))
        body.arrives(frame("d") + DONE)
        assert await reading == DONE
        answer.flow_to(None)
        assert body.take is None
        body.arrives(b"")
        captured = answer.captured()
    assert body.sent == [[frame("b"), frame("c")], [frame("d")]]
    assert captured is not None
    assert captured.content == "abcd"
    assert answer.record().outcome is AttemptOutcome.COMPLETE


async def test_nothing_passes_to_a_client_that_does_not_keep_up_nor_behind_half_a_frame() -> None:
    body = Flowing()
    async with begun(body) as answer:
        answer.flow_to(body)
        body.keeps_up = False
        body.arrives(frame("b") + frame("c")[:9])
        body.keeps_up = True
        assert await answer.next() == frame("b")
        reading = asyncio.create_task(answer.next())
        await asyncio.sleep(0)
        body.arrives(frame("c")[9:])
        assert await reading == frame("c")
        answer.flow_to(None)
    assert body.sent == []


async def test_an_error_ends_the_answer_behind_what_passed() -> None:
    body = Flowing()
    async with begun(body) as answer:
        answer.flow_to(body)
        body.arrives(frame("b") + b'data: {"error": {"message": "overloaded"}}\n\n')
        with pytest.raises(AttemptError, match="overloaded"):
            await answer.next()
    assert body.sent == [[frame("b")]]


async def test_what_passes_renews_the_limit_on_silence() -> None:
    body = Flowing()
    async with begun(body, Deadline(None, None, idle_s=2.5)) as answer:
        answer.flow_to(body)
        body.arrives(frame("b"))
        assert (body.sent, body.limits_s) == ([[frame("b")]], [2.5])


async def test_frames_that_came_in_one_read_can_leave_together() -> None:
    body = Flowing()
    async with begun(body) as answer:
        body.arrives(frame("b") + frame("c") + frame("d") + DONE)
        assert await answer.next() == frame("b")
        assert answer.at_hand() == [frame("c"), frame("d")], "the last one is read first"
        assert await answer.next() == DONE
