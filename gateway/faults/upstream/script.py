"""Parses what the upstream shall do, from a header (`ttft=50;gap=5`) or a model name (`scripted;ttft=50;gap=5`)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

BEFORE_HEADERS = -1
"""The fault point `headers`: before the status line."""

LIMIT_BYTES = 64 * 1024 * 1024
LIMIT_COUNT = 100_000


class ScriptError(ValueError):
    """A script names an unknown key or a value that the key does not take."""


@dataclass(frozen=True, slots=True)
class Script:
    """What to do with one request; the defaults describe a healthy, instant upstream.

    Fault points (`cut`, `close`, `reset`, `badchunk`, `half`, `stall`, `malformed`, `error`) count content chunks
    already sent; a point beyond the last chunk means "after the last one, before the finish frame".
    """

    headers_ms: float = 0.0
    ttft_ms: float = 0.0
    gap_ms: float = 0.0
    n: int | None = None
    text: str | None = None
    finish: str | None = None
    tools: int = 0
    role: int = 1
    huge_bytes: int = 0
    model: str | None = None
    dims: int = 8

    status: int = 200
    code: str | None = None
    retry_after: str | None = None
    retry_after_ms: str | None = None
    should_retry: str | None = None

    cut: int | None = None
    close: int | None = None
    reset: int | None = None
    badchunk: int | None = None
    half: int | None = None
    stall: int | None = None
    stall_ms: float = 600_000.0
    malformed: int | None = None
    error: int | None = None

    done: int = 1
    after: int = 0
    named: bool = False
    eol: str = "\n"
    comment: bool = False
    multiline: bool = False
    space: bool = True
    split: bool = False
    drip_bytes: int = 0
    drip_gap_ms: float = 2.0

    usage: str = "auto"
    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None

    gzip: str = "off"
    wire: str = "http11"
    body: str = "right"
    content_type: str | None = None
    keepalive: bool = True
    drop: str = "never"
    leak: bool = False
    duplicate: str = "none"
    times: int | None = None

    def healed(self) -> "Script":
        """The healthy script that follows once `times` requests have met the fault."""
        return Script(text=self.text, n=self.n, model=self.model, usage=self.usage, dims=self.dims)

    def is_broken_off_at(self, position: int, last: int) -> str | None:
        """Name the ending that is due after `position` of `last` content chunks, if any."""
        for ending in ("cut", "close", "reset", "badchunk", "half"):
            if is_due(getattr(self, ending), position, last):
                return ending
        return None


def is_due(point: int | None, position: int, last: int) -> bool:
    """Tell whether a fault point falls on this position; points beyond the end fall on the end."""
    return point is not None and min(point, last) == position


def _count(text: str) -> int:
    number = int(text)
    if not 0 <= number <= LIMIT_COUNT:
        raise ValueError(f"a whole number from 0 to {LIMIT_COUNT}")
    return number


def _bytes(text: str) -> int:
    number = int(text)
    if not 0 <= number <= LIMIT_BYTES:
        raise ValueError(f"a number of bytes from 0 to {LIMIT_BYTES}")
    return number


def _status(text: str) -> int:
    number = int(text)
    if not 200 <= number <= 599:
        raise ValueError("an HTTP status from 200 to 599")
    return number


def _ms(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 3_600_000:
        raise ValueError("milliseconds from 0 to 3600000")
    return number


def _point(text: str) -> int:
    return BEFORE_HEADERS if text == "headers" else _count(text)


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("0 or 1")
    return text == "1"


def _header_text(text: str) -> str:
    value = unquote(text)
    if "\r" in value or "\n" in value:
        raise ValueError("text without line breaks")
    return value


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError("one of " + ", ".join(allowed))
        return text

    return parse


def _line_end(text: str) -> str:
    return {"lf": "\n", "crlf": "\r\n", "cr": "\r"}[_one_of("lf", "crlf", "cr")(text)]


KEYS: Mapping[str, tuple[str, Callable[[str], object]]] = MappingProxyType(
    {
        "headers": ("headers_ms", _ms),
        "ttft": ("ttft_ms", _ms),
        "gap": ("gap_ms", _ms),
        "n": ("n", _count),
        "text": ("text", unquote),
        "finish": ("finish", _one_of("stop", "length", "content_filter", "tool_calls", "none")),
        "tools": ("tools", _count),
        "role": ("role", _count),
        "huge": ("huge_bytes", _bytes),
        "model": ("model", unquote),
        "dims": ("dims", _count),
        "status": ("status", _status),
        "code": ("code", unquote),
        "retry_after": ("retry_after", _header_text),
        "retry_after_ms": ("retry_after_ms", _header_text),
        "should_retry": ("should_retry", _one_of("true", "false")),
        "cut": ("cut", _count),
        "close": ("close", _point),
        "reset": ("reset", _point),
        "badchunk": ("badchunk", _count),
        "half": ("half", _count),
        "stall": ("stall", _point),
        "stall_for": ("stall_ms", _ms),
        "malformed": ("malformed", _count),
        "error": ("error", _count),
        "done": ("done", _count),
        "after": ("after", _count),
        "named": ("named", _flag),
        "eol": ("eol", _line_end),
        "comment": ("comment", _flag),
        "multiline": ("multiline", _flag),
        "space": ("space", _flag),
        "split": ("split", _flag),
        "drip": ("drip_bytes", _count),
        "drip_gap": ("drip_gap_ms", _ms),
        "usage": (
            "usage",
            _one_of("auto", "none", "wrong", "cumulative", "last", "finish", "extra", "middle", "refuse"),
        ),
        "prompt": ("prompt", int),
        "completion": ("completion", int),
        "cached": ("cached", int),
        "gzip": ("gzip", _one_of("off", "on", "broken")),
        "wire": ("wire", _one_of("http11", "http10", "chunked", "garbage", "bigheader", "hints")),
        "body": ("body", _one_of("right", "empty", "html", "text", "array", "nochoices", "json", "sse")),
        "type": ("content_type", _header_text),
        "keepalive": ("keepalive", _flag),
        "drop": ("drop", _one_of("never", "now", "next")),
        "leak": ("leak", _flag),
        "duplicate": ("duplicate", _one_of("none", "type", "length", "lengths")),
        "times": ("times", _count),
    }
)


def parse_script(text: str, base: Script | None = None) -> Script:
    """Read `key=value;key=value` over `base`; a bare key means `key=1`.

    Raises:
        ScriptError: for an unknown key or a value out of its range, so that a typing slip never passes as health.
    """
    changes: dict[str, Any] = {}
    for pair in filter(None, (part.strip() for part in text.split(";"))):
        key, equals, value = pair.partition("=")
        if key not in KEYS:
            raise ScriptError(f"script key {key!r} is unknown; known are {', '.join(KEYS)}")
        field, parse = KEYS[key]
        try:
            changes[field] = parse(value if equals else "1")
        except ValueError as problem:
            raise ScriptError(f"script key {key!r} does not take {value!r}: {problem}") from problem
    return replace(base or Script(), **changes)


def script_in_model(model: str) -> str:
    """The script part of a model name: what follows the first `;`."""
    return model.partition(";")[2]
