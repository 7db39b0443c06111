"""Frames that pass as they arrive are judged as those that a reader takes one by one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from backends.frames import Frames
from backends.protocol import AttemptError
from backends.sse import FrameSplitter

WORD = b'data: {"choices":[{"index":0,"delta":{"content":"w"}}]}'
LINES = [
    WORD,
    b'data: {"choices":[{"index":0,"delta":{"content":"an \\"error\\" and \\"usage\\""}}]}',
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
    b'data: {"choices":[{"index":0,"delta":{"content":"w"}}],"usage":null}',
    b'data: {"error":{"message":"no"}}',
    b"event: error\n" + WORD,
    b": ping",
    b"data: [DONE]",
    b'data: {"a":1}\ndata: {"b":2}',
    b"data: {broken",
    b"",
]
ENDS = st.sampled_from([b"\n\n", b"\n\n", b"\n\n", b"\r\n\r\n", b"\n\r\n", b"\r\r", b"\n"])
WIRE = st.lists(st.tuples(st.sampled_from(LINES), ENDS), max_size=12).map(lambda parts: b"".join(map(b"".join, parts)))


def state(frames: Frames) -> tuple[object, ...]:
    return frames.produced_tokens(), frames.paced_tokens, frames.reported, frames.is_report_last, frames.whole()


def taken(frames: Frames, wire: bytes) -> list[bytes | None]:
    """Take all frames of `wire` one by one, up to an error, whose place is noted."""
    relayed: list[bytes | None] = []
    for frame in FrameSplitter().feed(wire):
        try:
            relayed.append(frames.take(frame))
        except AttemptError as failure:
            return [*relayed, failure.message.encode()]
    return relayed


@settings(deadline=None)
@given(WIRE, st.booleans())
def test_what_passes_and_the_rest_come_to_what_a_reader_would_have_taken(wire: bytes, counts_text: bool) -> None:
    passing, reading = (Frames(include_usage=True, counts_text=counts_text) for _ in range(2))
    passed = passing.take_plain(wire)
    rest = wire[sum(map(len, passed)) :]
    assert b"".join(passed) + rest == wire
    assert [*passed, *taken(passing, rest)] == taken(reading, wire)
    assert state(passing) == state(reading)


def test_several_frames_of_one_read_pass_up_to_the_first_that_matters() -> None:
    plain, done = WORD + b"\n\n", b"data: [DONE]\n\n"
    frames = Frames(include_usage=True, counts_text=False)
    assert frames.take_plain(plain * 3 + done + plain) == [plain] * 3
    assert frames.take_plain(plain[:-1]) == []
