"""The table of faults: what the upstream does, what any client should see, and what Headgate does about it inside.

A case holds what any gateway should show (`sees`), and what Headgate shows exactly: the status (200 with an error event
after the first byte), what is billed, and how many faults its breaker counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Target = Literal["scripted", "strict", "tls", "refused"]
"""Deployment: the scripted upstream; one whose model is checked; https to it; a port on which nothing listens."""

TARGETS: tuple[Target, ...] = ("scripted", "strict", "tls", "refused")


class Sees(StrEnum):
    """What a client should see: the whole answer, an error that it cannot miss, one of both; or it leaves by itself."""

    WHOLE = "whole"
    ERROR = "error"
    EITHER = "either"
    LEAVES = "leaves"


class Billed(StrEnum):
    """What Headgate charges: what the upstream reported, what it saw arrive, or nothing."""

    REPORTED = "reported"
    ESTIMATED = "estimated"
    NOTHING = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One fault for one kind of request.

    Attributes:
        before: the script of a request that is sent first.
        leaves_after: the client leaves after so many pieces of content.
        requests: how many requests the upstream may see at most.
        is_other_model: Headgate notes that another model answered.
    """

    group: str
    name: str
    script: str
    stream: bool
    sees: Sees
    status: int
    billed: Billed
    faults: int
    target: Target = "scripted"
    before: str | None = None
    leaves_after: int | None = None
    requests: int = 1
    is_other_model: bool = False

    @property
    def id(self) -> str:
        """Return a name that no other case has."""
        return f"{self.name}, {'stream' if self.stream else 'plain'}"


@dataclass(frozen=True, slots=True)
class _Expected:
    """What Headgate does, as `status billed faults`."""

    status: int
    billed: Billed
    faults: int


def _read(text: str) -> _Expected:
    status, billed, faults = text.split()
    return _Expected(int(status), Billed(billed), int(faults))


_Row = tuple[str, str, Sees, str | None, str | None]
"""Name, script, what the client should see, and what Headgate does for a stream and for a plain request."""

_WHOLE, _ERROR, _EITHER = Sees.WHOLE, Sees.ERROR, Sees.EITHER
_FINE = "200 reported 0"
_FAILED = "502 none 1"
_LEFT_ALONE = "502 none 0"
_BROKEN = "502 estimated 1"
_CUT = "200 estimated 1"
_LATE = "504 estimated 1"

_BEFORE_CONTENT: tuple[_Row, ...] = (
    ("closed before the headers", "close=headers", _ERROR, _FAILED, _FAILED),
    ("reset before the headers", "reset=headers", _ERROR, _FAILED, _FAILED),
    ("silent before the headers", "stall=headers", _ERROR, _LATE, _LATE),
    ("slow headers, in time", "headers=300", _WHOLE, _FINE, _FINE),
    ("silent after the headers", "role=0;stall=0", _ERROR, _LATE, None),
    ("role frames, then silence", "role=3;stall=0", _ERROR, _LATE, None),
    ("role frame, then an error", "error=0", _ERROR, _BROKEN, None),
    ("role frame, then the end", "cut=0", _ERROR, _BROKEN, None),
    ("no frame at all", "cut=0;role=0", _ERROR, _BROKEN, None),
    ("closed before the first token", "close=0", _ERROR, _BROKEN, None),
    ("reset before the first token", "reset=0", _ERROR, _BROKEN, None),
    ("half closed before the first token", "half=0", _ERROR, _BROKEN, None),
    ("broken framing before the first token", "badchunk=0;ttft=50", _ERROR, _BROKEN, None),
    ("malformed frame before the first token", "malformed=0", _ERROR, _BROKEN, None),
)
_IN_THE_MIDDLE: tuple[_Row, ...] = (
    ("ends cleanly in the middle", "cut=2", _ERROR, _CUT, _FAILED),
    ("ends after the last token, unfinished", "cut=99", _ERROR, _CUT, None),
    ("closed in the middle", "close=2", _ERROR, _CUT, _BROKEN),
    ("reset in the middle", "reset=2", _ERROR, _CUT, _BROKEN),
    ("half closed in the middle", "half=2", _ERROR, _CUT, _BROKEN),
    ("broken framing in the middle", "badchunk=2;drip=60;drip_gap=10", _ERROR, _CUT, _BROKEN),
    ("silent in the middle", "stall=2", _ERROR, _CUT, _LATE),
    ("silent after the last token", "stall=99", _ERROR, _CUT, None),
    ("malformed frame in the middle", "malformed=2;gap=50", _ERROR, _CUT, _FAILED),
    ("error frame in the middle", "error=2;gap=50", _ERROR, _CUT, None),
    ("error event in the middle", "error=2;named;gap=50", _ERROR, _CUT, None),
    ("tool call cut short", "tools=1;cut=2", _ERROR, _CUT, None),
    ("drips on beyond the limit", "drip=1;drip_gap=60", _ERROR, "504 estimated 1", _LATE),
)
_DIALECTS: tuple[_Row, ...] = (
    ("healthy", "", _WHOLE, _FINE, _FINE),
    ("drips in small pieces", "drip=40;drip_gap=1", _WHOLE, _FINE, _FINE),
    ("double [DONE]", "done=2", _WHOLE, _FINE, None),
    ("no [DONE]", "done=0", _EITHER, "200 reported 1", None),
    ("content after [DONE]", "after=2", _WHOLE, _FINE, None),
    ("no finish reason", "finish=none", _EITHER, _FINE, _FINE),
    ("CRLF line ends", "eol=crlf", _WHOLE, _FINE, None),
    ("CR line ends", "eol=cr", _WHOLE, _FINE, None),
    ("comments between frames", "comment", _WHOLE, _FINE, None),
    ("several data lines in a frame", "multiline", _WHOLE, _FINE, None),
    ("no blank after data:", "space=0", _WHOLE, _FINE, None),
    (
        "characters split between reads",
        "split;drip_gap=20;text=na%C3%AFve%20%F0%9F%9A%80%20caf%C3%A9",
        _WHOLE,
        _FINE,
        None,
    ),
    ("frame of 3 MB", "huge=3000000", _WHOLE, _FINE, _FINE),
    ("frame of 9 MB", "huge=9000000", _EITHER, "502 estimated 1", _FINE),
)
_USAGE: tuple[_Row, ...] = (
    ("no usage", "usage=none", _WHOLE, "200 estimated 0", "200 estimated 0"),
    ("cumulative usage", "usage=cumulative", _WHOLE, _FINE, None),
    ("usage with the last token", "usage=last", _WHOLE, _FINE, None),
    ("usage with the finish reason", "usage=finish", _WHOLE, _FINE, None),
    ("usage unasked", "usage=extra", _WHOLE, _FINE, None),
    ("usage in the middle, then more", "usage=middle", _WHOLE, _FINE, None),
    ("cumulative usage, then cut", "usage=cumulative;cut=3", _ERROR, "200 reported 1", None),
)
_STATUS: tuple[_Row, ...] = (
    ("400", "status=400", _ERROR, "400 none 0", "400 none 0"),
    ("401", "status=401", _ERROR, _FAILED, _FAILED),
    ("403", "status=403", _ERROR, _LEFT_ALONE, _LEFT_ALONE),
    ("404", "status=404", _ERROR, _LEFT_ALONE, _LEFT_ALONE),
    ("408", "status=408", _ERROR, _LEFT_ALONE, _LEFT_ALONE),
    ("413", "status=413", _ERROR, "400 none 0", "400 none 0"),
    ("422", "status=422", _ERROR, "400 none 0", "400 none 0"),
    ("429 without Retry-After", "status=429", _ERROR, "503 none 0", "503 none 0"),
    ("429 with Retry-After", "status=429;retry_after=1", _ERROR, "503 none 0", "503 none 0"),
    ("500", "status=500", _ERROR, _FAILED, _FAILED),
    ("502 with a page of HTML", "status=502;body=html", _ERROR, _FAILED, _FAILED),
    ("503 without Retry-After", "status=503", _ERROR, "503 none 1", "503 none 1"),
    ("503 with Retry-After", "status=503;retry_after=1", _ERROR, "503 none 0", "503 none 0"),
    ("504", "status=504", _ERROR, _FAILED, _FAILED),
    ("529", "status=529", _ERROR, _FAILED, _FAILED),
    ("redirect", "status=307", _ERROR, _FAILED, _FAILED),
    ("204", "status=204", _ERROR, _FAILED, _FAILED),
    ("500 with an endless body", "status=500;stall=1", _ERROR, _FAILED, _FAILED),
    ("500 broken off", "status=500;close=1", _ERROR, _FAILED, _FAILED),
    ("500 in chunks", "status=500;wire=chunked", _ERROR, _FAILED, _FAILED),
)
_BODIES: tuple[_Row, ...] = (
    ("empty body", "body=empty", _ERROR, _BROKEN, _FAILED),
    ("HTML with status 200", "body=html", _ERROR, _FAILED, _FAILED),
    ("text that is called JSON", "body=text", _ERROR, _FAILED, _FAILED),
    ("JSON of another shape", "body=array", _ERROR, _FAILED, _FAILED),
    ("no choices", "body=nochoices", _ERROR, _FAILED, _FAILED),
    ("an error object with status 200", "body=json;error=0", _ERROR, _FAILED, _FAILED),
    ("a document instead of a stream", "body=json", _EITHER, _FAILED, None),
    ("a stream instead of a document", "body=sse", _EITHER, None, _FAILED),
    ("another content type", "type=text/plain", _EITHER, _FAILED, _FINE),
    ("another model than asked", "model=other", _WHOLE, _FINE, _FINE),
)
_WIRE: tuple[_Row, ...] = (
    ("HTTP/1.0", "wire=http10", _WHOLE, _FINE, _FINE),
    ("HTTP/1.0, reset in the middle", "wire=http10;reset=2", _ERROR, _CUT, None),
    ("not HTTP", "wire=garbage", _ERROR, _FAILED, _FAILED),
    ("header of 128 KiB", "wire=bigheader", _EITHER, _FAILED, _FAILED),
    ("103 Early Hints first", "wire=hints", _WHOLE, _FINE, _FINE),
    ("plain answer in chunks", "wire=chunked", _WHOLE, None, _FINE),
    ("gzip unasked", "gzip=on", _WHOLE, _FINE, _FINE),
    ("gzip in name only", "gzip=broken", _ERROR, _BROKEN, _BROKEN),
    ("content type twice", "duplicate=type", _WHOLE, _FINE, _FINE),
    ("two lengths that differ", "duplicate=lengths", _ERROR, None, _FAILED),
    ("Connection: close", "keepalive=0", _WHOLE, _FINE, _FINE),
    ("headers that are nobody's business", "leak", _WHOLE, _FINE, _FINE),
)


def _rows(group: str, rows: tuple[_Row, ...]) -> Iterator[Case]:
    for name, script, sees, streamed, plain in rows:
        for stream, text in ((True, streamed), (False, plain)):
            if text is not None:
                yield _case(group, name, script, sees, text, stream=stream, is_other_model=script == "model=other")


def _case(
    group: str,
    name: str,
    script: str,
    sees: Sees,
    text: str,
    *,
    stream: bool,
    target: Target = "scripted",
    before: str | None = None,
    leaves_after: int | None = None,
    requests: int = 1,
    is_other_model: bool = False,
) -> Case:
    expected = _read(text)
    return Case(
        group=group,
        name=name,
        script=script,
        stream=stream,
        sees=sees,
        status=expected.status,
        billed=expected.billed,
        faults=expected.faults,
        target=target,
        before=before,
        leaves_after=leaves_after,
        requests=requests,
        is_other_model=is_other_model,
    )


def _connections() -> Iterator[Case]:
    for stream in (True, False):
        group = "connections"
        yield _case(
            group, "closed between requests", "", _WHOLE, _FINE, stream=stream, before="drop=now"
        )  # fmt: skip
        yield _case(
            group, "closed as the next request comes", "", _WHOLE, _FINE, stream=stream, before="drop=next", requests=2
        )
        yield _case(group, "no TLS where https was meant", "", _ERROR, _FAILED, stream=stream, target="tls")
        yield _case(group, "nothing listens", "", _ERROR, _FAILED, stream=stream, target="refused", requests=0)
        yield _case(
            group,
            "another model, where that is refused",
            "model=other",
            _ERROR,
            _BROKEN,
            stream=stream,
            target="strict",
            is_other_model=True,
        )


def _leaving() -> Iterator[Case]:
    group, sees = "clients that leave", Sees.LEAVES
    yield _case(group, "leaves in the middle", "n=2000;gap=20", sees, "499 estimated 0", stream=True, leaves_after=3)
    yield _case(group, "leaves before the first token", "stall=0", sees, "499 estimated 0", stream=True, leaves_after=0)
    yield _case(group, "leaves", "stall=headers", sees, "499 estimated 0", stream=False, leaves_after=0)
    yield _case(group, "leaves a slow body", "stall=1", sees, "499 estimated 0", stream=False, leaves_after=0)


CASES: tuple[Case, ...] = (
    *_rows("dialects", _DIALECTS),
    *_rows("before content", _BEFORE_CONTENT),
    *_rows("in the middle", _IN_THE_MIDDLE),
    *_rows("usage", _USAGE),
    *_rows("status", _STATUS),
    *_rows("bodies", _BODIES),
    *_rows("wire", _WIRE),
    *_connections(),
    *_leaving(),
)
