"""The frames of one streamed answer so far: what goes on to the client, what they report, how much they produced.

A byte search marks the few frames that matter; all others are passed on unparsed and kept up to a bound, and what
somebody wants to know of them is read after the last byte has left.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import msgspec

from backends.protocol import AttemptError
from backends.sse import (
    Parsed,
    WholeText,
    data_of,
    is_done,
    is_error_event,
    joined,
    may_carry_error,
    may_carry_usage,
    parse_completion,
    produced_bytes,
)
from core.money import Usage
from core.trace import AttemptOutcome

MAX_KEPT_BYTES = 1024 * 1024


class Outlet(Protocol):
    """Where plain frames go that pass whoever reads the answer."""

    def is_ready(self) -> bool:
        """Tell whether it takes frames now."""
        ...

    def send(self, frames: Sequence[bytes]) -> None:
        """Take frames in their order, right after it said that it does."""
        ...


class Frames:
    """Takes the frames of one answer in their order."""

    def __init__(self, *, include_usage: bool, counts_text: bool) -> None:
        """Pass the usage event on with `include_usage`; `counts_text` counts the text as it comes, for its pace."""
        self._include_usage = include_usage
        self._counts_text = counts_text
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._content_frames = 0
        self._text_bytes = 0
        self.reported: Usage | None = None
        self.is_report_last = False
        self.usage_frame: bytes | None = None
        self.is_done = False

    def take(self, frame: bytes) -> bytes | None:
        """Look at one frame and return what the client gets of it, or None.

        Raises:
            AttemptError: it is an error, or no event at all.
        """
        if is_plain(frame):
            self._keep(frame[6:-2])
            return frame
        if is_done(frame):
            self.is_done = True
            return frame
        if may_carry_error(frame):
            error = parsed(frame).error
            if error is not None or is_error_event(frame):
                raise AttemptError(AttemptOutcome.BROKEN_OFF, error or "the stream holds an error event")
        if may_carry_usage(frame):
            return self._take_usage(frame)
        self._keep_sound(frame)
        return frame

    def take_plain(self, data: bytes) -> list[bytes]:
        """Take the frames at the beginning of `data`, up to the first that is not plain or not complete."""
        frames: list[bytes] = []
        start = 0
        while (end := data.find(b"\n\n", start) + 2) > 1:
            frame = data[start:end]
            if not is_plain(frame):
                break
            self._keep(frame[6:-2])
            frames.append(frame)
            start = end
        return frames

    @property
    def paced_tokens(self) -> int:
        """Return the tokens that arrived so far, of which a frame is one at least."""
        return max(self._content_frames, self._text_bytes // 3)

    def produced_tokens(self) -> int:
        """Estimate tokens as bytes of text / 3, rounded up; a frame is at least one token, and may hold several."""
        return max(self._content_frames, -(-self._content_bytes() // 3))

    def whole(self) -> WholeText | None:
        """Return what all frames say together, or None when they are too long or not sound."""
        if self._kept_bytes > MAX_KEPT_BYTES:
            return None
        try:
            return joined(self._kept)
        except msgspec.DecodeError:
            return None

    def _take_usage(self, frame: bytes) -> bytes | None:
        said = parsed(frame)
        self.reported = said.usage or self.reported
        if said.choices > 0:
            self._keep_sound(frame)
        self.is_report_last = said.usage is not None
        if said.choices > 0:
            return frame
        if not self._include_usage:
            return None
        self.usage_frame = frame
        return frame

    def _keep_sound(self, frame: bytes) -> None:
        data = data_of(frame)
        if not data:
            return
        if data[:1] != b"{" or data[-1:] != b"}":
            raise AttemptError(AttemptOutcome.BROKEN_OFF, "the stream holds a malformed event")
        self._keep(data)

    def _keep(self, data: bytes) -> None:
        self.is_report_last = False
        self._content_frames += 1
        if self._counts_text:
            self._text_bytes += _text_bytes(data)
        self._kept_bytes += len(data)
        if self._kept_bytes <= MAX_KEPT_BYTES:
            self._kept.append(data)

    def _content_bytes(self) -> int:
        """Return the bytes of text in the frames so far; beyond what is kept they are taken to be like what is."""
        kept_bytes = sum(len(data) for data in self._kept)
        if kept_bytes == 0:
            return self._kept_bytes
        text_bytes = sum(_text_bytes(data) for data in self._kept)
        return text_bytes * self._kept_bytes // kept_bytes


def is_plain(frame: bytes) -> bool:
    """Tell by bytes whether a frame is one line of an object that reports neither usage nor an error, as most are.

    Searched by `find`, since `in` on bytes makes and drops a TypeError for each search (CPython 3.11 and 3.12).
    """
    return (
        frame.startswith(b"data: {")
        and frame.endswith(b"}\n\n")
        and frame.find(b"\n") == len(frame) - 2
        and frame.find(b'"error"') < 0
        and (frame.find(b'"usage"') < 0 or not may_carry_usage(frame))
        and frame.find(b"\r") < 0
    )


def parsed(frame: bytes) -> Parsed:
    """Decode one frame.

    Raises:
        AttemptError: it holds no event that can be read.
    """
    try:
        return parse_completion(data_of(frame))
    except msgspec.DecodeError as problem:
        raise AttemptError(AttemptOutcome.BROKEN_OFF, "the stream holds a malformed event") from problem


def _text_bytes(data: bytes) -> int:
    with suppress(msgspec.DecodeError):
        return produced_bytes(data)
    return len(data)
