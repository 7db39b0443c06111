"""Where a frame ends, what a frame says, and which frames are looked at."""

import json
from typing import Any

import msgspec
import pytest

from backends.sse import (
    FrameSplitter,
    FrameTooLargeError,
    data_of,
    is_done,
    may_carry_error,
    may_carry_usage,
    parse_completion,
)
from core.money import Usage


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return json.dumps({"model": "m", "choices": choices, **fields}).encode()


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_every_kind_of_blank_line_ends_a_frame(end: bytes) -> None:
    assert FrameSplitter().feed(b"data: a" + end + b"data: b" + end) == [b"data: a" + end, b"data: b" + end]


@pytest.mark.parametrize("end", [b"\n\r\n", b"\r\n\n"])
def test_line_ends_of_two_kinds_end_a_frame(end: bytes) -> None:
    frames = FrameSplitter().feed(b"data: a" + end + b"data: b" + end)
    assert [data_of(frame) for frame in frames] == [b"a", b"b"]


def test_a_frame_waits_for_its_end() -> None:
    splitter = FrameSplitter()
    assert splitter.feed(b"data: a\n") == []
    assert splitter.pending == b"data: a\n"
    assert splitter.feed(b"\ndata: b") == [b"data: a\n\n"]
    assert splitter.pending == b"data: b"


def test_a_split_crlf_does_not_end_a_frame_early() -> None:
    splitter = FrameSplitter()
    assert splitter.feed(b"data: a\r") == []
    assert splitter.feed(b"\ndata: b\r\n\r") == []
    assert splitter.feed(b"\n") == [b"data: a\r\ndata: b\r\n\r\n"]


def test_a_frame_without_an_end_is_refused_at_the_limit() -> None:
    splitter = FrameSplitter(max_frame_bytes=10)
    assert splitter.feed(b"0123456789") == []
    with pytest.raises(FrameTooLargeError):
        splitter.feed(b"0")


def test_many_small_frames_do_not_count_as_one_large_frame() -> None:
    assert len(FrameSplitter(max_frame_bytes=10).feed(b"data: a\n\n" * 1000)) == 1000


@pytest.mark.parametrize(
    ("frame", "data"),
    [
        (b"data: a\n\n", b"a"),
        (b"data:a\n\n", b"a"),
        (b"data\n\n", b""),
        (b"data:  a \r\n\r\n", b"a"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"data: a\rdata: b\r\r", b"a\nb"),
        (b"event: x\r\ndata: a\r\nid: 1\r\n\r\n", b"a"),
        (b": data: a\n\n", b""),
        (b"database: a\n\n", b""),
        (b"metadata: a\n\n", b""),
        (b'data: {"text": "data: x"}\n\n', b'{"text": "data: x"}'),
        (b"\n\n", b""),
        ("data: naïve 😀\n\n".encode(), "naïve 😀".encode()),
    ],
)
def test_the_data_of_a_frame(frame: bytes, data: bytes) -> None:
    assert data_of(frame) == data


@pytest.mark.parametrize(
    ("frame", "done"),
    [
        (b"data: [DONE]\n\n", True),
        (b"data:[DONE]\r\n\r\n", True),
        (b": ping\ndata: [DONE]\n\n", True),
        (b'data: {"content": "[DONE]"}\n\n', False),
        (b": [DONE]\n\n", False),
    ],
)
def test_done_is_the_whole_data(frame: bytes, done: bool) -> None:
    assert is_done(frame) is done


@pytest.mark.parametrize(
    ("data", "may"),
    [
        (b'{"usage": {"prompt_tokens": 1}}', True),
        (b'{"choices": []}', False),
        (b'{"usage": null}', False),
        (b'{"usage" : null , "x": 1}', False),
        (b'{"usage": null, "x": {"usage": {}}}', True),
        (b'{"content": "the \\"usage\\" of it"}', False),
    ],
)
def test_usage_is_found_by_its_bytes(data: bytes, may: bool) -> None:
    assert may_carry_usage(b"data: " + data + b"\n\n") is may


@pytest.mark.parametrize(
    ("frame", "may"),
    [
        (b'data: {"error": {"message": "m"}}\n\n', True),
        (b"event: error\ndata: {}\n\n", True),
        (b"event:error\ndata: {}\n\n", True),
        (b"id: 1\r\nevent: error\r\ndata: {}\r\n\r\n", True),
        (b"event: message\ndata: {}\n\n", False),
        (b'data: {"content": "an error"}\n\n', False),
    ],
)
def test_an_error_is_found_by_its_bytes(frame: bytes, may: bool) -> None:
    assert may_carry_error(frame) is may


def test_a_content_chunk_is_content() -> None:
    parsed = parse_completion(chunk({"content": "hi"}))
    assert (parsed.model, parsed.content, parsed.has_content, parsed.choices, parsed.plain) == (
        "m",
        "hi",
        True,
        1,
        True,
    )
    assert (parsed.finish_reason, parsed.usage, parsed.error) == (None, None, None)


def test_a_message_is_read_like_a_delta() -> None:
    parsed = parse_completion(b'{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}')
    assert (parsed.content, parsed.finish_reason, parsed.plain) == ("hi", "stop", True)


@pytest.mark.parametrize(
    ("data", "has_content"),
    [
        (chunk({"role": "assistant"}), False),
        (chunk({"role": "assistant", "content": ""}), False),
        (chunk({"role": "assistant", "content": None, "tool_calls": []}), False),
        (chunk(), False),
        (chunk({"content": " "}), True),
        (chunk({"refusal": "no"}), True),
        (chunk({"reasoning_content": "hm"}), True),
        (chunk({"tool_calls": [{"index": 0}]}), True),
        (chunk({"function_call": {"name": "f"}}), True),
        (chunk({}, finish="stop"), True),
        (chunk({"content": [{"type": "text", "text": "hi"}]}), True),
    ],
)
def test_only_something_said_is_content(data: bytes, has_content: bool) -> None:
    assert parse_completion(data).has_content is has_content


@pytest.mark.parametrize(
    "data",
    [
        chunk({"content": "x", "refusal": "no"}),
        chunk({"content": "x", "reasoning_content": "hm"}),
        chunk({"tool_calls": [{"index": 0}]}),
        chunk({"function_call": {"name": "f"}}),
        chunk({"content": [{"type": "text", "text": "hi"}]}),
        b'{"choices": [{"delta": {"content": "x"}, "logprobs": {"content": []}}]}',
    ],
)
def test_what_a_replay_would_lose_is_not_plain(data: bytes) -> None:
    assert not parse_completion(data).plain


def test_choices_are_counted_by_index() -> None:
    assert parse_completion(b'{"choices": [{"index": 2, "delta": {"content": "x"}}]}').choices == 3


@pytest.mark.parametrize("data", [b'{"choices": null}', b'{"model": null}', b"{}"])
def test_a_chunk_without_choices_has_none(data: bytes) -> None:
    assert parse_completion(data).choices == 0


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"choices": 5}', b'{"choices": [{"delta": {"content": "\xff"}}]}']
)
def test_what_is_no_completion_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        parse_completion(data)


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, Usage(3, 4)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0)),
        ({"prompt_tokens": 3}, None),
        ({"completion_tokens": 3}, None),
        ({"prompt_tokens": None, "completion_tokens": None}, None),
        ({}, None),
        (None, None),
        ({"prompt_tokens": -3, "completion_tokens": 4}, Usage(0, 4)),
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}, Usage(9, 4, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 50}}, Usage(9, 4, 9)),
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": None}, Usage(9, 4)),
        (
            {"prompt_tokens": 9, "completion_tokens": 4, "completion_tokens_details": {"reasoning_tokens": 40}},
            Usage(9, 4, 0, 4),
        ),
    ],
)
def test_usage_needs_both_counts_and_parts_never_pass_the_whole(
    reported: dict[str, Any] | None, usage: Usage | None
) -> None:
    assert parse_completion(chunk(usage=reported)).usage == usage


def test_absurd_usage_is_no_usage() -> None:
    assert parse_completion(chunk(usage={"prompt_tokens": 10**30, "completion_tokens": 1})).usage is None


@pytest.mark.parametrize(
    ("error", "text"),
    [(None, None), ({"message": "m"}, "m"), ({}, "unspecified"), ("down", "down"), ({"message": "m", "code": 5}, "m")],
)
def test_an_error_object_is_read_with_or_without_its_parts(error: object, text: str | None) -> None:
    assert parse_completion(chunk(error=error)).error == text
