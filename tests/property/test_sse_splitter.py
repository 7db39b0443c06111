"""However a byte stream is cut, the same frames come out, and no byte is lost."""

from contextlib import suppress
from itertools import pairwise

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backends.sse import FrameSplitter, data_of, is_done, may_carry_error, may_carry_usage, parse_completion

WIRE = st.lists(
    st.sampled_from(
        [b"data", b": ", b":", b"a", "é😀".encode(), b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"[DONE]", b": ping"]
    ),
    max_size=60,
).map(b"".join)
TEXT = st.text(max_size=20)


def cut(wire: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(wire) + 1) for place in places), len(wire)]
    return [wire[start:end] for start, end in pairwise(edges)]


def split(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    splitter = FrameSplitter()
    return [frame for piece in pieces for frame in splitter.feed(piece)], splitter.pending


@settings(deadline=None)
@given(WIRE, st.lists(st.integers(0, 10_000), max_size=20))
@example(b"a\r\n\r\nb\r\r\n\n", [1, 2, 3, 4, 5, 6, 7, 8])
def test_any_cut_of_a_stream_yields_the_same_frames(wire: bytes, places: list[int]) -> None:
    assert split(cut(wire, places)) == split([wire])


@settings(deadline=None)
@given(WIRE)
def test_a_stream_fed_byte_by_byte_yields_the_same_frames(wire: bytes) -> None:
    assert split([wire[n : n + 1] for n in range(len(wire))]) == split([wire])


@settings(deadline=None)
@given(WIRE)
def test_no_byte_is_lost_or_invented(wire: bytes) -> None:
    frames, pending = split([wire])
    assert b"".join(frames) + pending == wire


@settings(deadline=None)
@given(st.lists(TEXT, max_size=10), st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 10_000), max_size=9))
def test_content_comes_out_as_it_went_in(texts: list[str], eol: str, places: list[int]) -> None:
    encoded = [msgspec.json.encode({"choices": [{"delta": {"content": text}}]}) for text in texts]
    end = eol.encode()
    frames, pending = split(cut(b"".join(b"data: " + data + end + end for data in encoded), places))
    assert pending == b""
    assert [parse_completion(data_of(frame)).content for frame in frames] == texts


@settings(deadline=None)
@given(TEXT)
def test_no_text_of_an_answer_looks_like_the_end_or_an_error_event(text: str) -> None:
    frame = (
        b"data: " + msgspec.json.encode({"choices": [{"delta": {"content": text + "[DONE] event: error"}}]}) + b"\n\n"
    )
    assert not is_done(frame)
    assert not may_carry_error(frame)
    assert not may_carry_usage(frame)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_make_the_parsers_fail_with_anything_but_a_decode_error(noise: bytes) -> None:
    is_done(noise)
    with suppress(msgspec.DecodeError):
        parse_completion(data_of(noise))
